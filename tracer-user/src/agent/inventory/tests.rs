//! What the inventory makes of what is seen.

use super::*;
use crate::{agent::meta::ContainerMeta, host::process::Process};

const SECOND: Mono = 1_000_000_000;

/// What tracing knows of the only target.
#[derive(Default)]
struct Seen {
    gone: bool,
    no_interface: bool,
    terminating: bool,
    ending: bool,
    stopped: bool,
    completed: Vec<u32>,
}

impl View for Seen {
    fn is_gone(&self, _: TargetId) -> bool {
        self.gone
    }
    fn has_interface(&self, _: TargetId) -> bool {
        !self.no_interface
    }
    fn is_terminating(&self, _: TargetId) -> bool {
        self.terminating || self.gone
    }
    fn is_ending(&self, _: TargetId) -> bool {
        self.ending
    }
    fn is_exiting(&self, _: TargetId) -> bool {
        self.ending
    }
    fn was_stopped(&self, _: TargetId) -> bool {
        self.stopped
    }
    fn completed(&self, _: TargetId, container: u32) -> bool {
        self.completed.contains(&container)
    }
}

fn seen() -> Seen {
    Seen::default()
}

/// All containers have exited after a stop signal.
fn stopped() -> Seen {
    Seen { gone: true, stopped: true, ..seen() }
}

fn container(id: &str) -> Container {
    let init = Process {
        pid: 100,
        parent: 1,
        comm: "web".to_owned(),
        netns: 7,
        pidns: 8,
        cgroup: None,
        is_namespace_init: true,
    };
    Container { id: id.to_owned(), cgroup: Some(9), init, pidns: Some(8) }
}

fn pod(ids: &[&str]) -> Pod {
    Pod {
        uid: "uid".to_owned(),
        netns: Some("/proc/100/ns/net".into()),
        netns_inode: 7,
        containers: ids.iter().map(|id| container(id)).collect(),
        sandbox: None,
    }
}

fn meta() -> Meta {
    Meta { namespace: "shop".to_owned(), name: "web-1".to_owned(), ..Meta::default() }
}

fn deleted(time: Mono) -> Meta {
    Meta { deleted: Some(time), ..meta() }
}

/// By the API: containers that end before the pod does, and those that do not.
fn with_containers(passing: &[&str], lasting: &[&str]) -> Meta {
    let known = |id: &str, passing: bool| {
        let declared = Declared { name: id.into(), stop_signal: None };
        (id.to_owned(), ContainerMeta { declared, passing })
    };
    let passing = passing.iter().map(|id| known(id, true));
    let containers = passing.chain(lasting.iter().map(|id| known(id, false))).collect();
    Meta { containers, ..meta() }
}

/// An inventory with one pod in scope as target 1.
fn inventory(ids: &[&str]) -> Inventory {
    let mut inventory = Inventory::default();
    let commands = inventory.scanned(&[pod(ids)], 0, &seen());
    assert!(matches!(commands.as_slice(), [Command::Add(..)]), "{commands:?}");
    assert!(inventory.added("uid", Some(1), 0).is_empty());
    inventory.complete();
    inventory
}

fn finish(interface_gone: bool, end: End) -> Command {
    Command::Finish { target: 1, interface_gone, end }
}

#[test]
fn a_pod_is_added_once_and_again_if_it_could_not_be() {
    let mut inventory = Inventory::default();
    assert_eq!(inventory.scanned(&[pod(&["a"])], 0, &seen()).len(), 1);
    assert!(inventory.scanned(&[pod(&["a"])], 1, &seen()).is_empty(), "it is being added");
    inventory.added("uid", None, 2);
    assert_eq!(inventory.scanned(&[pod(&["a"])], 3, &seen()).len(), 1);
    inventory.added("uid", Some(1), 4);
    assert!(inventory.scanned(&[pod(&["a"])], 5, &seen()).is_empty());
}

#[test]
fn names_come_with_the_api_and_outlive_its_object() {
    let mut inventory = inventory(&["a"]);
    let commands = inventory.described("uid", with_containers(&[], &["a"]));
    let [Command::Name { target: 1, subject, containers }] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!((subject.target.name.as_str(), subject.target.netns), ("shop/web-1", 7));
    assert_eq!(containers.as_slice(), [(0, Declared { name: "a".into(), stop_signal: None })]);
    assert_eq!(inventory.forgotten("uid", 5), [Command::PreStop(1, 5)], "a forced deletion");
    assert_eq!(inventory.subject("uid", 7).target.name, "shop/web-1");
}

#[test]
fn deletion_is_told_once_with_its_first_sight() {
    let mut inventory = inventory(&["a"]);
    inventory.described("uid", meta());
    assert_eq!(inventory.described("uid", deleted(5)), [Command::PreStop(1, 5)]);
    assert!(inventory.described("uid", deleted(6)).is_empty());
}

#[test]
fn a_deletion_from_before_the_agent_came_is_a_doubt() {
    let (late, told) = (Command::Doubt(1, Gap::Late), Command::PreStop(1, 5));
    let mut api_first = Inventory::default();
    api_first.described("uid", deleted(5));
    api_first.complete();
    api_first.scanned(&[pod(&["a"])], 6, &seen());
    assert_eq!(api_first.added("uid", Some(1), 7), [late.clone(), told.clone()]);

    let mut cgroups_first = Inventory::default();
    cgroups_first.scanned(&[pod(&["a"])], 1, &seen());
    cgroups_first.added("uid", Some(1), 2);
    let commands = cgroups_first.described("uid", deleted(5));
    assert!(commands.contains(&late) && commands.contains(&told), "{commands:?}");
}

/// Without the API nothing else tells that the stop signal came before the agent did.
#[test]
fn an_exit_without_a_signal_soon_after_the_start_is_a_doubt() {
    let over = |view: &Seen, now| {
        let mut inventory = inventory(&["a"]);
        inventory.ends(now - 30 * SECOND, view);
        inventory.ends(now, view)
    };
    let late = Command::Doubt(1, Gap::Late);
    let unsignalled = Seen { gone: true, ..seen() };
    assert_eq!(over(&unsignalled, 60 * SECOND).first(), Some(&late));
    assert_eq!(over(&stopped(), 60 * SECOND), [finish(false, End::Terminated)]);
    assert_eq!(over(&unsignalled, 3600 * SECOND), [finish(false, End::Terminated)]);
}

#[test]
fn a_restart_gives_a_verdict_and_what_runs_is_observed_anew() {
    let mut inventory = inventory(&["a"]);
    let commands = inventory.scanned(&[pod(&["b"])], 5, &stopped());
    let [Command::AddContainer(1, 1, ..), Command::ContainerGone(1, 0)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert!(
        inventory.scanned(&[pod(&["b"])], 4 * SECOND, &stopped()).is_empty(),
        "clients are still refused"
    );
    let again = Seen { ending: true, ..stopped() };
    assert!(inventory.scanned(&[pod(&["b"])], 6 * SECOND, &again).is_empty(), "it is stopped once more");
    let commands = inventory.scanned(&[pod(&["b"])], 6 * SECOND, &stopped());
    let [first, Command::Add(..)] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(*first, finish(false, End::Restarted));
}

#[test]
fn a_container_that_crashed_is_a_restart_too_and_others_go_on() {
    let mut inventory = inventory(&["a", "b"]);
    assert_eq!(inventory.scanned(&[pod(&["b"])], 5, &seen()), [Command::ContainerGone(1, 0)]);
    inventory.scanned(&[pod(&["b", "c"])], 6, &seen());
    let commands = inventory.scanned(&[pod(&["b", "c"])], 6 * SECOND, &seen());
    assert_eq!(commands.first(), Some(&finish(false, End::Restarted)));
}

#[test]
fn init_containers_pass_without_a_verdict() {
    for meta in [None, Some(with_containers(&["setup"], &["main"]))] {
        let known = meta.is_some();
        let mut inventory = inventory(&["setup"]);
        if let Some(meta) = meta {
            inventory.described("uid", meta);
        }
        assert!(
            inventory
                .scanned(&[pod(&[])], 4, &seen())
                .iter()
                .all(|command| matches!(command, Command::ContainerGone(1, 0)))
        );
        let view = Seen { terminating: true, completed: if known { vec![] } else { vec![0] }, ..seen() };
        let commands = inventory.scanned(&[pod(&["main"])], 5, &view);
        let [first, Command::Add(..)] = commands.as_slice() else { panic!("{commands:?}") };
        assert_eq!(*first, finish(false, End::NotTerminated));
    }
}

#[test]
fn an_ephemeral_container_comes_and_goes_without_a_verdict() {
    let mut inventory = inventory(&["main"]);
    inventory.described("uid", with_containers(&["debug"], &["main"]));
    let commands = inventory.scanned(&[pod(&["main", "debug"])], 5, &seen());
    assert!(matches!(commands.as_slice(), [Command::AddContainer(1, 1, ..)]), "{commands:?}");
    let commands = inventory.scanned(&[pod(&["main"])], 6, &seen());
    assert_eq!(commands.first(), Some(&finish(false, End::NotTerminated)), "{commands:?}");
}

#[test]
fn a_container_that_is_stopped_before_its_sidecar_is_no_restart() {
    let mut inventory = inventory(&["main", "mesh"]);
    inventory.described("uid", Meta { deleted: Some(1), ..with_containers(&[], &["main", "mesh"]) });
    let commands = inventory.scanned(&[pod(&["mesh"])], 5, &Seen { stopped: true, ..seen() });
    assert_eq!(commands, [Command::ContainerGone(1, 0)]);
    assert_eq!(inventory.scanned(&[], 6, &stopped()), [Command::ContainerGone(1, 1)]);
    let gone = Seen { no_interface: true, ..stopped() };
    assert_eq!(inventory.ends(7, &gone), [finish(true, End::Terminated)]);
}

#[test]
fn containers_come_and_go_while_a_pod_starts_and_stops() {
    let mut inventory = inventory(&["a"]);
    let commands = inventory.scanned(&[pod(&["a", "b"])], 5, &seen());
    assert!(matches!(commands.as_slice(), [Command::AddContainer(1, 1, ..)]), "{commands:?}");
    inventory.described("uid", deleted(6));
    assert_eq!(inventory.scanned(&[pod(&["b"])], 7, &seen()), [Command::ContainerGone(1, 0)]);
    assert_eq!(inventory.scanned(&[], 8, &seen()), [Command::ContainerGone(1, 1)]);
}

#[test]
fn the_end_comes_with_the_interface_or_some_time_after_the_last_exit() {
    let mut one = inventory(&["a"]);
    assert!(one.ends(0, &seen()).is_empty());
    assert!(one.ends(0, &Seen { no_interface: true, ..seen() }).is_empty(), "nothing of it is ending");
    assert_eq!(one.ends(1, &Seen { no_interface: true, ..stopped() }), [finish(true, End::Terminated)]);
    assert!(one.scanned(&[pod(&["a"])], 2, &seen()).is_empty(), "what is left of it is not new");
    let again = one.scanned(&[pod(&["b"])], 3, &seen());
    assert!(
        matches!(again.as_slice(), [Command::Add(..)]),
        "the same pod with another container is: {again:?}"
    );

    let mut other = inventory(&["a"]);
    other.described("uid", deleted(0));
    assert!(other.ends(0, &stopped()).is_empty());
    assert!(other.ends(29 * SECOND, &stopped()).is_empty());
    assert_eq!(other.ends(30 * SECOND, &stopped()), [finish(false, End::Terminated)]);
    assert!(other.is_empty());
}

/// An eviction under pressure leaves no `deletionTimestamp`: the sandbox is torn down.
#[test]
fn an_evicted_pod_is_terminated() {
    let mut inventory = inventory(&["a"]);
    inventory.described("uid", meta());
    let gone = Seen { no_interface: true, ..stopped() };
    assert_eq!(inventory.ends(1, &gone), [finish(true, End::Terminated)]);
}

/// The kubelet waits up to five minutes before it starts a container again that crashes.
#[test]
fn a_crash_loop_gives_a_verdict_before_the_container_is_back() {
    let mut inventory = inventory(&["a"]);
    inventory.described("uid", meta());
    let gone = Seen { gone: true, ..seen() };
    assert!(inventory.ends(0, &gone).is_empty());
    assert_eq!(inventory.ends(30 * SECOND, &gone), [finish(false, End::Restarted)]);
    let commands = inventory.scanned(&[pod(&["b"])], 60 * SECOND, &seen());
    assert!(matches!(commands.as_slice(), [Command::Add(..)]), "{commands:?}");
}

#[test]
fn a_job_that_ends_by_itself_was_not_terminated_but_one_that_is_deleted_was() {
    let job = Meta { runs_to_completion: true, ..meta() };
    let gone = Seen { gone: true, no_interface: true, ..seen() };
    let mut by_itself = inventory(&["a"]);
    by_itself.described("uid", job.clone());
    assert_eq!(by_itself.ends(1, &gone), [finish(true, End::NotTerminated)]);

    let mut killed = inventory(&["a"]);
    killed.described("uid", Meta { deleted: Some(1), ..job });
    assert_eq!(killed.ends(1, &gone), [finish(true, End::Terminated)]);
}

#[test]
fn a_pod_of_the_host_network_ends_soon_after_its_last_exit() {
    let mut inventory = Inventory::default();
    inventory.scanned(&[Pod { netns: None, ..pod(&["a"]) }], 0, &seen());
    inventory.added("uid", Some(1), 0);
    let view = Seen { no_interface: true, ..stopped() };
    assert!(inventory.ends(0, &view).is_empty(), "it has no interface of its own");
    assert_eq!(inventory.ends(10 * SECOND, &view), [finish(false, End::Terminated)]);
}

#[test]
fn a_network_of_another_kernel_is_a_doubt() {
    let mut by_class = inventory(&["a"]);
    let gvisor = Meta { runtime_class: Some("gvisor".to_owned()), ..meta() };
    let gap = Gap::ForeignNetwork("the RuntimeClass gvisor".to_owned());
    assert!(by_class.described("uid", gvisor.clone()).contains(&Command::Doubt(1, gap)));
    assert!(by_class.described("uid", gvisor).is_empty(), "it is said once");
    let nvidia = Meta { runtime_class: Some("nvidia".to_owned()), ..meta() };
    let mut ordinary = inventory(&["a"]);
    assert!(matches!(ordinary.described("uid", nvidia).as_slice(), [Command::Name { .. }]));

    let mut by_program = Inventory::default();
    let mut kata = pod(&["a"]);
    kata.containers[0].init.comm = "qemu-system-x86".to_owned();
    by_program.scanned(&[kata], 0, &seen());
    let gap = Gap::ForeignNetwork("qemu-system-x86".to_owned());
    assert_eq!(by_program.added("uid", Some(1), 0), [Command::Doubt(1, gap)]);
}

#[test]
fn a_stop_signal_is_declared_as_soon_as_the_api_tells_it() {
    let mut known = with_containers(&[], &["a"]);
    let declared = Declared { name: "web".into(), stop_signal: Some(28) };
    known.containers.insert("a".to_owned(), ContainerMeta { declared: declared.clone(), passing: false });
    let commands = inventory(&["a"]).described("uid", known);
    let told = commands.iter().find_map(|command| match command {
        Command::Name { containers, .. } => Some(containers.clone()),
        _ => None,
    });
    assert_eq!(told, Some(vec![(0, declared)]));
}
