//! The command: its inputs, its exit codes, what it says of bad ones.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use lastpacket_tests::{binary, needs::anywhere};
use libtest_mimic::Trial;

use super::inputs::{rehearsal, rehearsal_file};

pub fn trials() -> Vec<Trial> {
    vec![
        anywhere("all_ways_in_give_the_same_report", all_ways_in),
        anywhere("exit_codes_follow_the_verdicts", exit_codes),
        anywhere("bad_lines_are_told_and_not_fatal", bad_lines),
        anywhere("what_cannot_be_read_is_told", cannot_be_read),
        anywhere("rotated_files_are_read_in_their_order", rotated),
        anywhere("a_recording_that_breaks_off_is_unproven", breaks_off),
        anywhere("pipes_get_json_lines_again", json_again),
        anywhere("completions_and_man_pages_name_every_command", help),
    ]
}

/// Runs `lastpacket`, with this on its stdin.
fn lastpacket(arguments: &[&str], stdin: &[u8]) -> Result<Output> {
    let mut command = Command::new(binary::lastpacket()?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut pipe = child.stdin.take().context("no stdin")?;
    let text = stdin.to_vec();
    // It may end before it has read all.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&text)));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
    Ok(output)
}

fn text_of(files: &[&str], stdin: &[u8]) -> Result<String> {
    let output = lastpacket(&[&["report", "--output", "text"], files].concat(), stdin)?;
    Ok(String::from_utf8(output.stdout)?)
}

fn file(name: &str, content: &[u8]) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content)?;
    Ok(path.display().to_string())
}

fn gzip(text: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text)?;
    Ok(encoder.finish()?)
}

fn all_ways_in() -> Result<()> {
    let plain = rehearsal("nginx")?;
    let expected = text_of(&["-"], plain.as_bytes())?;
    ensure!(expected.contains("━━ CUT ━━"), "{expected}");
    let prefixed = |prefix: &str| plain.lines().map(|line| format!("{prefix}{line}\n")).collect::<String>();
    let (begin, rest) = plain.split_at(plain.len() / 2);
    let ways = [
        ("plain", plain.clone().into_bytes()),
        ("gzip", gzip(plain.as_bytes())?),
        ("gzip in parts", [gzip(begin.as_bytes())?, gzip(rest.as_bytes())?].concat()),
        ("zstd", zstd::encode_all(plain.as_bytes(), 1)?),
        ("kubectl", prefixed("[pod/lastpacket-x2x7p/agent] ").into_bytes()),
        ("timestamps", prefixed("2026-11-21T10:32:53.629819665Z ").into_bytes()),
        ("cri", prefixed("2026-11-21T10:32:53.629819665Z stdout F ").into_bytes()),
        ("crlf", plain.replace('\n', "\r\n").into_bytes()),
    ];
    for (name, content) in ways {
        let path = file("way", &content)?;
        ensure!(text_of(&[&path], b"")? == expected, "{name}, as a file");
        ensure!(text_of(&["-"], &content)? == expected, "{name}, on stdin");
    }
    Ok(())
}

fn exit_codes() -> Result<()> {
    let plain = rehearsal("graceful")?;
    let without_line = |at: usize| {
        plain
            .lines()
            .enumerate()
            .filter(|(number, _)| *number != at)
            .map(|(_, line)| format!("{line}\n"))
            .collect::<String>()
    };
    let late = plain.replace("\"result\":\"drained\"", "\"result\":\"late\"");
    let doubtful = plain.replace("\"doubts\":0", "\"doubts\":2");
    for (name, text, strict, code) in [
        ("drained", plain.clone(), true, 0),
        ("late", late.clone(), false, 0),
        ("late, strict", late, true, 1),
        ("doubts, strict", doubtful, true, 1),
        ("cut", rehearsal("nginx")?, false, 1),
        ("cut and unproven", rehearsal("nginx")? + &without_line(100), false, 1),
        ("unproven by a gap", without_line(100), false, 3),
        ("no event", "hello\n".to_owned(), false, 2),
    ] {
        for format in ["text", "json", "markdown", "junit", "html"] {
            let mut arguments = vec!["report", "-o", format, "-"];
            arguments.extend(strict.then_some("--strict"));
            let output = lastpacket(&arguments, text.as_bytes())?;
            ensure!(output.status.code() == Some(code), "{name}, {format}: {output:?}");
        }
    }
    Ok(())
}

fn bad_lines() -> Result<()> {
    let plain = rehearsal("graceful")?;
    let lines: Vec<&str> = plain.lines().collect();
    let (half, rest) = lines[30].split_at(100);
    let mut text: String = lines[..30].iter().map(|line| format!("{line}\n")).collect();
    text += "Starting\n{\"not\":\"ours\"}\n";
    // Two writers, one in the other's line.
    text += &format!("{half}{}\n{rest}\n", lines[31]);
    text += &lines[32].replace("\"type\":\"", "\"type\":\"new_");
    text += "\n";
    text += &lines[33..].iter().map(|line| format!("{line}\n")).collect::<String>();
    text += &lines[5][..80];
    for format in ["text", "json", "markdown", "junit", "html"] {
        let output = lastpacket(&["report", "--output", format, "-"], text.as_bytes())?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(3), "the lost line leaves it unproven: {told}");
        for trouble in [
            "1 line: truncated",
            "1 line: written by several",
            "1 line: not understood",
            "3 lines: no events",
            "1 line: missing",
        ] {
            ensure!(told.contains(trouble), "{trouble} is not in: {told}");
        }
    }
    Ok(())
}

fn cannot_be_read() -> Result<()> {
    for (name, path) in [("missing", "/nonexistent/x.jsonl"), ("a folder", "/")] {
        let output = lastpacket(&["report", path], b"")?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(2) && told.contains(path), "{name}: {told}");
    }
    let mut broken = fs::read(rehearsal_file("graceful"))?;
    broken.truncate(broken.len() / 2);
    let path = file("broken.gz", &broken)?;
    let output = lastpacket(&["report", "--output", "text", &path], b"")?;
    let told = String::from_utf8(output.stderr)?;
    ensure!(told.contains("broken.gz breaks off"), "{told}");
    ensure!(output.status.code() == Some(3), "what was read is not proven: {told}");
    Ok(())
}

fn rotated() -> Result<()> {
    let plain = rehearsal("nginx")?;
    let expected = text_of(&["-"], plain.as_bytes())?;
    let lines: Vec<String> = plain.lines().map(|line| format!("{line}\n")).collect();
    let first = file("first.jsonl.gz", &gzip(lines[..150].concat().as_bytes())?)?;
    // Collectors read some lines twice when a file is rotated.
    let second = file("second.jsonl", lines[140..300].concat().as_bytes())?;
    let third = file("third.jsonl.zst", &zstd::encode_all(lines[300..].concat().as_bytes(), 1)?)?;
    ensure!(text_of(&[&third, &first, &second], b"")? == expected, "it differs");
    Ok(())
}

fn breaks_off() -> Result<()> {
    let plain = rehearsal("graceful")?;
    let stop = plain.lines().position(|line| line.contains("\"stop_signal\"")).context("no stop signal")?;
    let text: String = plain.lines().take(stop + 3).map(|line| format!("{line}\n")).collect();
    let output = lastpacket(&["report", "--output", "markdown", "-"], text.as_bytes())?;
    let page = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.code() == Some(3) && page.contains("its verdict is not in the recording"),
        "{page}"
    );
    Ok(())
}

fn json_again() -> Result<()> {
    let plain = rehearsal("abrupt")?;
    let first = lastpacket(&["report", "-"], plain.as_bytes())?.stdout;
    let again = lastpacket(&["report", "-"], &first)?.stdout;
    ensure!(
        first == again && first.iter().filter(|byte| **byte == b'\n').count() == plain.lines().count(),
        "it differs"
    );
    Ok(())
}

fn help() -> Result<()> {
    let help = String::from_utf8(lastpacket(&["help"], b"")?.stdout)?;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    // What a command does may take more lines, further to the right.
    let listed = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<&str> = listed.filter(|name| !["", "help"].contains(name)).collect();
    let expected = [
        "rehearse",
        "trace",
        "agent",
        "report",
        "rollout",
        "wait-idle",
        "check",
        "schema",
        "completions",
        "man",
    ];
    ensure!(names == expected, "{help}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(lastpacket(&["completions", shell], b"")?.stdout)?;
        for name in &names {
            ensure!(script.contains(name), "{name} is not in the completions of {shell}");
        }
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("man");
    let folder = folder.to_str().context("no name")?;
    ensure!(lastpacket(&["man", folder], b"")?.status.success(), "man failed");
    for name in &names {
        let page = fs::read_to_string(format!("{folder}/lastpacket-{name}.1"))?;
        ensure!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{page}");
    }
    let page = fs::read_to_string(format!("{folder}/lastpacket.1"))?;
    ensure!(page.contains("Exit codes") && !page.contains("demo\\-server"), "{page}");
    Ok(())
}
