//! Output that cannot be written: a pipe that nobody reads any more, a full disk.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{leftovers::Mark, needs};
use libtest_mimic::Trial;

use crate::program::{end, ensure_one_sentence, lastpacket, run};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("bad_output::a_reader_that_goes_away", closed_pipe),
        needs::live("bad_output::a_full_disk", full_disk),
        needs::anywhere("bad_output::a_full_disk_for_what_is_only_printed", full_disk_for_prints),
    ]
}

/// As `lastpacket … | head -1` does.
fn closed_pipe() -> Result<()> {
    for format in ["json", "text"] {
        let mut command = lastpacket(["rehearse", "--demo", "abrupt", "--format", format])?;
        let mark = Mark::on(&mut command);
        let mut child = command.spawn()?;
        let pid = child.id();
        let mut first = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut first)?;
        ensure!(!first.is_empty(), "nothing was written");
        ensure_one_sentence(&end(child)?, &["the reader of the output closed it"]).context(format)?;
        mark.ensure_nothing_left(pid)?;
    }
    Ok(())
}

fn full_disk() -> Result<()> {
    for format in ["json", "text"] {
        let mut command = lastpacket(["rehearse", "--demo", "abrupt", "--format", format])?;
        command.stdout(Stdio::from(File::create("/dev/full")?));
        ensure_one_sentence(&run(command)?, &["cannot write the output", "No space left"]).context(format)?;
    }
    Ok(())
}

fn full_disk_for_prints() -> Result<()> {
    for arguments in [&["schema"][..], &["completions", "bash"], &["check", "--format", "json"]] {
        let mut command = lastpacket(arguments)?;
        command.stdout(Stdio::from(File::create("/dev/full")?));
        ensure_one_sentence(&run(command)?, &["No space left"]).with_context(|| format!("{arguments:?}"))?;
    }
    Ok(())
}
