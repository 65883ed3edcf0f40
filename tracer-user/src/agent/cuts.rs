//! Verdicts that are `cut` are told to the API too: a Warning on the pod.

use tracer_core::{
    output::{Body, Line},
    words,
};

use super::run::Settings;
use crate::{
    clock,
    kube::{facts::PodFacts, warning},
};

/// Verdicts that are to be posted.
#[derive(Debug, Default)]
pub(super) struct Cuts(Vec<Cut>);

#[derive(Debug)]
struct Cut {
    uid: String,
    note: String,
}

impl Cuts {
    /// Keeps a line if it is one.
    pub(super) fn collect(&mut self, line: &Line) {
        let Body::Verdict(verdict) = &line.body else { return };
        let pod =
            line.subject.as_ref().and_then(|subject| subject.k8s.as_ref()).map(|k8s| k8s.pod.uid.clone());
        if let (words::Result::Cut, Some(uid)) = (verdict.result, pod) {
            let findings = verdict.findings.iter().map(|finding| format!("{}: {}", finding.id, finding.text));
            let note = verdict.reasons.iter().cloned().chain(findings).collect::<Vec<_>>().join("; ");
            self.0.push(Cut { uid, note });
        }
    }

    /// Posts a Warning on each pod. That the API does not take it changes no verdict.
    pub(super) fn post(&mut self, settings: &Settings, pod: impl Fn(&str) -> Option<PodFacts>) {
        for Cut { uid, note } in self.0.drain(..) {
            let Some(client) = settings.client.clone().filter(|_| settings.warnings) else { continue };
            let Some(pod) = pod(&uid) else { continue };
            let (node, wall) = (settings.node.clone(), clock::now().wall);
            tokio::spawn(async move {
                if let Err(error) = warning::post(&client, &node, &pod, &note, wall).await {
                    log::warn!("{error:#}");
                }
            });
        }
    }
}
