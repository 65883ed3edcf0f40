//! What the traced program pays: the rate of a tight loop beside its untraced rate of the same round.

use anyhow::Result;

use super::{
    figure::{Figure, Goal},
    pod::Pod,
    process, tight,
    tracers::{Tracers, Variant},
};

const ROUNDS: usize = 7;
/// Connections a run, about a second.
const CONNECTIONS: u32 = 20_000;

/// Rates by variant, a value per round.
type Rates = Vec<(Variant, Vec<f64>)>;
/// Seconds of processor time per million connections, of the tracers that are ours.
type Spent = Vec<(Variant, Vec<f64>)>;

/// Runs all variants in turn, round by round.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let tracers = Tracers::new(super::lastpacket()?)?;
    let pod = Pod::start(1)?;
    let mut figures = Vec::new();
    for (ending, reset) in [("FIN", false), ("RST", true)] {
        let (rates, spent) = rounds(&tracers, &pod, reset)?;
        figures.extend(compare(ending, &rates));
        figures.extend(spent.into_iter().map(|(variant, seconds)| {
            let name = format!("{ending}: {}", variant.name());
            Figure::new(name, "CPU s/million connections", seconds, Goal::None)
        }));
    }
    Ok(figures)
}

fn rounds(tracers: &Tracers, pod: &Pod, reset: bool) -> Result<(Rates, Spent)> {
    let mut spent: Spent = [Variant::Known, Variant::Armed].map(|variant| (variant, Vec::new())).into();
    let mut rates: Rates = Variant::ALL.map(|variant| (variant, Vec::new())).into();
    for round in 0..ROUNDS {
        eprintln!("    round {} of {ROUNDS}, ended by {}", round + 1, if reset { "RST" } else { "FIN" });
        for (variant, rates) in &mut rates {
            let tracer = tracers.start(*variant, pod)?;
            let cpu = || tracer.pids().first().map_or(Ok(0.0), |pid| process::cpu_seconds(*pid));
            let before = cpu()?;
            rates.push(tight::rate(pod, CONNECTIONS, reset)?);
            if let Some((_, spent)) = spent.iter_mut().find(|(ours, _)| ours == variant) {
                spent.push((cpu()? - before) / f64::from(CONNECTIONS) * 1e6);
            }
        }
    }
    Ok((rates, spent))
}

/// The untraced rate, and each variant's share of it, round by round.
fn compare(ending: &str, rates: &Rates) -> Vec<Figure> {
    let Some((_, untraced)) = rates.first() else { return Vec::new() };
    let slowdown = |rates: &[f64]| 1.0 - median(rates.iter().zip(untraced).map(|(rate, base)| rate / base));
    let of_tcpstates = rates.iter().find(|(variant, _)| *variant == Variant::Tcpstates);
    let of_tcpstates = of_tcpstates.map_or(0.0, |(_, rates)| slowdown(rates));
    let figure = |(variant, rates): &(Variant, Vec<f64>)| {
        let name = format!("{ending}: {}", variant.name());
        let shares = rates.iter().zip(untraced).map(|(rate, base)| rate / base).collect();
        match variant {
            Variant::Untraced => Figure::new(name, "connections/s", rates.clone(), Goal::None),
            Variant::Known => Figure::new(name, "of untraced", shares, Goal::AtLeast(0.98)),
            Variant::Armed => {
                // At most a fifth of the slowdown of tcpstates, too.
                let goal = (1.0 - of_tcpstates / 5.0).max(0.92);
                Figure::new(name, "of untraced", shares, Goal::AtLeast(goal))
            }
            _ => Figure::new(name, "of untraced", shares, Goal::None),
        }
    };
    rates.iter().map(figure).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
