//! The books: what the kernel counted by itself, beside what its events add up to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_common::Counters;

/// The kernel's own totals of a network namespace, from `/proc/PID/net/snmp` and `netstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// `Tcp: ActiveOpens`.
    pub active_opens: u64,
    /// `Tcp: PassiveOpens`.
    pub passive_opens: u64,
    /// `Tcp: EstabResets`.
    pub estab_resets: u64,
    /// `Tcp: CurrEstab`, a level.
    pub current_established: u64,
    /// `Tcp: OutRsts`.
    pub resets_sent: u64,
    /// `TcpExt: ListenOverflows`.
    pub listen_overflows: u64,
    /// `TcpExt: ListenDrops`.
    pub listen_drops: u64,
    /// `TcpExt: TCPAbortFailed`: resets by an own act that could not be sent.
    pub aborts_failed: u64,
}

/// What `CurrEstab` counts: kernels differ (`tcp_set_state`), also of one version, because the change of
/// Linux 6.11 was taken over into older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurrEstabRule {
    /// Connections in ESTABLISHED.
    Established,
    /// Those in CLOSE_WAIT too.
    EstablishedAndCloseWait,
}

impl CurrEstabRule {
    /// By how much the level rose and fell.
    fn changes(self, counted: &Counters) -> (u64, u64) {
        match self {
            Self::Established => (counted.established, counted.unestablished + counted.close_waits),
            Self::EstablishedAndCloseWait => (
                counted.established + counted.close_waits_at_once,
                counted.unestablished + counted.close_waits_left,
            ),
        }
    }
}

/// Both sides at the same instant: the programs' counters did not change while the totals were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What the programs counted.
    pub counters: Counters,
    /// What the kernel counted; `None` if it cannot be had (host network, namespace gone).
    pub totals: Option<Totals>,
    /// Events that the kernel did not show because the program was running already on that CPU; `None`
    /// if that could not be read.
    pub missed: Option<u64>,
}

/// One equation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Book {
    /// Its name: the kernel's counter, or what is conserved.
    pub name: String,
    /// The left side: what the kernel counted; of what is conserved, what came in.
    pub kernel: u64,
    /// The right side: what the events add up to.
    pub events: u64,
    /// Both are equal.
    pub balanced: bool,
}

impl Book {
    fn new(name: &str, kernel: u64, events: u64) -> Self {
        Self { name: name.to_owned(), kernel, events, balanced: kernel == events }
    }
}

/// What user space saw of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Records of this target that were decoded.
    pub decoded: u64,
    /// Records of the whole run.
    pub run: RunRecords,
    /// Connections opened or found.
    pub connections_begun: u64,
    /// Connections that ended.
    pub connections_ended: u64,
    /// Connections still open.
    pub connections_open: u64,
}

/// What became of the records of the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunRecords {
    /// Bytes that were no record.
    pub undecodable: u64,
    /// Records that were decoded.
    pub decoded: u64,
    /// Of these, those of a target, or of the node itself.
    pub attributed: u64,
    /// Of these, those of no target that is known (any more).
    pub unattributed: u64,
}

/// Balances the books between two readings. Without a rule for CurrEstab that book is left out.
#[must_use]
pub fn balance(
    first: &Reading,
    last: &Reading,
    received: &Received,
    rule: Option<CurrEstabRule>,
) -> Vec<Book> {
    let counted = last.counters.since(first.counters);
    let mut books = Vec::new();
    if let (Some(before), Some(after)) = (&first.totals, &last.totals) {
        let kernel = |field: fn(&Totals) -> u64| field(after).wrapping_sub(field(before));
        books.push(Book::new("OutRsts", kernel(|totals| totals.resets_sent), counted.resets_sent));
        books.push(Book::new("PassiveOpens", kernel(|totals| totals.passive_opens), counted.passive_opens));
        // The kernel counts an active open when the SYN is sent (`tcp_connect`).
        let active = counted.active_opens.saturating_sub(counted.active_unsent);
        books.push(Book::new("ActiveOpens", kernel(|totals| totals.active_opens), active));
        books.push(Book::new("EstabResets", kernel(|totals| totals.estab_resets), counted.estab_resets));
        books.extend(rule.map(|rule| {
            // A level: what it was, and what became of it.
            let (risen, fallen) = rule.changes(&counted);
            let events = before.current_established.wrapping_add(risen).wrapping_sub(fallen);
            Book::new("CurrEstab", after.current_established, events)
        }));
    }
    let (sent, lost): (u64, u64) = (counted.records.iter().sum(), counted.records_lost.iter().sum());
    books.push(Book::new("records", sent, received.decoded + lost));
    let run = &received.run;
    books.push(Book::new("attribution", run.decoded, run.attributed + run.unattributed));
    books.push(Book::new(
        "connections",
        received.connections_begun,
        received.connections_ended + received.connections_open,
    ));
    books
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn an_active_open_that_sent_no_segment_does_not_count() {
        let counters = Counters { active_opens: 3, active_unsent: 1, ..Counters::default() };
        let totals = Some(Totals { active_opens: 2, ..Totals::default() });
        let last = Reading { counters, totals, ..Reading::default() };
        let first = Reading { totals: Some(Totals::default()), ..Reading::default() };
        let books = balance(&first, &last, &Received::default(), None);
        assert!(books.iter().all(|book| book.balanced), "{books:?}");
    }

    #[test]
    fn a_reset_that_was_not_seen_unbalances_its_book_alone() {
        let totals = |resets_sent| Some(Totals { resets_sent, ..Totals::default() });
        let first = Reading { totals: totals(5), ..Reading::default() };
        let last = Reading { totals: totals(6), ..Reading::default() };
        let books = balance(&first, &last, &Received::default(), None);
        let unbalanced: Vec<_> =
            books.iter().filter(|book| !book.balanced).map(|book| book.name.as_str()).collect();
        assert_eq!(unbalanced, ["OutRsts"]);
    }

    #[test]
    fn records_are_decoded_or_lost_and_what_is_decoded_is_somebodys() {
        let mut counters = Counters::default();
        (counters.records[1], counters.records[2], counters.records_lost[2]) = (7, 5, 2);
        let last = Reading { counters, ..Reading::default() };
        let run = RunRecords { undecodable: 0, decoded: 30, attributed: 28, unattributed: 2 };
        let received = |decoded, run| Received { decoded, run, ..Received::default() };
        let unbalanced = |received: &Received| -> Vec<String> {
            let books = balance(&Reading::default(), &last, received, None);
            books.into_iter().filter(|book| !book.balanced).map(|book| book.name).collect()
        };
        assert!(unbalanced(&received(10, run)).is_empty());
        assert_eq!(unbalanced(&received(9, run)), ["records"]);
        assert_eq!(unbalanced(&received(10, RunRecords { attributed: 27, ..run })), ["attribution"]);
    }

    /// TCP's states and the changes between them that the kernel makes.
    const CHANGES: [(i32, &[i32]); 8] = [
        (CLOSE, &[SYN_SENT, SYN_RECV]),
        (SYN_SENT, &[ESTABLISHED, CLOSE]),
        (SYN_RECV, &[ESTABLISHED, CLOSE_WAIT, FIN_WAIT, CLOSE]),
        (ESTABLISHED, &[FIN_WAIT, CLOSE_WAIT, CLOSE]),
        (FIN_WAIT, &[CLOSE]),
        (CLOSE_WAIT, &[LAST_ACK, CLOSE]),
        (LAST_ACK, &[CLOSE]),
        (LISTEN, &[CLOSE]),
    ];
    const ESTABLISHED: i32 = 1;
    const SYN_SENT: i32 = 2;
    const SYN_RECV: i32 = 3;
    const FIN_WAIT: i32 = 4;
    const CLOSE: i32 = 7;
    const CLOSE_WAIT: i32 = 8;
    const LAST_ACK: i32 = 9;
    const LISTEN: i32 = 10;

    proptest! {
        /// Whatever connections do, and whenever reading begins, the book shows how many are in the
        /// states that the kernel counts.
        #[test]
        fn the_level_follows_from_its_changes(walks in vec(vec(any::<prop::sample::Index>(), 0..8), 0..20), begin in 0usize..80) {
            for rule in [CurrEstabRule::Established, CurrEstabRule::EstablishedAndCloseWait] {
                let mut states = vec![CLOSE; walks.len()];
                let mut counters = Counters::default();
                let read = |states: &[i32], counters: Counters| Reading {
                    counters,
                    totals: Some(Totals {
                        current_established: states.iter().filter(|state| is_current(rule, **state)).count() as u64,
                        ..Totals::default()
                    }),
                    missed: Some(0),
                };
                let mut first = read(&states, counters);
                for step in 0..80 {
                    if step == begin {
                        first = read(&states, counters);
                    }
                    let (walker, turn) = (step % 20, step / 20);
                    let Some(choice) = walks.get(walker).and_then(|walk| walk.get(turn)) else { continue };
                    let next = CHANGES.iter().find(|(state, _)| *state == states[walker]).unwrap().1;
                    let (old, new) = (states[walker], *choice.get(next));
                    counters.count_state(old, new, || 1);
                    states[walker] = new;
                }
                let books = balance(&first, &read(&states, counters), &Received::default(), Some(rule));
                let book = books.iter().find(|book| book.name == "CurrEstab").unwrap();
                prop_assert!(book.balanced, "{:?} by {:?}", book, rule);
            }
        }
    }

    fn is_current(rule: CurrEstabRule, state: i32) -> bool {
        state == ESTABLISHED || state == CLOSE_WAIT && rule == CurrEstabRule::EstablishedAndCloseWait
    }

    #[test]
    fn by_the_wrong_rule_a_half_closed_connection_unbalances_the_level() {
        let mut counters = Counters::default();
        counters.count_state(SYN_RECV, ESTABLISHED, || 1);
        counters.count_state(ESTABLISHED, CLOSE_WAIT, || 1);
        let totals = |current_established| Some(Totals { current_established, ..Totals::default() });
        let first = Reading { totals: totals(3), ..Reading::default() };
        let last = Reading { counters, totals: totals(4), missed: Some(0) };
        let balanced = |rule| {
            let books = balance(&first, &last, &Received::default(), rule);
            books.iter().find(|book| book.name == "CurrEstab").map(|book| book.balanced)
        };
        assert_eq!(balanced(Some(CurrEstabRule::EstablishedAndCloseWait)), Some(true));
        assert_eq!(balanced(Some(CurrEstabRule::Established)), Some(false));
        assert_eq!(balanced(None), None, "without a rule there is no book");
    }
}
