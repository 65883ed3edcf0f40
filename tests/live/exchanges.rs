//! What applications read and wrote last: the kernel keeps it as long as it can be of use.

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use lastpacket_tests::{
    kernel_objects::{self, KernelObject},
    machine, needs,
    netns::Family,
    process::Resident,
    run,
};
use libtest_mimic::Trial;
use tracer_common::CONVERSATION;
use tracer_core::output::Body;

use crate::scene::{Pair, Scene, pause};

pub fn trials() -> Vec<Trial> {
    vec![needs::live("exchanges::none_is_kept_of_a_target_that_is_traced_no_more", forgotten)]
}

/// Since when applications' calls are seen (`sock_recv_length`).
const CALLS: (u32, u32) = (6, 3);

/// The kernel's own table has an entry a connection; it goes when the connection closes, and, since that of a
/// target whose connections outlive its process may never be seen, with the target.
fn forgotten() -> Result<()> {
    let mut scenes = [Scene::new(Family::V4)?, Scene::new(Family::V4)?];
    let [first, second] = [Resident::of(&scenes[0].link.server)?, Resident::of(&scenes[1].link.server)?];
    let pids = [first.pid().to_string(), second.pid().to_string()];
    let arguments = ["trace", "--linger", "100ms", "--pid", &pids[0], "--pid", &pids[1]];
    let mut lastpacket = run::start(&arguments)?;
    lastpacket.wait_for(2, |body| matches!(body, Body::Phase(_)))?;
    let pairs = [scenes[0].pair()?, scenes[0].pair()?, scenes[1].pair()?, scenes[1].pair()?];
    pairs.iter().try_for_each(Pair::exchange)?;
    let a_connection = usize::from(machine::kernel_version()? >= CALLS);
    let left = kept_by(lastpacket.pid())?;
    ensure!(left == 4 * a_connection, "{left} entries of four connections");

    first.terminate()?;
    lastpacket.wait_for(1, |body| matches!(body, Body::Verdict(_)))?;
    let left = kept_by(lastpacket.pid())?;
    ensure!(left == 2 * a_connection, "{left} entries of the two connections that are still traced");

    let [.., third, fourth] = pairs;
    drop((third, fourth));
    pause(50);
    let left = kept_by(lastpacket.pid())?;
    ensure!(left == 0, "{left} entries of connections that closed");
    second.terminate()?;
    lastpacket.finish().map(drop)
}

/// Entries of this table of a `lastpacket`, by the kernel's account.
fn kept_by(pid: u32) -> Result<usize> {
    for object in kernel_objects::of(pid)? {
        let KernelObject::Map(id) = object else { continue };
        let table = MapData::from_id(id)?;
        if table.info()?.name_as_str() == Some("EXCHANGES") {
            let table: HashMap<_, u64, [u8; CONVERSATION]> = HashMap::try_from(Map::HashMap(table))?;
            return Ok(table.keys().filter_map(Result::ok).count());
        }
    }
    None.context("lastpacket holds no table EXCHANGES")
}
