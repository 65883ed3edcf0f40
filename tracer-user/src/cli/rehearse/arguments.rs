//! What to rehearse, as the command line says it, and what of it does not fit together.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use tracer_core::input::Timeouts;

use super::super::options::{TraceOptions, duration, timeouts};
use crate::rehearse::{
    certificate::Certificate,
    demo,
    load::{LoadPlan, LoadSpec, Protocol},
    ready::Readiness,
    sandbox::{ContainerSpec, User},
    terminate::{StopSignal, TerminationPlan},
};

/// What to rehearse.
#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Rehearse the built-in server instead of a command: it exits at once, or drains
    #[arg(long, value_enum, conflicts_with = "command", required_unless_present = "command")]
    demo: Option<demo::Behaviour>,
    /// The port that takes traffic [default: the lowest that listens]
    #[arg(long)]
    port: Option<u16>,
    /// A path that must answer 2xx before the load begins [default: the port accepts a connection]
    #[arg(long, value_name = "PATH", value_parser = path)]
    ready: Option<String>,
    /// How long the server may take to become ready
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    ready_timeout: Duration,
    /// A variable of the containers' environment; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    env: Vec<(String, String)>,
    /// Whose rights the containers have, by number; the group is 0 if not given
    #[arg(long, value_name = "UID[:GID]")]
    user: Option<User>,
    /// Where the containers start [default: the current directory]
    #[arg(long, value_name = "DIRECTORY")]
    workdir: Option<PathBuf>,
    /// A container beside the server, in the same network namespace, stopped together with it; may be
    /// given more than once. Its words may be quoted as in a shell, but no shell runs it
    #[arg(long, value_name = "NAME=COMMAND", value_parser = container)]
    container: Vec<(String, Vec<String>)>,
    /// A sidecar: as --container, but started before the server and stopped after it has exited, the
    /// last one first
    #[arg(long, value_name = "NAME=COMMAND", value_parser = container)]
    sidecar: Vec<(String, Vec<String>)>,
    /// A file that all output of the containers is appended to
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// The load: groups of clients, such as keep-alive:4,fresh:50/s,long:2:6s,stream:1,upload:1,idle:2
    #[arg(long, value_name = "GROUPS", default_value = "keep-alive:4,fresh:50/s", overrides_with = "load")]
    pub(super) load: LoadSpec,
    /// Clients speak HTTP/2: with --tls agreed on by ALPN, without it by prior knowledge
    #[arg(long)]
    http2: bool,
    /// Clients speak TLS and take any certificate. One is made for the server: its files are named by
    /// LASTPACKET_TLS_CERT and LASTPACKET_TLS_KEY in its environment, and by {cert} and {key} in its words
    #[arg(long)]
    pub(super) tls: bool,
    /// The path that is asked for
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = path)]
    path: String,
    /// The path that long requests ask for; {ms} is their duration [default: /slow?ms={ms}]
    #[arg(long, value_name = "PATH", value_parser = path)]
    long_path: Option<String>,
    /// How long the load runs before termination begins
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(super) warm_up: Duration,
    /// How long new connections keep coming after termination began: the load balancer's delay
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration)]
    pub(super) lag: Duration,
    /// A command to run by sh in the server's namespaces before the stop signal
    #[arg(long, value_name = "COMMAND")]
    pre_stop: Option<String>,
    /// The signal that asks the server to stop, by name or number; containers beside it get SIGTERM
    #[arg(long, value_name = "SIGNAL", default_value = "SIGTERM")]
    stop_signal: StopSignal,
    /// terminationGracePeriodSeconds: preStop and stopping together (after preStop at least 2 s), then
    /// SIGKILL
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    grace: Duration,
    /// How long the load balancer lets connections drain: preStop must be shorter than the grace period,
    /// and that shorter than this
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    lb_timeout: Option<Duration>,
    /// Rehearse so many times: a line for each, then how many ended how; the worst decides the exit code
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) repeat: u32,
    /// Where the clients' think times come from: the same seed gives the same ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    pub(super) options: TraceOptions,
    /// The server and its arguments
    #[arg(last = true)]
    command: Vec<String>,
}

impl Arguments {
    /// Whether what was asked for can be had together.
    ///
    /// # Errors
    /// With what does not fit, and what to leave out or to add.
    pub(super) fn check(&self) -> Result<()> {
        use crate::rehearse::load::Kind;
        let has_long = self.load.0.iter().any(|group| group.kind == Kind::Long);
        ensure!(
            self.long_path.is_none() || has_long,
            "--long-path needs long requests; add long:1:6s to --load"
        );
        let beside = || self.container.iter().chain(&self.sidecar);
        let words = || self.command.iter().chain(beside().flat_map(|(_, words)| words));
        let named = words().any(|word| word.contains("{cert}") || word.contains("{key}"));
        ensure!(
            self.tls || !named,
            "{{cert}} and {{key}} need --tls; add it, so that there is a certificate"
        );
        ensure!(!self.warm_up.is_zero(), "--warm-up 0s leaves no time for a request; give it a second");
        let mut names = BTreeSet::from([self.server_name()]);
        for (name, _) in beside() {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            ensure!(plain, "`{name}` is no name of a container; use letters, digits and dashes");
            ensure!(names.insert(name.clone()), "two containers are called {name}; name one otherwise");
        }
        if let Some(directory) = &self.workdir {
            ensure!(directory.is_dir(), "--workdir {} is no directory; create it first", directory.display());
        }
        Ok(())
    }

    /// All containers, the server first.
    pub(super) fn containers(&self, certificate: Option<&Certificate>) -> Result<Vec<ContainerSpec>> {
        let env =
            || self.env.iter().cloned().chain(certificate.iter().flat_map(|made| made.variables())).collect();
        let spec = |name: String, words: Vec<String>, sidecar| ContainerSpec {
            name,
            words: words
                .iter()
                .map(|word| certificate.map_or(word.clone(), |made| made.fill_in(word)))
                .collect(),
            env: env(),
            user: self.user,
            directory: self.workdir.clone(),
            sidecar,
        };
        let mut specs = vec![spec(self.server_name(), self.words()?, false)];
        specs.extend(self.container.iter().map(|(name, words)| spec(name.clone(), words.clone(), false)));
        specs.extend(self.sidecar.iter().map(|(name, words)| spec(name.clone(), words.clone(), true)));
        Ok(specs)
    }

    fn server_name(&self) -> String {
        if self.demo.is_some() {
            return "demo".to_owned();
        }
        self.command.first().and_then(|word| word.rsplit('/').next()).unwrap_or("server").to_owned()
    }

    /// The command to run: the one given, or ourselves as the demonstration server.
    fn words(&self) -> Result<Vec<String>> {
        let Some(demo) = self.demo else { return Ok(self.command.clone()) };
        let this = std::env::current_exe().context("cannot find this program's own file")?;
        let behaviour = demo.to_possible_value().context("no such demo")?;
        let mut words = vec![this.to_string_lossy().into_owned(), "demo-server".to_owned()];
        words.extend(["--behaviour".to_owned(), behaviour.get_name().to_owned()]);
        words.extend(self.port.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
        words.extend(self.tls.then(|| "--tls".to_owned()));
        Ok(words)
    }

    pub(super) fn protocol(&self) -> Result<Protocol> {
        Protocol::new(self.http2, self.tls).context("cannot prepare TLS")
    }

    pub(super) fn readiness(&self) -> Result<Readiness> {
        let protocol = self.protocol()?;
        Ok(Readiness { port: self.port, path: self.ready.clone(), timeout: self.ready_timeout, protocol })
    }

    pub(super) fn load_plan(&self) -> Result<LoadPlan> {
        let standard = LoadPlan::default();
        Ok(LoadPlan {
            spec: self.load.clone(),
            path: self.path.clone(),
            long_path: self.long_path.clone().unwrap_or(standard.long_path),
            seed: self.seed,
            protocol: self.protocol()?,
        })
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        timeouts(Some(self.grace), self.lb_timeout)
    }

    /// Number of the signal that is to stop the server.
    pub(super) fn stop_signal(&self) -> u32 {
        self.stop_signal.number().unsigned_abs()
    }

    pub(super) fn termination_plan(&self) -> TerminationPlan {
        let pre_stop = self.pre_stop.as_deref().map(shell);
        TerminationPlan { pre_stop, stop_signal: self.stop_signal, grace: self.grace }
    }
}

fn shell(text: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with /".to_owned()) }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` has no name; write NAME=…")),
    }
}

/// A container's name and its words.
fn container(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, command) = assignment(text)?;
    match shlex::split(&command) {
        Some(words) if !words.is_empty() => Ok((name, words)),
        Some(_) => Err(format!("the container {name} has no command; write {name}=COMMAND")),
        None => Err(format!("a quote in `{command}` is not closed")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(text: &str) -> Arguments {
        Line::try_parse_from(std::iter::once("rehearse").chain(text.split(' '))).unwrap().arguments
    }

    #[test]
    fn what_does_not_fit_is_told_with_a_remedy() {
        for (text, told) in [
            ("--long-path /x -- server", "add long:1:6s"),
            ("-- server {cert}", "need --tls"),
            ("--container a=x --sidecar a=y -- server", "two containers are called a"),
            ("--container server=x -- /bin/server", "two containers are called server"),
            ("--container a/b=x -- server", "no name"),
            ("--workdir /no/such -- server", "no directory"),
            ("--warm-up 0s -- server", "no time"),
        ] {
            let error = arguments(text).check().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn commands_of_containers_are_split_as_by_a_shell() {
        let words = |text| container(text).map(|(_, words)| words);
        assert_eq!(words("a=sh -c 'sleep 1'").unwrap(), ["sh", "-c", "sleep 1"]);
        assert!(words("a=").unwrap_err().contains("no command"));
        assert!(words("a=sh -c 'x").unwrap_err().contains("quote"));
        assert!(words("=x").unwrap_err().contains("no name"));
    }

    #[test]
    fn containers_are_the_server_and_those_beside_it() {
        let arguments = arguments("--container a=x --sidecar b=y --env K=V --user 7:8 -- /bin/server 1");
        arguments.check().unwrap();
        let specs = arguments.containers(None).unwrap();
        let names: Vec<_> = specs.iter().map(|spec| (spec.name.as_str(), spec.sidecar)).collect();
        assert_eq!(names, [("server", false), ("a", false), ("b", true)]);
        assert_eq!(specs[0].words, ["/bin/server", "1"]);
        assert_eq!(specs[1].words, ["x"]);
        assert!(specs.iter().all(|spec| spec.user == Some(User { uid: 7, gid: 8 }) && spec.env.len() == 1));
    }
}
