//! The tracers that are compared: ours in its states, and the alternatives that people use.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{pod::Pod, toolbox::Toolbox};
use crate::{apt, shell};

/// Time for a tracer to attach, after which it is still there or has failed.
const ATTACHES: Duration = Duration::from_secs(4);
/// What bpftrace runs: the same tracepoints as tcpstates and a reset tracer, a line an event.
const ONE_LINER: &str = r#"
tracepoint:sock:inet_sock_set_state /args.protocol == 6/ { printf("%d %d %d %d\n", args.sport, args.dport, args.oldstate, args.newstate); }
tracepoint:tcp:tcp_send_reset { printf("reset %d\n", args.state); }"#;

/// A way to run the traced program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Nobody traces.
    Untraced,
    /// The agent knows the pod, which is not terminating.
    Known,
    /// The pod is armed: all records are sent and written as JSON.
    Armed,
    /// `tcpstates` of libbpf-tools.
    Tcpstates,
    /// A one-liner on the same tracepoints.
    Bpftrace,
    /// A capture of resets.
    Tcpdump,
}

impl Variant {
    /// All of them, in the order of a round.
    pub(crate) const ALL: [Self; 6] =
        [Self::Untraced, Self::Known, Self::Armed, Self::Tcpstates, Self::Bpftrace, Self::Tcpdump];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Untraced => "untraced",
            Self::Known => "known to the agent",
            Self::Armed => "armed, all records sent",
            Self::Tcpstates => "tcpstates",
            Self::Bpftrace => "bpftrace",
            Self::Tcpdump => "tcpdump of resets",
        }
    }
}

/// A tracer that runs; ended when dropped.
pub(crate) struct Tracer {
    child: Option<Child>,
}

/// What is needed to start tracers.
pub(crate) struct Tracers {
    lastpacket: PathBuf,
    toolbox: Option<Toolbox>,
}

impl Tracers {
    /// With the release binary and the tools of others.
    pub(crate) fn new(lastpacket: PathBuf) -> Result<Self> {
        if shell::find("tcpdump").is_none() {
            apt::install(&["tcpdump"])?;
        }
        Ok(Self { lastpacket, toolbox: Some(Toolbox::prepare()?) })
    }

    /// With the release binary alone.
    pub(crate) fn ours(lastpacket: PathBuf) -> Self {
        Self { lastpacket, toolbox: None }
    }

    fn theirs(&self, words: &[&str]) -> Result<Command> {
        Ok(self.toolbox.as_ref().context("the tools of others are not there")?.command(words))
    }

    /// Starts the tracer of a variant for `pod` and waits until it is attached.
    pub(crate) fn start(&self, variant: Variant, pod: &Pod) -> Result<Tracer> {
        let mut command = match variant {
            Variant::Untraced => return Ok(Tracer { child: None }),
            Variant::Known => {
                let mut agent = Command::new(&self.lastpacket);
                agent.args(["agent", "--without-api", "--listen", "127.0.0.1:0"]);
                agent
            }
            Variant::Armed => {
                let mut trace = Command::new(&self.lastpacket);
                trace.args(["trace", "--format", "json", "--pid", &pod.pid().to_string()]);
                trace
            }
            Variant::Tcpstates => self.theirs(&["/usr/sbin/tcpstates-libbpf"])?,
            Variant::Bpftrace => self.theirs(&["/usr/bin/bpftrace", "-e", ONE_LINER])?,
            Variant::Tcpdump => {
                let mut capture = Command::new("nsenter");
                capture.arg(format!("--net=/proc/{}/ns/net", pod.pid()));
                capture.args(["tcpdump", "-n", "-i", "lo", "tcp[tcpflags] & tcp-rst != 0"]);
                capture
            }
        };
        // All write to the same nothing: a reader of lines would be one more that needs a core.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot run {}", variant.name()))?;
        let mut tracer = Tracer { child: Some(child) };
        tracer.wait_for_attachment(variant)?;
        Ok(tracer)
    }
}

impl Tracer {
    /// Process ids of the tracer and of what it started.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let Some(child) = &self.child else { return Vec::new() };
        let mut pids = vec![child.id()];
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            pids.extend(
                children.unwrap_or_default().split_whitespace().filter_map(|word| word.parse::<u32>().ok()),
            );
            next += 1;
        }
        pids
    }

    fn wait_for_attachment(&mut self, variant: Variant) -> Result<()> {
        std::thread::sleep(ATTACHES);
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        match ended {
            Some(status) => anyhow::bail!("{} ended at once ({status})", variant.name()),
            None => Ok(()),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // `unshare --kill-child` takes what it started with it.
        let _ = child.kill();
        let _ = child.wait();
    }
}
