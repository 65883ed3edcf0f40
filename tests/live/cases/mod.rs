//! What TCP sockets do at the end of their life, case by case, as in `tcp_cases.py`, whose output on
//! Linux 6.18 is `reference.jsonl`: the kernel's counters, what the client saw, and what lastpacket
//! says must agree.

mod check;
mod close;
mod expect;
mod late;
mod mptcp;
mod open;
mod refuse;
mod reset;

use anyhow::Result;
use lastpacket_tests::{counters, needs, netns::Family, process::Resident, run};
use libtest_mimic::Trial;
use tracer_core::output::Body;

use self::{
    check::{Observed, Reference},
    expect::Expected,
};
use crate::scene::{Scene, pause};

const BOTH: &[Family] = &[Family::V4, Family::V6];
const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];

/// How often a case is played at most.
const ATTEMPTS: usize = 4;

/// One case.
#[derive(Clone, Copy)]
struct Case {
    /// Its name, as in the reference.
    name: &'static str,
    /// The protocols that it is played in.
    families: &'static [Family],
    /// What happens.
    play: fn(&mut Scene) -> Result<()>,
    /// What lastpacket must say of it.
    expected: fn() -> Expected,
}

/// All cases, each with its own namespaces and its own `lastpacket`.
pub fn trials() -> Result<Vec<Trial>> {
    let groups = [close::CASES, reset::CASES, late::CASES, refuse::CASES, open::CASES, mptcp::CASES];
    let references = Reference::read()?;
    let mut trials = Vec::new();
    for case in groups.concat() {
        for family in case.families.iter().copied() {
            let reference = Reference::of(&references, case.name)?.clone();
            let name = format!("cases::{}::{family:?}", case.name).to_lowercase();
            trials.push(needs::live(name, move || play(&case, &reference, family)));
        }
    }
    Ok(trials)
}

/// Now and then two segments of a handshake meet on two CPUs, and the kernel makes a second socket: then
/// it must count and lastpacket tell it, and the case is played again.
fn play(case: &Case, reference: &Reference, family: Family) -> Result<()> {
    for _ in 1..ATTEMPTS {
        let observed = observe(case, family)?;
        if check::second_sockets(reference, &observed)? == 0 {
            return check::all(case, reference, &observed);
        }
    }
    check::all(case, reference, &observe(case, family)?)
}

/// Plays a case with the server's namespace traced, from before it begins until a process that lives
/// there has ended.
fn observe(case: &Case, family: Family) -> Result<Observed> {
    let mut scene = Scene::new(family)?;
    let resident = Resident::of(&scene.link.server)?;
    let pid = resident.pid().to_string();
    let mut lastpacket = run::start(&["trace", "--pid", &pid, "--linger", "100ms", "--quiet", "0ms"])?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Phase(_)))?;
    let before = counters::read(&scene.link.server)?;
    (case.play)(&mut scene)?;
    // What the kernel does after the last system call, and the time after which a close is judged.
    pause(120);
    let after = counters::read(&scene.link.server)?;
    resident.terminate()?;
    let run = lastpacket.finish()?;
    Ok(Observed { run, before, after, notes: scene.notes, clients: scene.clients, family })
}
