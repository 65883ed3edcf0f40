//! JUnit XML against a schema: what the readers of Ant and Jenkins both take.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, ensure};
use lastpacket_tests::programs::with_programs;
use libtest_mimic::Trial;
use tracer_core::output::Line;
use tracer_user::report::{Failing, junit};

use super::inputs;

pub fn trials() -> Vec<Trial> {
    let valid = |name: &'static str, lines: fn() -> Result<Vec<Line>>| {
        with_programs(&format!("junit_is_valid::{name}"), &["xmllint"], move || valid(name, &lines()?))
    };
    vec![
        valid("rehearsal", || inputs::rehearsal_lines("killed")),
        valid("rollout", inputs::rollout),
        valid("idle", || inputs::recorded_pods("idle-delete")),
        valid("hostile", inputs::hostile),
        valid("broken_off", || Ok(inputs::rehearsal_lines("killed")?.split_off(200))),
    ]
}

fn valid(name: &str, lines: &[Line]) -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let schema = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("report/junit.xsd");
    for strict in [false, true] {
        let path = folder.join(format!("junit-{name}-{strict}.xml"));
        fs::write(&path, junit::render(&inputs::report(name, lines)?, Failing::usual(strict)))?;
        let checked =
            Command::new("xmllint").arg("--noout").arg("--schema").args([&schema, &path]).output()?;
        ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    Ok(())
}
