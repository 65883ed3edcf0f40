//! Text for people: lines as things happen; at the end of each target a picture over time, its
//! verdict and what it rests on.
//!
//! The same lines give the same bytes, whether they come live or from a recording. Memory is bounded:
//! it grows with targets and containers that are traced at a time, not with connections.

mod bands;
mod clients;
mod condense;
mod history;
mod live;
mod picture;
mod series;
mod style;
mod table;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;

use tracer_core::{
    event::Mono,
    output::{Body, Line, Subject},
};

use super::{Render, names};
use condense::{Condense, More};
use history::{History, Loss};
use live::Kind;
pub use style::Look;

/// A target: its network namespace and name, as in its lines.
type Key = (u64, String);

/// The lines of one run as text.
pub struct Timeline {
    look: Look,
    /// Time of the first line: all others are told from there.
    first: Option<Mono>,
    targets: BTreeMap<Key, History>,
    /// There was more than one target: lines name theirs.
    many: bool,
    floods: Condense<Kind>,
}

impl Timeline {
    /// Text that looks like this.
    #[must_use]
    pub fn new(look: Look) -> Self {
        Self { look, first: None, targets: BTreeMap::new(), many: false, floods: Condense::default() }
    }

    fn history(&mut self, subject: Option<&Subject>, time: Mono) -> &mut History {
        let target = subject.map(|subject| &subject.target);
        let key = target.map_or((0, String::new()), |target| (target.netns, target.name.clone()));
        let name = key.1.clone();
        self.many |= !self.targets.is_empty() && !self.targets.contains_key(&key);
        self.targets.entry(key).or_insert_with(|| History::new(&name, time))
    }

    /// The target, if there are several, and the container.
    fn who(&self, line: &Line, container: &str) -> String {
        let target =
            line.subject.as_ref().filter(|_| self.many).map(|subject| names::clean(&subject.target.name));
        let container = Some(names::clean(container)).filter(|name| !name.is_empty());
        target.into_iter().chain(container).collect::<Vec<_>>().join(" ")
    }

    /// A line of text, after what was condensed before it.
    fn tell(&mut self, line: &Line, container: &str, text: &str, out: &mut Vec<u8>) {
        self.tell_floods(line.mono_ns, out);
        let begin = live::begin(
            self.look,
            self.first.unwrap_or(line.mono_ns),
            line.mono_ns,
            &self.who(line, container),
        );
        write(out, &format!("{begin}{text}"));
    }

    fn tell_loss(&mut self, line: &Line, loss: Option<Loss>, out: &mut Vec<u8>) {
        let Some(loss) = loss else { return };
        let who = self.who(line, &loss.container);
        let kind = Kind { who: who.clone(), ending: loss.ending, confidence: loss.confidence };
        let mut more = Vec::new();
        let alone = self.floods.take(&kind, line.mono_ns, &mut more);
        self.tell_more(more, out);
        if alone {
            let first = self.first.unwrap_or(line.mono_ns);
            let taken = style::columns(&live::begin(Look::new(0, false), first, line.mono_ns, &who));
            let text = live::loss(self.look, &loss, self.look.width().saturating_sub(taken));
            write(out, &format!("{}{text}", live::begin(self.look, first, line.mono_ns, &who)));
        }
    }

    fn tell_more(&self, more: Vec<More<Kind>>, out: &mut Vec<u8>) {
        let first = self.first.unwrap_or_default();
        for more in more {
            let begin = live::begin(self.look, first, more.until, &more.kind.who);
            write(out, &format!("{begin}{}", live::more(self.look, first, &more)));
        }
    }

    fn tell_floods(&mut self, now: Mono, out: &mut Vec<u8>) {
        let mut more = Vec::new();
        self.floods.flush(now, &mut more);
        self.tell_more(more, out);
    }

    /// The picture of a target, and all else that is told at its end.
    fn conclude(&mut self, line: &Line, verdict: &tracer_core::verdict::Verdict, out: &mut Vec<u8>) {
        self.tell_floods(line.mono_ns, out);
        self.history(line.subject.as_deref(), line.mono_ns);
        let Some(target) = line.subject.as_ref().map(|subject| &subject.target) else { return };
        if let Some(history) = self.targets.remove(&(target.netns, target.name.clone())) {
            let first = self.first.unwrap_or(line.mono_ns);
            write(out, "");
            picture::draw(self.look, first, &history).iter().for_each(|line| write(out, line));
            write(out, "");
            verdict::tell(self.look, &history, verdict).iter().for_each(|line| write(out, line));
        }
    }
}

impl Render for Timeline {
    fn line(&mut self, line: &Line, bytes: &mut Vec<u8>) {
        let (look, time, subject) = (self.look, line.mono_ns, line.subject.as_deref());
        self.first.get_or_insert(time);
        let mut more = Vec::new();
        self.floods.due(time, &mut more);
        self.tell_more(more, bytes);
        match &line.body {
            Body::AgentStarted(_) => {}
            Body::TargetStarted(event) => {
                self.history(subject, time);
                if event.late {
                    self.tell(line, "", "traced from now on: its termination had begun before", bytes);
                }
            }
            Body::Phase(event) => {
                self.history(subject, time).phase(time, event);
                self.tell(line, &event.container.name, &live::phase(look, event), bytes);
            }
            Body::Signal(event) => {
                if let Some(text) = live::inside_signal(event) {
                    self.tell(line, &event.container.name, &text, bytes);
                }
            }
            Body::Exit(event) => {
                let container = event.container.as_ref().map_or("", |container| &container.name);
                if event.init {
                    self.tell(line, container, &live::init_exit(look, event), bytes);
                }
            }
            Body::HookRun(event) => {
                self.tell(line, &event.container.name, &live::hook_run(look, event), bytes);
            }
            Body::Endpoint(event) => self.tell(line, "", &live::endpoint(event), bytes),
            Body::TargetEnded(event) => {
                self.tell(line, "", &format!("no verdict: {}", names::clean(&event.reason)), bytes);
            }
            Body::ConnectionOpened(event) => self.history(subject, time).opened(time, event),
            Body::ConnectionClosed(event) => {
                let loss = self.history(subject, time).closed(time, event);
                self.tell_loss(line, loss, bytes);
            }
            Body::Reset(event) => {
                let loss = self.history(subject, time).reset(time, event);
                self.tell_loss(line, loss, bytes);
            }
            Body::Lost(event) => self.tell(line, "", &live::lost(look, event), bytes),
            Body::Verdict(verdict) => self.conclude(line, verdict, bytes),
            Body::Rehearsal(event) => {
                write(bytes, "");
                clients::tell(look, event).iter().for_each(|line| write(bytes, line));
            }
        }
    }

    /// Targets that are still traced: their pictures, without a verdict.
    fn end(&mut self, bytes: &mut Vec<u8>) {
        self.tell_floods(Mono::MAX, bytes);
        let first = self.first.unwrap_or_default();
        for history in std::mem::take(&mut self.targets).into_values() {
            write(bytes, "");
            picture::draw(self.look, first, &history).iter().for_each(|line| write(bytes, line));
            write(bytes, "");
            verdict::tell_none(self.look, &history).iter().for_each(|line| write(bytes, line));
        }
    }
}

fn write(bytes: &mut Vec<u8>, line: &str) {
    bytes.extend_from_slice(line.trim_end().as_bytes());
    bytes.push(b'\n');
}
