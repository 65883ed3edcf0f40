//! The real pipeline as the follower sees it.

use std::sync::Arc;

use anyhow::Result;
use tracer_core::{
    event::TargetId,
    input::{End, InventoryUpdate, NewContainer, NewTarget, Timeouts},
    output::Subject,
};

use super::{follow::Tracing, inventory::View, run::Settings};
use crate::{
    clock,
    host::{
        netns::{self, Netns},
        pods::Pod,
    },
    pipeline::{Pipeline, TargetSpec},
};

/// See the module.
pub(super) struct OnNode<'a> {
    pub(super) pipeline: &'a mut Pipeline,
    pub(super) settings: &'a Settings,
}

impl View for OnNode<'_> {
    fn is_gone(&self, target: TargetId) -> bool {
        self.pipeline.is_gone(target)
    }

    fn has_interface(&self, target: TargetId) -> bool {
        self.pipeline.has_interface(target)
    }

    fn is_terminating(&self, target: TargetId) -> bool {
        self.pipeline.tracer().is_terminating(target)
    }

    fn is_ending(&self, target: TargetId) -> bool {
        self.pipeline.tracer().is_ending(target)
    }

    fn is_exiting(&self, target: TargetId) -> bool {
        self.pipeline.tracer().is_exiting(target)
    }

    fn was_stopped(&self, target: TargetId) -> bool {
        self.pipeline.tracer().was_stopped(target)
    }

    fn completed(&self, target: TargetId, container: u32) -> bool {
        self.pipeline.tracer().completed(target, container)
    }
}

impl Tracing for OnNode<'_> {
    fn add(&mut self, pod: &Pod, subject: Arc<Subject>, containers: Vec<NewContainer>) -> Result<TargetId> {
        let shared_network = pod.netns.is_none();
        let inside = Netns::open(pod.netns.clone().unwrap_or_else(netns::machine_path))?.look()?;
        let keys = if shared_network {
            let cgroups = containers.iter().filter_map(|container| container.cgroup);
            self.pipeline.shared_keys(inside.identity, cgroups)?
        } else {
            self.pipeline.scope_keys(inside.identity, None)?
        };
        self.pipeline.add_target(TargetSpec {
            new: NewTarget {
                id: 0,
                subject,
                time: clock::mono_ns(),
                addresses: inside.addresses,
                checkers: self.settings.checkers.clone(),
                one_way: self.settings.one_way.clone(),
                shared_network,
                late: false,
                timeouts: Timeouts::default(),
            },
            armed: false,
            containers,
            keys,
            totals: inside.totals.filter(|_| !shared_network),
            sockets: inside.sockets,
        })
    }

    fn add_container(&mut self, container: NewContainer) -> Result<()> {
        self.pipeline.add_container(container)
    }

    fn update(&mut self, update: InventoryUpdate) -> Result<()> {
        self.pipeline.update(update)
    }

    fn finish(&mut self, target: TargetId, interface_gone: bool, end: End) -> Result<()> {
        self.pipeline.finish(target, interface_gone, end)
    }
}
