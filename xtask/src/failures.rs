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
    let told = pass_on(BufReader::new(output), std::io::stdout().lock())?;
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() {
        bail!("cargo test failed ({status})\n{}", told.join("\n"));
    }
    Ok(())
}

/// Passes lines on; returns those that tell of failures.
fn pass_on(from: impl BufRead, mut to: impl Write) -> Result<Vec<String>> {
    let (mut told, mut is_failure) = (Vec::new(), false);
    for line in from.split(b'\n') {
        let line = line.context("cannot read what cargo test says")?;
        to.write_all(&line).and_then(|()| to.write_all(b"\n")).context("cannot pass it on")?;
        let text = String::from_utf8_lossy(&line);
        is_failure = goes_on(&text, is_failure);
        if is_failure {
            told.push(text.into_owned());
        }
    }
    Ok(told)
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
        let said =
            "test a ... ok\nfailures:\n---- b ----\nno\nfailures:\n    b\ntest result: FAILED. 1\nrest\n";
        let mut passed = Vec::new();
        let told = pass_on(said.as_bytes(), &mut passed).unwrap();
        assert_eq!(told, ["failures:", "---- b ----", "no", "failures:", "    b"]);
        assert_eq!(passed, said.as_bytes());
    }
}
