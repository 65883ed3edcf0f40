//! A report of a million events: how long it takes, and how much memory.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::figure::{Figure, Goal};
use crate::shell;

const PODS: u64 = 10;
/// Each is opened and ends, with a reset for one in four.
const CONNECTIONS: u64 = 45_000;
const SECOND: u64 = 1_000_000_000;
/// Exit code of `unproven` pods: these have no verdict.
const UNPROVEN: i32 = 3;

const RUNS: usize = 3;

/// Renders a page from synthetic events, again and again.
pub(super) fn measure() -> Result<Vec<Figure>> {
    let lastpacket = super::lastpacket()?;
    let runs = (0..RUNS).map(|_| page(&lastpacket)).collect::<Result<Vec<_>>>()?;
    let measured = |of: fn(&Page) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    Ok(vec![
        Figure::new("a million events to HTML", "s", measured(|page| page.seconds), Goal::AtMost(5.0)),
        Figure::new("its memory", "MiB", measured(|page| page.memory), Goal::AtMost(500.0)),
        Figure::new("the page", "MiB", measured(|page| page.size), Goal::AtMost(2.0)),
    ])
}

/// What a page took.
struct Page {
    seconds: f64,
    /// The most memory that the process had, in MiB.
    memory: f64,
    /// In MiB.
    size: f64,
}

fn page(lastpacket: &Path) -> Result<Page> {
    let folder = tracer_build::target_dir(shell::workspace()?).join("bench");
    fs::create_dir_all(&folder).context("cannot make the folder of the benchmark")?;
    let (path, html) = (folder.join("million.jsonl"), folder.join("million.html"));
    let events = synthesize(&path)?;
    let began = Instant::now();
    let mut report = Command::new(lastpacket)
        .args(["report", "--output", "html"])
        .arg(&path)
        .stdout(File::create(&html).context("cannot write the page")?)
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run lastpacket")?;
    let status = format!("/proc/{}/status", report.id());
    let mut memory = 0.0_f64;
    let ended = loop {
        memory = memory.max(peak(&status).unwrap_or(0.0));
        if let Some(ended) = report.try_wait().context("lost the report")? {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = began.elapsed().as_secs_f64();
    fs::remove_file(&path).context("cannot remove the events")?;
    ensure!(ended.code() == Some(UNPROVEN) && events >= 1_000_000, "{events} events, and {ended}");
    let size = fs::metadata(&html).context("there is no page")?.len() as f64 / f64::from(1 << 20);
    Ok(Page { seconds, memory, size })
}

/// The most memory that a process had, in MiB.
fn peak(status: &str) -> Option<f64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

/// Events as the agents of a busy node write them; how many.
fn synthesize(path: &Path) -> Result<u64> {
    let mut file = BufWriter::new(File::create(path).context("cannot write events")?);
    let mut seq = 0;
    let mut line = |pod: u64, time: u64, body: &str| -> Result<()> {
        seq += 1;
        let (second, rest) = (time / SECOND, time % SECOND);
        let (minute, second) = (second / 60 % 60, second % 60);
        writeln!(
            file,
            "{{\"schema\":\"lastpacket.dev/v1\",\"time\":\"2026-11-21T10:{minute:02}:{second:02}.{rest:09}Z\",\
             \"mono_ns\":{time},\"node\":\"node1\",\"agent\":{{\"run_id\":\"b3a799ad-950e-41c2-bef6-096aa6f8b134\"}},\
             \"seq\":{seq},\"target\":{{\"name\":\"web-{pod}\",\"netns\":{}}},\"k8s\":{{\"namespace\":{{\"name\":\"shop\"}},\
             \"pod\":{{\"name\":\"web-{pod}\",\"uid\":\"u{pod}\"}},\"deployment\":{{\"name\":\"web\"}}}},{body}}}",
            4_026_532_000 + pod
        )
        .context("cannot write events")
    };
    for pod in 0..PODS {
        let phase = |phase: &str| {
            format!(
                "\"type\":\"phase\",\"container\":{{\"name\":\"nginx\"}},\"phase\":\"{phase}\",\"source\":\"kernel\",\"ignored\":false"
            )
        };
        line(pod, SECOND, &phase("running"))?;
        line(pod, 2 * SECOND, &phase("pre_stop"))?;
        for number in 0..CONNECTIONS {
            let (from, to) = (2 * SECOND + number * 100_000, 2 * SECOND + number * 100_000 + 40_000_000);
            let (peer, port) = (number % 50, 1024 + number % 60_000);
            let ends = format!(
                "\"container\":{{\"name\":\"nginx\"}},\"phase\":\"pre_stop\",\"network\":{{\"type\":\"ipv4\",\"local\":\
                 {{\"address\":\"10.1.0.{pod}\",\"port\":8080}},\"peer\":{{\"address\":\"10.0.{peer}.1\",\"port\":{port}}}}},\
                 \"role\":\"server\",\"origin\":\"peer\",\"hop\":\"external\",\"opened_mono_ns\":{from}"
            );
            line(pod, from, &format!("\"type\":\"connection_opened\",{ends}"))?;
            let end = "\"end\":{\"ending\":\"idle_closed\",\"closed_by\":\"application\",\"delivered\":true,\
                       \"bytes_received\":744,\"bytes_acked\":2845}";
            line(pod, to, &format!("\"type\":\"connection_closed\",{ends},{end}"))?;
            if number % 4 == 0 {
                let reset = "\"direction\":\"sent\",\"reason\":\"TIMEWAIT_SOCKET\",\"segment\":\"data\",\
                             \"ending\":\"late_data\",\"confidence\":\"certain\"";
                line(pod, to + 1, &format!("\"type\":\"reset\",{ends},{reset}"))?;
            }
        }
        line(pod, 8 * SECOND, &phase("after_exit"))?;
    }
    file.flush().context("cannot write events")?;
    Ok(seq)
}
