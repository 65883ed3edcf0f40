//! The event streams of the agents: which line follows which, and what is missing between. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

use super::input::Place;

/// All streams, by node.
#[derive(Debug, Default)]
pub struct Agents {
    nodes: BTreeMap<String, Node>,
}

/// What is known of a node's agent.
#[derive(Debug, Default)]
struct Node {
    /// Its pods that are there now: two while one replaces the other.
    pods: BTreeSet<String>,
    run: Option<Run>,
    /// It began anew while it was read.
    restarted: bool,
    /// Lines that are missing, over all runs.
    missing: u64,
    /// Lines that could not be read.
    garbage: u64,
    /// Why the log cannot be read now.
    trouble: Option<String>,
}

/// One run of an agent.
#[derive(Debug)]
struct Run {
    id: Arc<str>,
    last: u64,
    gaps: Vec<RangeInclusive<u64>>,
}

impl Agents {
    /// An agent's pod is on a node.
    pub fn came(&mut self, node: &str, pod: &str) {
        self.nodes.entry(node.to_owned()).or_default().pods.insert(pod.to_owned());
    }

    /// It is not any more.
    pub fn left(&mut self, node: &str, pod: &str) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.pods.remove(pod);
        }
    }

    /// An agent's log cannot be read, for this reason; or can be again.
    pub fn trouble(&mut self, node: &str, reason: Option<String>) {
        self.nodes.entry(node.to_owned()).or_default().trouble = reason;
    }

    /// A line that is none.
    pub fn garbage(&mut self, node: &str) {
        self.nodes.entry(node.to_owned()).or_default().garbage += 1;
    }

    /// Takes a line of a node's agent; `false` if it was taken before.
    pub fn take(&mut self, node: &str, line: &Place) -> bool {
        let known = self.nodes.entry(node.to_owned()).or_default();
        known.trouble = None;
        let same = |run: &&mut Run| run.id == line.agent.run_id;
        if let Some(run) = known.run.as_mut().filter(same) {
            if line.seq <= run.last {
                return false;
            }
            if line.seq > run.last + 1 {
                run.gaps.push(run.last + 1..=line.seq - 1);
                known.missing += line.seq - run.last - 1;
            }
            run.last = line.seq;
            return true;
        }
        let mut run = Run { id: line.agent.run_id.clone(), last: line.seq, gaps: Vec::new() };
        // Of the first run the beginning was never asked for; of another one it should be there.
        if known.run.is_some() {
            known.restarted = true;
            if line.seq > 1 {
                run.gaps.push(1..=line.seq - 1);
                known.missing += line.seq - 1;
            }
        }
        known.run = Some(run);
        true
    }

    /// Lines that are missing in a node's stream between these two.
    #[must_use]
    pub fn gaps(&self, node: &str, first: u64, last: u64) -> Vec<RangeInclusive<u64>> {
        let run = self.nodes.get(node).and_then(|known| known.run.as_ref());
        let gaps = run.map(|run| run.gaps.as_slice()).unwrap_or_default();
        gaps.iter().filter(|gap| *gap.start() <= last && *gap.end() >= first).cloned().collect()
    }

    /// Whether there was any agent.
    #[must_use]
    pub fn were_seen(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Whether an agent's pod is on a node.
    #[must_use]
    pub fn is_on(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|known| !known.pods.is_empty())
    }

    /// Why a pod that ended on this node has no verdict.
    #[must_use]
    pub fn why_none(&self, node: &str) -> String {
        let Some(known) = self.nodes.get(node) else { return format!("no agent runs on node {node}") };
        if let Some(reason) = &known.trouble {
            return format!("the log of the agent on node {node} cannot be read: {reason}");
        }
        if known.restarted {
            return format!("the agent on node {node} ended and began anew meanwhile");
        }
        if known.missing > 0 {
            return format!("{} lines of the agent on node {node} are missing", known.missing);
        }
        if known.pods.is_empty() {
            return format!("the agent on node {node} is gone");
        }
        format!("the agent on node {node} gave no verdict")
    }

    /// What is wrong with the streams, a sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (node, known) in &self.nodes {
            if known.restarted {
                notes.push(format!("the agent on node {node} began anew"));
            }
            if known.missing > 0 {
                notes.push(format!("{} lines of the agent on node {node} are missing", known.missing));
            }
            if known.garbage > 0 {
                notes.push(format!(
                    "{} lines in the log of the agent on node {node} are no events",
                    known.garbage
                ));
            }
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use tracer_core::output::Agent;

    use super::*;

    fn line(run: &str, seq: u64) -> Place {
        Place { agent: Agent { run_id: run.into() }, seq }
    }

    #[test]
    fn a_line_that_comes_again_is_taken_once_and_one_that_misses_is_noticed() {
        let mut agents = Agents::default();
        agents.came("n", "agent-1");
        for seq in [7, 8, 9] {
            assert!(agents.take("n", &line("a", seq)), "the stream begins anywhere");
        }
        assert!(!agents.take("n", &line("a", 8)), "read again after the log was cut");
        assert!(agents.take("n", &line("a", 12)));
        assert_eq!(agents.gaps("n", 1, 20), [10..=11]);
        assert!(agents.gaps("n", 12, 20).is_empty());
        assert!(agents.why_none("n").contains("2 lines"), "{}", agents.why_none("n"));
    }

    #[test]
    fn an_agent_that_began_anew_should_begin_at_its_first_line() {
        let mut agents = Agents::default();
        agents.take("n", &line("a", 7));
        agents.take("n", &line("b", 1));
        assert!(agents.gaps("n", 0, 100).is_empty());
        agents.take("n", &line("c", 4));
        assert_eq!(agents.gaps("n", 0, 100), [1..=3]);
        assert!(agents.why_none("n").contains("began anew"));
        assert_eq!(agents.notes().len(), 2, "{:?}", agents.notes());
    }

    #[test]
    fn why_there_is_no_verdict() {
        let mut agents = Agents::default();
        assert_eq!(agents.why_none("n"), "no agent runs on node n");
        agents.came("n", "agent-1");
        assert!(agents.is_on("n"));
        agents.trouble("n", Some("forbidden".to_owned()));
        assert!(agents.why_none("n").contains("cannot be read: forbidden"));
        agents.trouble("n", None);
        agents.left("n", "agent-1");
        assert!(agents.why_none("n").contains("is gone"));
    }
}
