//! How a rollout stands, for people who wait.

use super::{Join, Stage};
use crate::rollout::workload::Status;

impl Join {
    /// How it stands, for people.
    #[must_use]
    pub fn state(&self) -> String {
        let (ending, _) = self.count();
        let Status { desired, updated, available, .. } = self.status;
        match &self.stage {
            Stage::Unknown => format!("looking for {}", self.name),
            Stage::Waiting => format!("{}: waiting for the next rollout", self.name),
            Stage::UnderWay | Stage::Complete(_) => format!(
                "{}: {updated} of {desired} updated, {available} available; {} ended, {ending} ending",
                self.name, self.total.pods
            ),
            Stage::Failed(_, reason) => format!("{}: {reason}; {ending} ending", self.name),
        }
    }
}
