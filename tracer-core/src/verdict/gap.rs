//! What spoils a proof, in words that a verdict's reasons give.

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// A book does not balance.
    Unbalanced {
        /// Which.
        book: String,
        /// What the kernel counted.
        kernel: u64,
        /// What the events add up to.
        events: u64,
    },
    /// OutRsts alone does not balance: resets over IPv6 were traced and not sent.
    NoRouteBack {
        /// What the kernel counted.
        kernel: u64,
        /// What the events add up to.
        events: u64,
    },
    /// OutRsts alone does not balance: the kernel counted resets that it then could not send.
    AbortsFailed {
        /// What the kernel counted.
        kernel: u64,
        /// What the events add up to.
        events: u64,
    },
    /// Records were lost on their way from the kernel.
    RecordsLost(u64),
    /// Events that the kernel did not show, because a program was running already on that CPU.
    Missed(u64),
    /// Whether there were such events could not be read.
    MissedUnknown,
    /// Tracing began after termination did.
    Late,
    /// Tracing was ended before the target.
    Interrupted,
    /// The kernel's totals could not be read.
    NoTotals,
    /// Connections and listeners that existed could not be listed.
    Unlisted,
    /// The network namespace is shared, so that there are no totals of its own.
    SharedNetwork,
    /// The container's exit was not seen.
    NoExit,
    /// Its connections are not the host kernel's, but of a kernel of its own, by this name.
    ForeignNetwork(String),
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unbalanced { book, kernel, events } => {
                write!(f, "the book {book} does not balance: the kernel counted {kernel}, the events add up to {events}")
            }
            Self::NoRouteBack { kernel, events } => write!(
                f,
                "the book OutRsts does not balance: the kernel counted {kernel}, the events add up to {events}; of this kind alone are resets over IPv6 without a route back to the peer, which are traced and not sent"
            ),
            Self::AbortsFailed { kernel, events } => write!(
                f,
                "the book OutRsts does not balance: the kernel counted {kernel}, the events add up to {events}; it counts resets that it has no memory to send (TCPAbortFailed), and does not show them"
            ),
            Self::RecordsLost(count) => write!(f, "{count} records were lost on their way from the kernel"),
            Self::Missed(count) => write!(f, "the kernel skipped a program {count} times"),
            Self::MissedUnknown => f.write_str("whether the kernel skipped a program could not be read (/proc/self/fdinfo)"),
            Self::Late => f.write_str("tracing began after the termination did"),
            Self::Interrupted => f.write_str("tracing was ended before the termination was over"),
            Self::NoTotals => f.write_str("the kernel's own totals of the network namespace could not be read"),
            Self::Unlisted => f.write_str("the connections that were open before tracing could not be listed (sock_diag)"),
            Self::SharedNetwork => f.write_str("the network namespace is shared with others, so that it has no totals of its own (host network)"),
            Self::NoExit => f.write_str("the exit was not seen"),
            Self::ForeignNetwork(name) => {
                write!(f, "its network is not the host kernel's, but that of {name}, which cannot be seen from outside")
            }
        }
    }
}
