//! What the core is told: records, facts from the edges, readings of counters, time.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;

use crate::{
    books::Reading,
    event::{Mono, TargetId, TcpState, Tuple},
    lifecycle::Source,
    output::{EndpointEvent, Subject},
    verdict::Gap,
};

/// One input.
#[derive(Clone, Debug)]
pub enum Input {
    /// A record of the kernel programs.
    Record(Bytes),
    /// A fact from the host, the API or the rehearsal.
    Inventory(InventoryUpdate),
    /// The books' two sides, read at the same instant; the first one of a target is where its books
    /// begin.
    Counters {
        /// Whose.
        target: TargetId,
        /// What was read.
        reading: Box<Reading>,
    },
    /// Time goes on.
    Tick(Clock),
}

/// Two clocks read at the same instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub mono: Mono,
    /// CLOCK_REALTIME in nanoseconds since 1970.
    pub wall: i64,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address in it.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

impl Network {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let ((mine, width), (theirs, their_width)) = (bits(self.address), bits(address));
        let shift = 128 - u32::from(self.prefix.min(width));
        width == their_width && (shift == 128 || mine >> shift == theirs >> shift)
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text} is no address range; write it like 10.0.0.0/8 or fd00::/8");
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), str::parse).map_err(|_| error())?;
        if prefix > width { Err(error()) } else { Ok(Self { address, prefix }) }
    }
}

/// A target that comes into scope.
#[derive(Clone, Debug)]
pub struct NewTarget {
    /// Its slot.
    pub id: TargetId,
    /// How it is named in events.
    pub subject: Arc<Subject>,
    /// When tracing of it began.
    pub time: Mono,
    /// Its own addresses, to tell loopback hops.
    pub addresses: Vec<IpAddr>,
    /// Health checkers.
    pub checkers: Vec<Network>,
    /// Ports whose protocol never answers.
    pub one_way: Vec<u16>,
    /// Several targets share its network namespace, so that the kernel keeps no totals of its own.
    pub shared_network: bool,
    /// Its termination had begun before tracing did.
    pub late: bool,
    /// What is to be longer than what, as far as somebody told.
    pub timeouts: Timeouts,
}

/// Times that a termination must fit into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// terminationGracePeriodSeconds, in nanoseconds.
    pub grace: Option<Mono>,
    /// How long the load balancer lets connections drain, in nanoseconds.
    pub load_balancer: Option<Mono>,
}

/// A container of a target.
#[derive(Clone, Debug)]
pub struct NewContainer {
    /// Whose.
    pub target: TargetId,
    /// Its number within the target, from 0.
    pub container: u32,
    /// Its name.
    pub name: Arc<str>,
    /// Process id of its init, in the initial pid namespace.
    pub pid: u32,
    /// Inode of its pid namespace, if it is not the machine's; a signal from there is from inside.
    pub pidns: Option<u32>,
    /// Id of its cgroup, if it has one of its own; a signal from there is from inside.
    pub cgroup: Option<u64>,
    /// The signal that stops it, if that is declared: it begins the phase stop_signal, whichever it is.
    pub stop_signal: Option<u32>,
    /// When it started, or was found.
    pub time: Mono,
}

/// What is declared of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: Arc<str>,
    /// The signal that stops it, if that is declared.
    pub stop_signal: Option<u32>,
}

/// Why observation of a target ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was terminated: a verdict is due.
    Terminated,
    /// Its termination had begun and was not over when tracing was ended: a verdict is due, at best
    /// unproven.
    Interrupted,
    /// A container was stopped and another took its place in the same pod, as when a liveness probe
    /// fails: a verdict is due, but nobody deleted the pod.
    Restarted,
    /// It ended by itself as it was meant to (a Job), or was not terminated while it was traced: there
    /// is nothing to judge.
    NotTerminated,
}

/// A fact from the host, the API or the rehearsal.
#[derive(Clone, Debug)]
pub enum InventoryUpdate {
    /// A target comes into scope.
    Target(Box<NewTarget>),
    /// The target's names were learned, or changed.
    Named {
        /// Whose.
        target: TargetId,
        /// How it is named in events from now on.
        subject: Arc<Subject>,
        /// What is declared of its containers from now on, by number.
        containers: Vec<(u32, Declared)>,
    },
    /// A container of it.
    Container(NewContainer),
    /// What existed in the target's network namespace when tracing began. Ports are told before the
    /// target is in scope, connections after, when the records of what changed meanwhile were taken.
    Existing {
        /// Whose.
        target: TargetId,
        /// When.
        time: Mono,
        /// Ports that were listened on.
        listening: Vec<u16>,
        /// Connections.
        connections: Vec<(Tuple, TcpState)>,
        /// Number of UDP sockets.
        udp_sockets: u64,
    },
    /// What existed in the target's network namespace could not be listed.
    Unlisted {
        /// Whose.
        target: TargetId,
    },
    /// An endpoint that leads to the target changed.
    Endpoint {
        /// Whose.
        target: TargetId,
        /// When that was received.
        time: Mono,
        /// How it is now.
        endpoint: EndpointEvent,
        /// It was so already when it was first heard of: no event of its own.
        initial: bool,
    },
    /// A reason for which the target's verdict cannot be better than unproven.
    Doubted {
        /// Whose.
        target: TargetId,
        /// Why.
        gap: Gap,
    },
    /// Deletion of the target is known, or the preStop hook of a container starts.
    PreStop {
        /// Whose.
        target: TargetId,
        /// Of one container, or of all.
        container: Option<u32>,
        /// When.
        time: Mono,
        /// How that is known.
        source: Source,
    },
    /// The host found that nothing of a container is left.
    ContainerGone {
        /// Whose.
        target: TargetId,
        /// Which.
        container: u32,
        /// When.
        time: Mono,
    },
    /// Observation of the target ends: its verdict is due.
    Finished {
        /// Whose.
        target: TargetId,
        /// When.
        time: Mono,
        /// Its network interface is gone, and with it all that was still open.
        interface_gone: bool,
        /// Why it ends.
        end: End,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_range_holds_what_it_should() {
        let network: Network = "10.0.0.0/8".parse().unwrap();
        assert!(network.contains("10.255.0.1".parse().unwrap()));
        assert!(!network.contains("11.0.0.1".parse().unwrap()));
        assert!(!network.contains("::1".parse().unwrap()));
        let one: Network = "fd00::1".parse().unwrap();
        assert!(one.contains("fd00::1".parse().unwrap()) && !one.contains("fd00::2".parse().unwrap()));
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("192.0.2.1".parse().unwrap()));
        assert!("10.0.0.0/33".parse::<Network>().is_err());
        assert!("ten".parse::<Network>().is_err());
    }
}
