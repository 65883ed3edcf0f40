//! How fast resets and connections may come before a record is lost, at the default ring buffer. What was
//! told is held against the kernel's own counters.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::{
    figure::{Figure, Goal},
    flood, link,
    pod::Pod,
    tight,
};

/// What is promised, a second, and for how long.
const PROMISED: u32 = 100_000;
const PROMISED_SECONDS: u32 = 10;
/// Rates that are tried for a moment each, until a record is lost.
const RATES: [u32; 6] = [50_000, 100_000, 150_000, 200_000, 300_000, 400_000];
const MOMENT: u32 = 2;
const CONNECTIONS: u32 = 100_000;
/// What was lost is told every second.
const TOLD: Duration = Duration::from_millis(1500);

/// What became of resets or connections.
struct Outcome {
    /// By the kernel's own counter.
    happened: f64,
    /// Lines about them.
    told: f64,
    /// Records that found no room in the ring buffer.
    lost: f64,
}

impl Outcome {
    fn is_complete(&self) -> bool {
        self.lost == 0.0 && self.told == self.happened
    }
}

/// Floods a pod with SYNs, then with connections.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let lastpacket = super::lastpacket()?;
    let (server, client) = (Pod::start(1)?, Pod::start(2)?);
    link::link(&server, &client)?;
    eprintln!("    {PROMISED} resets a second for {PROMISED_SECONDS} s");
    let (promised, rate) = resets(&lastpacket, &server, &client, PROMISED, PROMISED_SECONDS)?;
    let name = "resets for 10 s";
    let one = |name: &str, unit, value, goal| Figure::new(name, unit, vec![value], goal);
    let mut figures = vec![
        one(name, "resets/s", rate, Goal::AtLeast(0.99 * f64::from(PROMISED))),
        one(name, "records lost", promised.lost, Goal::AtMost(0.0)),
        one(name, "lines missing", promised.happened - promised.lost - promised.told, Goal::AtMost(0.0)),
    ];
    let highest = highest_rate(&lastpacket, &server, &client)?;
    figures.push(one("highest rate without a loss", "resets/s", highest, Goal::AtLeast(f64::from(PROMISED))));
    eprintln!("    connections at full speed");
    let mut rate = 0.0;
    let outcome = traced(&lastpacket, &server, "PassiveOpens", "connection_opened", || {
        rate = tight::rate(&server, CONNECTIONS, false)?;
        Ok(())
    })?;
    // Both ends are in the pod.
    let missing = 2.0 * outcome.happened - outcome.lost - outcome.told;
    figures.push(one("connections at full speed", "connections/s", rate, Goal::None));
    figures.push(one("connections at full speed", "records lost", outcome.lost, Goal::AtMost(0.0)));
    figures.push(one("connections at full speed", "lines missing", missing, Goal::AtMost(0.0)));
    Ok(figures)
}

/// The highest of the rates, as it was reached, at which nothing was lost.
fn highest_rate(lastpacket: &Path, server: &Pod, client: &Pod) -> Result<f64> {
    let mut highest = 0.0_f64;
    for rate in RATES {
        eprintln!("    {rate} resets a second for {MOMENT} s");
        let (outcome, reached) = resets(lastpacket, server, client, rate, MOMENT)?;
        if !outcome.is_complete() || reached <= highest {
            break;
        }
        highest = reached;
    }
    Ok(highest)
}

fn resets(lastpacket: &Path, server: &Pod, client: &Pod, rate: u32, seconds: u32) -> Result<(Outcome, f64)> {
    let mut reached = 0.0;
    let outcome = traced(lastpacket, server, "OutRsts", "reset", || {
        (_, reached) = flood::from_pod(client, rate, seconds)?;
        Ok(())
    })?;
    Ok((outcome, reached))
}

/// Traces a pod while something happens to it.
fn traced(
    lastpacket: &Path,
    pod: &Pod,
    counter: &str,
    kind: &'static str,
    happen: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    let mut trace = Trace::start(lastpacket, pod, kind)?;
    let before = total(pod, counter)?;
    happen()?;
    let happened = total(pod, counter)? - before;
    std::thread::sleep(TOLD);
    let (told, lost) = trace.finish()?;
    Ok(Outcome { happened, told, lost })
}

/// A TCP counter of a pod's network namespace.
fn total(pod: &Pod, counter: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{}/net/snmp", pod.pid())).context("the pod ended")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("the kernel tells no TCP counters")?;
    let mut both = names.split(' ').zip(values.split(' '));
    let value = both.find(|(name, _)| *name == counter).and_then(|(_, value)| value.parse().ok());
    value.with_context(|| format!("the kernel tells no {counter}"))
}

/// lastpacket, armed, and who reads its lines.
struct Trace {
    child: Child,
    reader: Option<JoinHandle<(f64, f64)>>,
}

impl Trace {
    fn start(lastpacket: &Path, pod: &Pod, kind: &'static str) -> Result<Self> {
        let mut child = Command::new(lastpacket)
            .args(["trace", "--format", "json", "--pid", &pod.pid().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run lastpacket")?;
        let mut output = BufReader::with_capacity(1 << 20, child.stdout.take().context("it has no output")?);
        let mut trace = Self { child, reader: None };
        let mut line = String::new();
        while !line.contains("\"type\":\"phase\"") {
            line.clear();
            anyhow::ensure!(output.read_line(&mut line)? > 0, "lastpacket ended before it was armed");
        }
        trace.reader = Some(std::thread::spawn(move || count(output, kind)));
        Ok(trace)
    }

    /// Ends it as Ctrl-C does; how many lines of the kind it wrote, and how many records it lost.
    fn finish(&mut self) -> Result<(f64, f64)> {
        // SAFETY: it takes two numbers; the child is not reaped yet, so that the number is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGINT) };
        let reader = self.reader.take().context("it was finished before")?;
        reader.join().map_err(|_| anyhow!("the reader of lines panicked"))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of a kind, and lost records that other lines tell of.
fn count(mut output: impl BufRead, kind: &str) -> (f64, f64) {
    let (ours, lost_line) = (format!("\"type\":\"{kind}\""), "\"type\":\"lost\"");
    let (mut told, mut lost, mut line) = (0.0, 0.0, String::new());
    while output.read_line(&mut line).is_ok_and(|length| length > 0) {
        if line.contains(&ours) {
            told += 1.0;
        } else if line.contains(lost_line) {
            lost += lost_records(&line);
        }
        line.clear();
    }
    (told, lost)
}

fn lost_records(line: &str) -> f64 {
    let line: Value = serde_json::from_str(line).unwrap_or_default();
    if line["stage"] == "ring_buffer" { line["count"].as_f64().unwrap_or(0.0) } else { 0.0 }
}
