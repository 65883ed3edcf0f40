//! `lastpacket check`: can this machine be traced, and what is missing.

mod api;

use std::{io::Write, path::PathBuf};

use anyhow::Result;

use super::{Outcome, options::Format};
use crate::kernel::preflight::{self, Condition, Status};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How to write the result: text to a terminal, JSON to a pipe
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How to reach the Kubernetes API, to see what an agent may do there [default: KUBECONFIG, or the
    /// service account of a pod]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    let mut conditions = preflight::check();
    conditions.extend(api::check(arguments.kubeconfig.as_deref()));
    let possible = conditions.iter().all(|condition| condition.status != Status::Missing);
    let text = match Format::or_fitting(arguments.format) {
        Format::Json => {
            serde_json::json!({ "possible": possible, "conditions": conditions }).to_string() + "\n"
        }
        Format::Text => as_text(&conditions, possible),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if possible { Outcome::Fine } else { Outcome::Failed })
}

fn as_text(conditions: &[Condition], possible: bool) -> String {
    let mut text = String::new();
    for condition in conditions {
        let mark = match condition.status {
            Status::Ok => "ok",
            Status::Limited => "limited",
            Status::Missing => "MISSING",
        };
        text += &format!("{mark:<8} {:<26} {}\n", condition.name, condition.found);
        if let Some(remedy) = &condition.remedy {
            text += &format!("{:36}-> {remedy}\n", "");
        }
    }
    text + if possible { "\nThis machine can be traced.\n" } else { "\nThis machine cannot be traced.\n" }
}
