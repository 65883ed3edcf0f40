//! What users get wrong: exit code 2 and a message that helps, before anything is set up.

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    os::unix::ffi::OsStrExt,
    process::{Child, Command},
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::needs;
use libtest_mimic::Trial;

use crate::program::{Copy, ensure_failed, ensure_one_sentence, lastpacket, run};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::anywhere("bad_input::arguments_that_cannot_be_read", unreadable_arguments),
        needs::anywhere("bad_input::a_port_that_is_taken", occupied_port),
        needs::live("bad_input::a_process_that_does_not_exist", unknown_process),
        needs::live("bad_input::a_process_that_has_ended", ended_process),
        needs::live("bad_input::a_process_of_the_machines_own_network", own_network),
        needs::live("bad_input::a_network_namespace_that_does_not_exist", unknown_netns),
        needs::live("bad_input::a_file_that_is_no_network_namespace", no_netns),
        needs::live("bad_input::a_cgroup_that_does_not_exist", unknown_cgroup),
        needs::live("bad_input::the_same_target_twice", same_target_twice),
        needs::live("bad_input::no_root", no_root),
        needs::live("bad_input::a_command_that_does_not_exist", unknown_command),
        needs::live("bad_input::a_command_that_ends_at_once", command_that_ends),
        needs::live("bad_input::a_command_that_never_listens", command_that_never_listens),
    ]
}

/// Runs it; it must fail with one sentence that says all of this.
fn refused(arguments: &[&str], wanted: &[&str]) -> Result<()> {
    let ended = run(lastpacket(arguments)?)?;
    ensure_one_sentence(&ended, wanted).with_context(|| format!("{arguments:?}"))
}

fn unreadable_arguments() -> Result<()> {
    let lines: [(&[&str], &str); 15] = [
        (&[], "Usage"),
        (&["no-such-command"], "no-such-command"),
        (&["trace"], "--pid"),
        (&["trace", "--pid", "one"], "one"),
        (&["trace", "--pid", "1", "--quiet", "5"], "5 is no duration"),
        (&["trace", "--pid", "1", "--ring-buffer", "3"], "power of two"),
        (&["trace", "--pid", "1", "--probe-peer", "10.0.0.0/33"], "10.0.0.0/33"),
        (&["wait-idle"], "--port"),
        (&["wait-idle", "--port", "0"], "0"),
        (&["wait-idle", "--port", "80", "--ignore-peer", "here"], "here is no address range"),
        (&["rehearse"], "--demo"),
        (&["rehearse", "--demo", "abrupt", "--", "true"], "cannot be used with"),
        (&["rehearse", "--demo", "abrupt", "--stop-signal", "SIGNONE"], "SIGNONE"),
        (&["rehearse", "--demo", "abrupt", "--load", "many"], "many"),
        (&["rehearse", "--demo", "abrupt", "--path", "index.html"], "a path begins with /"),
    ];
    for (arguments, wanted) in lines {
        ensure_failed(&run(lastpacket(arguments)?)?, &[wanted]).with_context(|| format!("{arguments:?}"))?;
    }
    let no_text = [OsStr::new("trace"), OsStr::new("--pid"), OsStr::from_bytes(b"\xff")];
    ensure_failed(&run(lastpacket(no_text)?)?, &[])
}

fn occupied_port() -> Result<()> {
    let taken = TcpListener::bind("0.0.0.0:0")?;
    let port = taken.local_addr()?.port().to_string();
    refused(
        &["demo-server", "--behaviour", "abrupt", "--port", &port],
        &["cannot listen on port", &port, "--port"],
    )
}

fn unknown_process() -> Result<()> {
    refused(&["trace", "--pid", "4294967295"], &["no process with pid 4294967295"])?;
    let gone = Ended::new()?.reap()?.to_string();
    refused(&["trace", "--pid", &gone], &["no process with pid", &gone])
}

fn ended_process() -> Result<()> {
    let zombie = Ended::new()?;
    refused(&["trace", "--pid", &zombie.0.id().to_string()], &["has already ended"])
}

fn own_network() -> Result<()> {
    refused(&["trace", "--pid", &std::process::id().to_string()], &["network namespace"])
}

fn unknown_netns() -> Result<()> {
    refused(&["trace", "--netns", "no-such-netns"], &["no network namespace no-such-netns", "ip netns"])?;
    refused(&["trace", "--netns", "/proc/self/ns/net"], &["machine's own network namespace"])
}

fn no_netns() -> Result<()> {
    refused(
        &["trace", "--netns", "/etc/hostname"],
        &["/etc/hostname cannot be entered as a network namespace"],
    )
}

fn unknown_cgroup() -> Result<()> {
    refused(&["trace", "--cgroup", "/no/such/cgroup"], &["/no/such/cgroup"])
}

fn same_target_twice() -> Result<()> {
    let namespace = lastpacket_tests::netns::Namespace::new()?;
    let resident = lastpacket_tests::process::Resident::of(&namespace)?;
    let pid = resident.pid().to_string();
    refused(&["trace", "--pid", &pid, "--pid", &pid], &["share a network namespace; name one of them"])
}

/// As nobody, with a copy of the program that nobody may run.
fn no_root() -> Result<()> {
    let copy = Copy::new()?;
    for arguments in [&["trace", "--pid", "1"][..], &["rehearse", "--demo", "abrupt"]] {
        ensure_one_sentence(&run(copy.as_nobody(arguments))?, &["needs root", "sudo"])
            .with_context(|| format!("{arguments:?}"))?;
    }
    Ok(())
}

fn unknown_command() -> Result<()> {
    refused(&["rehearse", "--", "/no/such/server"], &["cannot run `/no/such/server`", "No such file"])?;
    refused(&["rehearse", "--", "/etc"], &["cannot run `/etc`", "Permission denied"])
}

fn command_that_ends() -> Result<()> {
    refused(&["rehearse", "--", "true"], &["exit"])?;
    let ended = run(lastpacket(["rehearse", "--", "sh", "-c", "echo the reason >&2; exit 7"])?)?;
    // What it printed follows on lines of its own.
    ensure_failed(&ended, &["7", "the reason"])
}

fn command_that_never_listens() -> Result<()> {
    let ended = run(lastpacket(["rehearse", "--ready-timeout", "300ms", "--", "sleep", "30"])?)?;
    ensure_failed(&ended, &["300ms", "listen"])
}

/// A process that has ended and was not yet waited for.
struct Ended(Child);

impl Ended {
    fn new() -> Result<Self> {
        let child = Command::new("true").spawn()?;
        let stat = format!("/proc/{}/stat", child.id());
        for _ in 0..100 {
            if fs::read_to_string(&stat)?.contains(") Z ") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        ensure!(fs::read_to_string(&stat)?.contains(") Z "), "`true` does not end");
        Ok(Self(child))
    }

    /// Waits for it: then there is no such process.
    fn reap(mut self) -> Result<u32> {
        self.0.wait()?;
        Ok(self.0.id())
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}
