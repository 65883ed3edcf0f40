//! A target's connections: openings, ends, resets.

use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Container;
use crate::{
    event::{Mono, SegmentClass, Tuple},
    words::{Cause, ClosedBy, Confidence, Direction, Ending, Hop, Origin, Phase, Role},
};

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// IPv4 or IPv6; an IPv4 client of an IPv6 listener is IPv4.
    #[serde(rename = "type")]
    pub kind: NetworkType,
    /// The pod's end.
    pub local: Endpoint,
    /// The other end; a listener's reset by its own act has none (0.0.0.0:0).
    pub peer: Endpoint,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl From<&Tuple> for Network {
    fn from(tuple: &Tuple) -> Self {
        let (local, peer) = (tuple.local_ip(), tuple.peer_ip());
        Self {
            kind: if peer.is_ipv4() { NetworkType::Ipv4 } else { NetworkType::Ipv6 },
            local: Endpoint { address: local, port: tuple.local_port },
            peer: Endpoint { address: peer, port: tuple.peer_port },
        }
    }
}

/// A connection was opened or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionEvent {
    /// Which container.
    pub container: Container,
    /// Where it was, when the connection was opened or the pod closed it.
    pub phase: Phase,
    /// What made the container exit, from the phase exiting on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Both ends.
    pub network: Network,
    /// Which side opened it.
    pub role: Role,
    /// Who the peer is.
    pub origin: Origin,
    /// How far it goes.
    pub hop: Hop,
    /// CLOCK_MONOTONIC of its opening in nanoseconds; absent if it was found open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_mono_ns: Option<Mono>,
    /// How it ended; absent while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<ConnectionEnd>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionEnd {
    /// How.
    pub ending: Ending,
    /// How sure it is that a client lost something; absent if nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// Who closed the pod's side; absent if it did not close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<ClosedBy>,
    /// All that the pod sent was acknowledged.
    pub delivered: bool,
    /// `tcp_sock.bytes_received`: payload, and 1 for a FIN.
    pub bytes_received: u64,
    /// `tcp_sock.bytes_acked`: payload, and 1 each for SYN and FIN.
    pub bytes_acked: u64,
}

/// A reset was sent or received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetEvent {
    /// Which container.
    pub container: Container,
    /// Where it was.
    pub phase: Phase,
    /// What made the container exit, from the phase exiting on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Who sent it.
    pub direction: Direction,
    /// The kernel's reason (`enum sk_rst_reason`), where it has one (from 6.10 on).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// What the segment that drew it looked like; absent if it was our own act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentClass>,
    /// Both ends.
    pub network: Network,
    /// Which side opened the connection.
    pub role: Role,
    /// Who the peer is.
    pub origin: Origin,
    /// How far it goes.
    pub hop: Hop,
    /// How the connection ended by it; absent while that is not known (the connection is live).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// How sure it is that a client lost something; absent if nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
}
