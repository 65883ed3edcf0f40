//! What kernels refuse, lack or do differently: told by name, and never a wrong verdict.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    binary,
    counters::{self, rise},
    events::{Events, ensure_balanced},
    machine::{self, kernel_version},
    needs,
    netns::{Family, Namespace},
    process::Resident,
    run::{self, Run, Running},
};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use serde_json::Value;
use tracer_core::{
    books::Book,
    output::{AgentStarted, Body},
    words::{Ending, Result as Answer},
};

use crate::{
    children::confined::{self, Denied},
    scene::{Scene, pause, read_eof},
};

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        needs::live("kernel::a_limit_of_locked_memory_is_lifted", limit_is_lifted),
        needs::live("kernel::a_limit_of_locked_memory_that_stays_is_told_with_its_remedy", limit_stays),
        needs::live("kernel::hooks_that_it_lacks_are_named", absent_hooks),
        needs::live("kernel::a_required_field_with_another_name_is_named", required_fields),
        needs::live("kernel::an_optional_field_with_another_name_is_done_without", optional_field),
        needs::live("kernel::resets_that_it_may_not_show_are_named", || classes_named(Denied::PerfEvents)),
        needs::live("kernel::resets_that_it_cannot_show_are_named", || classes_named(Denied::Kprobes)),
        needs::live("kernel::curr_estab_follows_its_own_rule", curr_estab),
    ];
    // The last of all: it cannot be undone.
    trials.extend(machine::is_throwaway().then(|| needs::live("kernel::lockdown_is_told", lockdown)));
    trials
}

/// From this version on there is no limit of locked memory for kernel programs.
const CHARGED_TO_CGROUP: (u32, u32) = (5, 11);
/// From this version on the applications' reads and writes can be seen.
const SOCKET_CALLS: (u32, u32) = (6, 3);
/// From this version on the tracepoint shows all resets.
const ALL_RESETS: (u32, u32) = (6, 10);

/// Traces a process in the server's namespace while something happens.
fn trace(denied: Option<Denied>, act: impl FnOnce(&mut Scene) -> Result<()>) -> Result<Run> {
    let mut scene = Scene::new(Family::V4)?;
    let resident = Resident::of(&scene.link.server)?;
    let pid = resident.pid().to_string();
    let arguments = ["trace", "--pid", &pid, "--linger", "100ms", "--quiet", "0ms"];
    let mut lastpacket: Running = match denied {
        Some(denied) => confined::start(denied, &arguments)?,
        None => run::start(&arguments)?,
    };
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    act(&mut scene)?;
    pause(50);
    resident.terminate()?;
    lastpacket.finish()
}

fn started(run: &Run) -> Result<&AgentStarted> {
    let mut bodies = run.lines.as_slice().bodies();
    bodies
        .find_map(|body| if let Body::AgentStarted(started) = body { Some(started) } else { None })
        .context("no agent_started")
}

/// `check` under a denial: its answer and exit code.
fn check(denied: Denied) -> Result<(Value, Option<i32>)> {
    let (stdout, _, code) = confined::run(denied, &["check", "--format", "json"])?;
    Ok((serde_json::from_str(&stdout).with_context(|| stdout.clone())?, code))
}

fn condition<'a>(check: &'a Value, name: &str) -> Result<&'a Value> {
    let conditions = check["conditions"].as_array().context("no conditions")?;
    conditions
        .iter()
        .find(|condition| condition["name"] == name)
        .with_context(|| format!("no {name}: {check}"))
}

/// Tracing fails with one sentence that says all of this.
fn ensure_refused(denied: Denied, wanted: &[&str]) -> Result<()> {
    let resident = Resident::of(&Namespace::new()?)?;
    let (stdout, stderr, code) = confined::run(denied, &["trace", "--pid", &resident.pid().to_string()])?;
    ensure!(code == Some(2) && stdout.is_empty(), "it ended with {code:?}: {stdout}");
    ensure!(stderr.lines().count() == 1, "more than one sentence: {stderr}");
    ensure_says(&stderr, wanted)
}

fn ensure_says(text: &str, wanted: &[&str]) -> Result<()> {
    for word in wanted {
        ensure!(text.contains(word), "it does not say `{word}`: {text}");
    }
    Ok(())
}

fn limit_is_lifted() -> Result<()> {
    let run = trace(Some(Denied::LockedMemory), |_| Ok(()))?;
    let verdict = run.lines.verdict()?;
    ensure!(verdict.result == Answer::Idle, "{:?}", verdict.reasons);
    ensure_balanced(verdict)
}

fn limit_stays() -> Result<()> {
    if kernel_version()? >= CHARGED_TO_CGROUP {
        let verdict_of = trace(Some(Denied::LockedMemoryForGood), |_| Ok(()))?;
        return ensure_balanced(verdict_of.lines.verdict()?);
    }
    let remedy = ["CAP_SYS_RESOURCE", "ulimit -l unlimited", "LimitMEMLOCK=infinity", "64 KiB"];
    ensure_refused(Denied::LockedMemoryForGood, &remedy)?;
    let (check, code) = check(Denied::LockedMemoryForGood)?;
    ensure!(code == Some(2) && check["possible"] == false, "{check}");
    ensure_says(&condition(&check, "kernel programs")?.to_string(), &remedy)
}

/// The tracing file system says by itself which hooks there are.
fn absent_hooks() -> Result<()> {
    let events = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];
    let events = events.iter().map(Path::new).find(|folder| folder.join("sock").exists());
    let hook = "sock_recv_length";
    let exists =
        events.map_or(kernel_version()? >= SOCKET_CALLS, |events| events.join("sock").join(hook).exists());
    ensure!(
        exists == (kernel_version()? >= SOCKET_CALLS),
        "the tracing file system and the version disagree"
    );
    let run = trace(None, |_| Ok(()))?;
    let (started, verdict) = (started(&run)?, run.lines.verdict()?);
    ensure!(started.hooks.iter().any(|attached| attached == hook) == exists, "{:?}", started.hooks);
    for told in [&started.cannot_show, &verdict.cannot_show] {
        let named = told.iter().any(|class| class.contains("the size of requests without an answer"));
        ensure!(named != exists, "{told:?}");
    }
    Ok(())
}

/// One of a structure, one within a member, one of a task.
fn required_fields() -> Result<()> {
    for (name, field) in [
        ("skc_state", "sock_common.skc_state"),
        ("icsk_ack", "inet_connection_sock.icsk_ack.lrcvtime"),
        ("group_exit_code", "signal_struct.group_exit_code"),
    ] {
        let (check, code) = check(Denied::Field(name))?;
        ensure!(code == Some(2) && check["possible"] == false, "{check}");
        let fields = condition(&check, "kernel fields")?;
        ensure!(fields["status"] == "missing", "{fields}");
        ensure_says(&fields.to_string(), &[field, "remedy"])?;
        ensure_refused(Denied::Field(name), &[field, "lastpacket check"])?;
    }
    Ok(())
}

/// Without it pages of segments cannot be looked into; all else is as ever.
fn optional_field() -> Result<()> {
    let denied = Denied::Field("nr_frags");
    let (check, code) = check(denied)?;
    ensure!(code == Some(0) && check["possible"] == true, "{check}");
    let run = trace(Some(denied), refuse)?;
    ensure!(run.lines.resets().len() == 1, "{:#?}", run.lines.resets());
    Ok(())
}

/// A client is refused, as it says itself.
fn refuse(scene: &mut Scene) -> Result<()> {
    let listener = scene.listen(1)?;
    let address = scene.address_of(&listener)?;
    drop(listener);
    let refused = scene.client_socket()?.connect(&address);
    ensure!(refused.is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED)), "not refused");
    Ok(())
}

/// Before 6.10 a kernel that lets nobody attach to functions shows no reset without a socket: that is
/// named everywhere, and the books tell that there was one.
fn classes_named(denied: Denied) -> Result<()> {
    let (check, code) = check(denied)?;
    ensure!(code == Some(0) && check["possible"] == true, "{check}");
    let mut resets = 0;
    let run = trace(Some(denied), |scene| {
        let before = counters::read(&scene.link.server)?;
        refuse(scene)?;
        resets = rise(&before, &counters::read(&scene.link.server)?, "OutRsts");
        Ok(())
    })?;
    ensure!(resets == 1, "the kernel counted {resets} resets");
    let (started, verdict) = (started(&run)?, run.lines.verdict()?);
    let classes = ["IPv4", "IPv6"]
        .map(|protocol| format!("{protocol} resets to segments without a socket or with one in TIME_WAIT"));
    let named = |told: &[String], class: &str| told.iter().any(|told| told.contains(class));
    for class in &classes {
        let of_old_kernel = kernel_version()? < ALL_RESETS;
        ensure!(named(&started.cannot_show, class) == of_old_kernel, "{:?}", started.cannot_show);
        ensure!(named(&verdict.cannot_show, class) == of_old_kernel, "{:?}", verdict.cannot_show);
        ensure!(check.to_string().contains(class) == of_old_kernel, "{check}");
    }
    if kernel_version()? >= ALL_RESETS {
        ensure!(verdict.result == Answer::Cut, "{:?}", verdict.reasons);
        ensure!(verdict.losses.iter().map(|loss| loss.ending).eq([Ending::Refused]), "{:?}", verdict.losses);
        return ensure_balanced(verdict);
    }
    ensure!(verdict.result == Answer::Unproven, "{:?}", verdict.reasons);
    ensure!(verdict.reasons.iter().any(|reason| reason.contains("OutRsts")), "{:?}", verdict.reasons);
    let unbalanced: Vec<&Book> = verdict.books.iter().filter(|book| !book.balanced).collect();
    ensure!(matches!(*unbalanced, [Book { kernel: 1, events: 0, .. }]), "{unbalanced:?}");
    Ok(())
}

/// Connections that were there before, new ones, and of both some that the client half closed: the
/// kernel's own level, as the test reads it, is what the events add up to, whatever it counts.
fn curr_estab() -> Result<()> {
    let mut scene = Scene::new(Family::V4)?;
    let mut pairs = Vec::new();
    for _ in 0..3 {
        pairs.push(scene.pair()?);
    }
    pairs[0].client.shutdown(std::net::Shutdown::Write)?;
    read_eof(&pairs[0].server)?;
    let resident = Resident::of(&scene.link.server)?;
    let pid = resident.pid().to_string();
    let mut lastpacket = run::start(&["trace", "--pid", &pid, "--linger", "100ms", "--quiet", "0ms"])?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    for _ in 0..5 {
        pairs.push(scene.pair()?);
    }
    for pair in pairs.iter().skip(1).step_by(2) {
        pair.client.shutdown(std::net::Shutdown::Write)?;
        read_eof(&pair.server)?;
    }
    // One that is half closed, and one that is not, go.
    pairs.drain(1..3);
    pause(50);
    let level = counters::read(&scene.link.server)?.get("CurrEstab").copied();
    resident.terminate()?;
    let run = lastpacket.finish()?;
    let verdict = run.lines.verdict()?;
    let book = verdict.books.iter().find(|book| book.name == "CurrEstab").context("no book CurrEstab")?;
    ensure!(Some(book.kernel) == level, "the kernel says {level:?}, the book {book:?}");
    // Of six connections four are half closed.
    ensure!(book.kernel == 6 || book.kernel == 2, "{book:?}");
    ensure_balanced(verdict)
}

/// In this mode nobody may read kernel memory.
fn lockdown() -> Result<()> {
    let folder = Path::new("/sys/kernel/security");
    let file = folder.join("lockdown");
    let none: Option<&str> = None;
    if !file.exists() {
        mount(Some("securityfs"), folder, Some("securityfs"), MsFlags::empty(), none)?;
    }
    fs::write(file, "confidentiality").context("this kernel cannot be locked down")?;
    let resident = Resident::of(&Namespace::new()?)?;
    let pid = resident.pid().to_string();
    let run = |arguments: &[&str]| {
        Command::new(binary::lastpacket()?).args(arguments).output().map_err(anyhow::Error::from)
    };
    let traced = run(&["trace", "--pid", &pid])?;
    let stderr = String::from_utf8_lossy(&traced.stderr);
    ensure!(traced.status.code() == Some(2) && traced.stdout.is_empty(), "{traced:?}");
    ensure!(stderr.lines().count() == 1, "more than one sentence: {stderr}");
    ensure_says(&stderr, &["lockdown=integrity", "confidentiality"])?;
    let check: Value = serde_json::from_slice(&run(&["check", "--format", "json"])?.stdout)?;
    ensure!(check["possible"] == false, "{check}");
    ensure_says(&condition(&check, "lockdown")?.to_string(), &["missing", "lockdown=integrity"])
}
