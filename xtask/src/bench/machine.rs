//! What was measured on: processor, kernel, versions.

use std::{fmt, fs, process::Command};

use anyhow::Result;
use serde_json::{Value, json};

use crate::shell;

/// See the module.
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    rustc: String,
}

impl Machine {
    /// Reads them.
    pub(crate) fn read() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            processor: model.map_or("an unknown processor", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: shell::capture(Command::new("uname").arg("-r"))?.trim().to_owned(),
            rustc: shell::capture(Command::new("rustc").arg("--version"))?.trim().to_owned(),
        })
    }

    /// The machine for programs.
    pub(crate) fn json(&self) -> Value {
        json!({"processor": self.processor, "cores": self.cores, "kernel": self.kernel, "rustc": self.rustc})
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, kernel, rustc } = self;
        write!(f, "{processor}, {cores} cores, Linux {kernel}, {rustc}")
    }
}
