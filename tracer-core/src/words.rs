//! The words of the field, as they stand in events: phases, causes, endings, roles.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares an enum whose variants are the words of one question, with their spelling in events.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word, as it stands in events, metrics and docs.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words! {
    /// Where a container is on its way out.
    Phase {
        /// It runs.
        Running = "running",
        /// Its deletion is known, or its preStop hook runs.
        PreStop = "pre_stop",
        /// The runtime sent the stop signal.
        StopSignal = "stop_signal",
        /// Somebody outside sent SIGKILL, or the out-of-memory killer did.
        KillSignal = "kill_signal",
        /// Its init exits, and with it all that depends on it.
        Exiting = "exiting",
        /// Nothing of it is left; its network namespace may be.
        AfterExit = "after_exit",
    }
}

words! {
    /// What made a container exit.
    Cause {
        /// The stop signal.
        StopSignal = "stop_signal",
        /// SIGKILL from outside.
        KillSignal = "kill_signal",
        /// The out-of-memory killer.
        Oom = "oom",
        /// Itself.
        Itself = "self",
    }
}

words! {
    /// How a connection ended.
    Ending {
        /// The peer closed first; all data was read and delivered.
        PeerClosed = "peer_closed",
        /// The pod closed; the last data was its answer, and was delivered.
        IdleClosed = "idle_closed",
        /// A reset after the close, drawn by a segment that carried no request.
        LateClose = "late_close",
        /// A reset after the close, drawn by a request: it raced with the close.
        LateData = "late_data",
        /// A reset of a connection with unread data.
        ResetUnread = "reset_unread",
        /// A reset by the application's own act.
        ResetAbort = "reset_abort",
        /// A reset of a connection that the application had never accepted.
        ResetBacklog = "reset_backlog",
        /// A FIN after data that got no answer: the client reads EOF.
        Unanswered = "unanswered",
        /// Closed while a response was under way.
        MidResponse = "mid_response",
        /// A reset to a SYN with nothing listening.
        Refused = "refused",
        /// A reset to the end of a handshake whose listener had gone.
        RefusedHandshake = "refused_handshake",
        /// The listener's queue was full: the client gets no answer at all.
        Dropped = "dropped",
        /// The peer sent a reset.
        PeerReset = "peer_reset",
        /// The kernel gave up on a peer that did not answer.
        TimedOut = "timed_out",
        /// The kernel gave the socket up within the handshake: two of its segments met on two CPUs, and
        /// the connection goes on in the other's socket.
        NeverEstablished = "never_established",
        /// Still open when the network interface went.
        OpenAtTeardown = "open_at_teardown",
    }
}

words! {
    /// How sure it is that a client lost something.
    Confidence {
        /// Cannot be told from harmless.
        Possible = "possible",
        /// Harmless only if the protocol is unusual.
        Likely = "likely",
        /// A client that was waiting lost its request or response.
        Certain = "certain",
    }
}

words! {
    /// Which side opened the connection.
    Role {
        /// The peer connected to the pod.
        Server = "server",
        /// The pod connected to the peer: never a loss of the pod's clients.
        Client = "client",
        /// Opened before tracing, and nothing tells which side did.
        Unknown = "unknown",
    }
}

words! {
    /// Who the peer is.
    Origin {
        /// A client, as far as can be told.
        Peer = "peer",
        /// A health checker, declared as such.
        Checker = "checker",
        /// The kubelet's own probe.
        KubeletProbe = "kubelet_probe",
        /// A peer none of whose connections carried payload.
        SuspectedChecker = "suspected_checker",
    }
}

words! {
    /// How far the connection goes.
    Hop {
        /// Within the pod: sidecar to application.
        Loopback = "loopback",
        /// From or to another network namespace.
        External = "external",
    }
}

words! {
    /// Who closed the pod's side.
    ClosedBy {
        /// A running task called close or shutdown.
        Application = "application",
        /// The kernel closed what an exiting process left open.
        Exit = "exit",
        /// A kernel thread, on nobody's behalf.
        Kernel = "kernel",
    }
}

words! {
    /// Direction of a reset, from the pod's view.
    Direction {
        /// The pod's kernel sent it.
        Sent = "sent",
        /// The peer sent it.
        Received = "received",
    }
}

words! {
    /// The answer to the one question.
    Result {
        /// Traffic had stopped, and nothing was lost.
        Drained = "drained",
        /// Nothing was lost, by luck: traffic had not stopped.
        Late = "late",
        /// Clients lost requests or responses.
        Cut = "cut",
        /// There was no traffic to judge.
        Idle = "idle",
        /// No loss was seen, but the proof is incomplete.
        Unproven = "unproven",
    }
}

/// What a connection's or reset's ending means to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judgement {
    /// How it ended.
    pub ending: Ending,
    /// How sure it is that a client lost something; absent if nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
}

impl Judgement {
    /// Nobody lost anything.
    #[must_use]
    pub fn harmless(ending: Ending) -> Self {
        Self { ending, confidence: None }
    }

    /// Somebody lost something, with this confidence.
    #[must_use]
    pub fn loss(ending: Ending, confidence: Confidence) -> Self {
        Self { ending, confidence: Some(confidence) }
    }

    /// A certain or likely loss makes the verdict `cut`.
    #[must_use]
    pub fn cuts(&self) -> bool {
        self.confidence >= Some(Confidence::Likely)
    }
}
