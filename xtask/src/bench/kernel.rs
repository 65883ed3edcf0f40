//! Time in kernel programs, as the kernel counts it (`BPF_ENABLE_STATS`).

use std::{ffi::CStr, fs};

use anyhow::{Context, Result};

use super::{
    figure::{Figure, Goal},
    floor::{self, Floor},
    pod::Pod,
    tight,
    tracers::{Tracers, Variant},
};

const ROUNDS: usize = 5;
const CONNECTIONS: u32 = 20_000;
/// The hooks that a connection passes.
const HOOKS: [&CStr; 5] = [
    c"inet_sock_set_state",
    c"tcp_send_reset",
    c"tcp_receive_reset",
    c"sock_send_length",
    c"sock_recv_length",
];
/// What a known pod may cost, in floors of the hooks it passes.
const KNOWN_IN_FLOORS: f64 = 3.0;

/// Nanoseconds and runs of some programs.
#[derive(Clone, Copy, Default)]
struct Spent {
    nanoseconds: f64,
    runs: f64,
}

/// Runs the loop under empty programs, ours and theirs, round by round.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let _counting = floor::count_time().context("the kernel does not count the time in programs")?;
    let tracers = Tracers::new(super::lastpacket()?)?;
    let pod = Pod::start(1)?;
    let variants = [Variant::Known, Variant::Armed, Variant::Tcpstates, Variant::Bpftrace];
    let mut floors = Vec::new();
    let mut spent: Vec<(Variant, Vec<Spent>)> = variants.map(|variant| (variant, Vec::new())).into();
    for round in 0..ROUNDS {
        eprintln!("    round {} of {ROUNDS}", round + 1);
        let floor = Floor::attach(&HOOKS)?;
        floors.push(of_loop(&pod, &[std::process::id()])?);
        drop(floor);
        for (variant, spent) in &mut spent {
            let tracer = tracers.start(*variant, &pod)?;
            spent.push(of_loop(&pod, &tracer.pids())?);
        }
    }
    let mut figures = figures("empty programs", &floors, None);
    for (variant, spent) in &spent {
        let floors = (*variant == Variant::Known).then_some(floors.as_slice());
        figures.extend(self::figures(variant.name(), spent, floors));
    }
    Ok(figures)
}

fn figures(name: &str, spent: &[Spent], floors: Option<&[Spent]>) -> Vec<Figure> {
    let each = |value: fn(&Spent) -> f64| spent.iter().map(value).collect::<Vec<f64>>();
    let of_connection = |spent: &Spent| spent.nanoseconds / f64::from(CONNECTIONS);
    let mut figures = vec![
        Figure::new(name, "ns/run", each(|spent| spent.nanoseconds / spent.runs), Goal::None),
        Figure::new(name, "ns/connection", each(of_connection), Goal::None),
    ];
    if let Some(floors) = floors {
        let ratios = spent.iter().zip(floors).map(|(spent, floor)| spent.nanoseconds / floor.nanoseconds);
        figures.push(Figure::new(name, "floors", ratios.collect(), Goal::AtMost(KNOWN_IN_FLOORS)));
    }
    figures
}

/// What the programs of some processes spent during one loop, half of it ended by FIN, half by RST.
fn of_loop(pod: &Pod, pids: &[u32]) -> Result<Spent> {
    let before = spent_by(pids);
    tight::rate(pod, CONNECTIONS / 2, false)?;
    tight::rate(pod, CONNECTIONS / 2, true)?;
    let after = spent_by(pids);
    Ok(Spent { nanoseconds: after.nanoseconds - before.nanoseconds, runs: after.runs - before.runs })
}

/// Reads the descriptors of the programs (`bpf_prog_show_fdinfo`).
fn spent_by(pids: &[u32]) -> Spent {
    let folders = pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fdinfo")).ok());
    let mut total = Spent::default();
    let mut seen = Vec::new();
    for text in folders.flatten().flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()) {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<f64>().ok())
        };
        let (Some(id), Some(nanoseconds), Some(runs)) =
            (field("prog_id"), field("run_time_ns"), field("run_cnt"))
        else {
            continue;
        };
        // A program may have several descriptors.
        if !seen.contains(&id) {
            seen.push(id);
            total.nanoseconds += nanoseconds;
            total.runs += runs;
        }
    }
    total
}
