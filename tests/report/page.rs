//! What the page must be, whatever is on it and however wide it is shown.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{needs::anywhere, programs::with_programs};
use libtest_mimic::Trial;
use tracer_core::{
    output::{Body, Line},
    words::Result as Answer,
};
use tracer_user::report::{Failing, Pod, Report, html, junit, markdown};

use super::{browser, inputs};

/// Makes the lines of a page.
type Lines = fn() -> Result<Vec<Line>>;

/// Pages that are opened in a browser.
const PAGES: [(&str, Lines); 7] = [
    ("rehearsal", || inputs::rehearsal_lines("nginx")),
    ("killed", || inputs::rehearsal_lines("killed")),
    ("one_lane_no_traffic", one_lane_no_traffic),
    ("rollout", inputs::rollout),
    ("sidecar", || inputs::recorded_pods("sidecar-delete-under-load")),
    ("many_peers", many_peers),
    ("hostile", inputs::hostile),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        anywhere("the_page_needs_nothing_beside_itself", nothing_beside),
        anywhere("a_pod_that_nothing_was_read_of_is_not_forgotten", not_forgotten),
        anywhere("a_large_page_is_condensed_and_says_so", condensed),
    ];
    for (name, lines) in PAGES {
        trials.push(with_programs(&format!("in_a_browser::{name}"), &["chromium"], move || {
            browser::check(name, &page(name, &lines()?)?)
        }));
    }
    trials
}

/// A page with what is expected on it.
pub struct Page {
    pub path: PathBuf,
    /// Names of containers, in any order, of all pods.
    pub containers: Vec<String>,
    /// The peers of each pod that fit.
    pub peers: usize,
}

fn page(name: &str, lines: &[Line]) -> Result<Page> {
    let report = inputs::report(name, lines)?;
    let folder = artefacts()?;
    let path = folder.join(format!("{name}.html"));
    fs::write(&path, html::render(&report))?;
    let containers = report.pods.iter().flat_map(|pod| &pod.lanes).map(|lane| lane.name.clone()).collect();
    let peers = report.pods.iter().map(|pod| peers(&report, pod)).sum();
    Ok(Page { path, containers, peers })
}

/// Peers that something is known of: the places of local addresses stand among them.
fn peers(report: &Report, pod: &Pod) -> usize {
    let mut peers: Vec<u32> = pod.connections.iter().map(|connection| connection.peer).collect();
    peers.extend(pod.marks.iter().map(|mark| mark.peer));
    peers.sort_unstable();
    peers.dedup();
    let most = (240 / report.pods.len()).clamp(4, 40);
    peers.len().min(most)
}

/// Pages and screenshots are kept.
pub fn artefacts() -> Result<PathBuf> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.parent().context("no target folder")?.join("report");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn one_lane_no_traffic() -> Result<Vec<Line>> {
    let mut lines = inputs::rehearsal_lines("graceful")?;
    lines.retain(|line| {
        !matches!(
            line.body,
            Body::ConnectionOpened(_) | Body::ConnectionClosed(_) | Body::Reset(_) | Body::Rehearsal(_)
        )
    });
    for (number, line) in lines.iter_mut().enumerate() {
        line.seq = number as u64 + 1;
    }
    Ok(lines)
}

/// Sixty peers, half of them with IPv6 addresses.
fn many_peers() -> Result<Vec<Line>> {
    let mut lines = inputs::rehearsal_lines("flood")?;
    for line in &mut lines {
        let network = match &mut line.body {
            Body::ConnectionOpened(event) | Body::ConnectionClosed(event) => &mut event.network,
            Body::Reset(event) => &mut event.network,
            _ => continue,
        };
        let number = network.peer.port % 60;
        network.peer.address = match number % 2 {
            0 => [10, 1, 0, u8::try_from(number)?].into(),
            _ => [0x2001, 0xdb8, 0x1234, 0x5678, 0x9abc, 0xdef0, 0x1111, number].into(),
        };
    }
    Ok(lines)
}

/// No address of anything, no attribute that a content security policy forbids.
fn nothing_beside() -> Result<()> {
    let page = html::render(&inputs::report("rollout", &inputs::rollout()?)?);
    for forbidden in ["http://", "https://", " style=", " onclick", "@import", "url(", "eval("] {
        ensure!(!page.contains(forbidden), "{forbidden} is on the page");
    }
    ensure!(page.contains("default-src &#39;none&#39;"), "no content security policy");
    let page = html::render(&inputs::report("hostile", &inputs::hostile()?)?);
    for forbidden in ["<script>hacked", "<img", "\u{1b}"] {
        ensure!(!page.contains(forbidden), "{forbidden:?} is on the page");
    }
    Ok(())
}

fn not_forgotten() -> Result<()> {
    let mut report = inputs::report("rollout", &inputs::rollout()?)?;
    let mut unheard = Pod::unheard("web-7d9f8b6c5-zzzzz".to_owned(), "node3".into());
    unheard.result = Some(Answer::Unproven);
    unheard.reasons.push("no agent runs on node3".to_owned());
    report.pods.push(unheard);
    for page in
        [html::render(&report), junit::render(&report, Failing::usual(false)), markdown::render(&report)]
    {
        ensure!(page.contains("web-7d9f8b6c5-zzzzz") && page.contains("no agent runs on node3"), "{page}");
    }
    ensure!(report.tally().unproven == 2, "{:?}", report.tally());
    Ok(())
}

fn condensed() -> Result<()> {
    let lines = inputs::rehearsal_lines("graceful")?;
    let open = lines.iter().find(|line| matches!(line.body, Body::ConnectionOpened(_))).context("none")?;
    let mut many = Vec::new();
    for number in 0..50_000_u64 {
        let mut line = open.clone();
        (line.seq, line.mono_ns) = (number + 1, open.mono_ns + number * 100_000);
        if let Body::ConnectionOpened(event) = &mut line.body {
            event.opened_mono_ns = Some(line.mono_ns);
            event.network.peer.port = u16::try_from(number % 60_000)?;
        }
        many.push(line);
    }
    let page = html::render(&inputs::report("many", &many)?);
    ensure!(
        page.contains("Condensed: 50000 connections are drawn as their number over time"),
        "it does not say so"
    );
    ensure!(page.len() < 500_000, "the page has {} bytes", page.len());
    Ok(())
}
