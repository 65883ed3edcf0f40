//! What failed in a long run of tests, told once more at its end: a log's reader begins there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `cargo test`, passing its output on.
///
/// # Errors
/// If a test failed: what its binary said of it between "failures:" and "test result:".
pub(crate) fn run(cargo: &mut Command) -> Result<()> {
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let (mut told, mut is_failure) = (Vec::new(), false);
    let mut stdout = std::io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what cargo test says")?;
        stdout.write_all(&line).and_then(|()| stdout.write_all(b"\n"))?;
        let text = String::from_utf8_lossy(&line);
        is_failure = goes_on(&text, is_failure);
        if is_failure {
            told.push(text.into_owned());
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() {
        bail!("cargo test failed ({status})\n{}", told.join("\n"));
    }
    Ok(())
}

/// Whether a line belongs to a report of failures; a report ends where the binary's result stands.
fn goes_on(line: &str, is_failure: bool) -> bool {
    line == "failures:" || is_failure && !line.starts_with("test result:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_again_with_its_reason() {
        let said = "test a ... ok\n\nfailures:\n\n---- b ----\nno\n\nfailures:\n    b\n\ntest result: FAILED. 1\nrest";
        let script = format!("printf '%s\\n' '{said}'; exit 1");
        let error = run(Command::new("sh").args(["-c", &script])).unwrap_err().to_string();
        assert!(error.contains("---- b ----\nno"), "{error}");
        assert!(!error.contains("test a") && !error.contains("rest"), "{error}");
    }
}
