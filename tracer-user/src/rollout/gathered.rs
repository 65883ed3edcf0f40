//! What the agents said of a rollout's pods, gathered for a report of the whole. Pure.

use super::{join::News, row::Row, total::Total};
use crate::report::{Counts, Fold, Pod, Report};

/// See the module.
#[derive(Debug, Default)]
pub struct Gathered {
    fold: Fold,
    events: u64,
    rows: Vec<Row>,
}

impl Gathered {
    /// Takes what there is to tell.
    pub fn take(&mut self, news: News) {
        match news {
            News::Line(line) => {
                self.events += 1;
                self.fold.take(&line);
            }
            News::Row(row) => self.rows.push(*row),
        }
    }

    /// The report of all that ended: a row decides what is told of its pod. What agents said of others,
    /// such as those that run on, is left out.
    #[must_use]
    pub fn finish(self, total: &Total) -> Report {
        let counts = Counts { events: self.events, ..Counts::default() };
        let title = format!("{} in namespace {}", total.workload, total.namespace);
        let mut report = self.fold.finish(title, counts);
        let mut heard = std::mem::take(&mut report.pods);
        report.pods = self.rows.into_iter().map(|row| pod(row, &mut heard)).collect();
        report.notes.clone_from(&total.notes);
        report.incomplete = total.incomplete();
        report.facts.extend(total.propagation_lag.map(|lag| format!("Load balancers let go {lag}.")));
        report.facts.extend(total.advice.map(|advice| format!("As measured, and with a margin: {advice}.")));
        report
    }
}

/// What the report tells of a row's pod.
fn pod(row: Row, heard: &mut Vec<Pod>) -> Pod {
    // A pod that was terminated twice, as one whose containers were restarted, has a row each time.
    let evidence =
        |verdict: &tracer_core::verdict::Verdict| (verdict.evidence.first_seq, verdict.evidence.last_seq);
    let is_of = |pod: &Pod| {
        pod.uid.as_deref() == Some(&row.uid)
            && pod.verdict.as_ref().map(evidence) == row.verdict.as_deref().map(evidence)
    };
    let mut pod = match heard.iter().position(is_of) {
        Some(at) => heard.remove(at),
        None => Pod::unheard(row.pod.clone(), row.node.as_deref().unwrap_or_default().into()),
    };
    pod.name = row.pod;
    pod.namespace = Some(row.namespace);
    (pod.result, pod.reasons) = (Some(row.result), row.reasons);
    pod
}
