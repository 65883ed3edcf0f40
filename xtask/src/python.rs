//! Servers of PyPI that tests rehearse, in a virtual environment in `target/python`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{apt, shell};

/// What is installed, and what it is for.
const PACKAGES: [(&str, &str); 2] =
    [("gunicorn==27.0.1", "a WSGI server of processes"), ("uvicorn==0.54.0", "an ASGI server")];

/// Installs them, if they are not there.
pub(crate) fn ensure() -> Result<()> {
    let folder = shell::workspace()?.join("target/python");
    if PACKAGES.iter().all(|(package, _)| folder.join("bin").join(name(package)).is_file()) {
        return Ok(());
    }
    for (package, reason) in PACKAGES {
        eprintln!("    missing     {package} (PyPI): {reason}");
    }
    if make(&folder).is_err() {
        // Debian's python3 lacks what a virtual environment is made with.
        apt::install(&["python3-venv"])?;
        make(&folder)?;
    }
    let mut pip = Command::new(folder.join("bin/pip"));
    shell::capture(pip.args(["install", "--quiet"]).args(PACKAGES.map(|(package, _)| package)))?;
    Ok(())
}

fn make(folder: &PathBuf) -> Result<String> {
    shell::capture(Command::new("python3").args(["-m", "venv"]).arg(folder))
}

fn name(package: &str) -> &str {
    package.split("==").next().unwrap_or(package)
}
