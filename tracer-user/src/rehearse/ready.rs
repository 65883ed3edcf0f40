//! Waiting until the server can be sent traffic, as a readiness probe decides it.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use hyper::Method;
use tokio::time::{Instant, sleep};

use super::{
    listeners::listeners,
    load::{Connection, Exchange, Message, Protocol},
    sandbox::{CHECKER, Container, Namespaces, SERVER, Sandbox},
};

const DETECTION_INTERVAL: Duration = Duration::from_millis(10);
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// As a kubelet's default `timeoutSeconds`.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// When a server counts as ready.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// The port that takes traffic; none: the first that listens.
    pub port: Option<u16>,
    /// A path that must answer 2xx over HTTP; none: the port must accept a connection.
    pub path: Option<String>,
    /// How long it may take from the call on.
    pub timeout: Duration,
    /// What the checker speaks.
    pub protocol: Protocol,
}

/// Waits until the server is ready and returns the address to send traffic to.
///
/// Errors: the server ended, or was not ready in time; both show what it printed last.
pub async fn wait_ready(sandbox: &Sandbox, readiness: &Readiness) -> Result<SocketAddr> {
    let deadline = Instant::now() + readiness.timeout;
    let mut missing = String::from("it listens on no port");
    let ready = async {
        let target = loop {
            match choose(&sandbox.namespaces().listeners().await?, readiness.port) {
                Ok(target) => break target,
                Err(reason) => missing = reason,
            }
            sleep(DETECTION_INTERVAL).await;
        };
        while let Err(reason) = check(sandbox, target, readiness).await? {
            missing = reason;
            sleep(CHECK_INTERVAL).await;
        }
        Ok(target)
    };
    tokio::select! {
        ready = ready => return ready,
        ended = sandbox.any_exited() => {
            let (container, exit) = ended?;
            container.output().complete().await;
            let name = called(sandbox, container);
            bail!("{name} ended before the server was ready ({}); {}", exit.status, last_output(container));
        }
        () = tokio::time::sleep_until(deadline) => {}
    }
    bail!(
        "the server was not ready within {:?}: {missing}; {}",
        readiness.timeout,
        last_output(sandbox.main())
    )
}

/// What a container printed last, in words.
pub(crate) fn last_output(container: &Container) -> String {
    match container.output().last_lines(20) {
        lines if lines.is_empty() => "it printed nothing".to_owned(),
        lines => format!("it printed last:\n{lines}"),
    }
}

/// What a container is called in messages.
pub(crate) fn called(sandbox: &Sandbox, container: &Container) -> String {
    if container.pid() == sandbox.main().pid() {
        "the server".to_owned()
    } else {
        format!("the container {}", container.spec().name)
    }
}

impl Namespaces {
    /// The sockets that listen in the server's netns now. Errors: the sandbox is broken.
    pub async fn listeners(&self) -> Result<Vec<SocketAddr>> {
        self.run_inside(|| {
            // A kernel without IPv6 has no tcp6.
            let tables =
                ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")));
            tables.iter().flatten().flat_map(|table| listeners(table)).collect()
        })
        .await
    }
}

/// The address across the veth that reaches one of `listeners`, or why there is none.
fn choose(listeners: &[SocketAddr], port: Option<u16>) -> Result<SocketAddr, String> {
    let wanted = || listeners.iter().filter(|listener| port.is_none_or(|port| listener.port() == port));
    let reachable = wanted().filter_map(|listener| reachable(*listener));
    // IPv4 first, where something listens on it: whether an IPv6 socket takes it too is not told.
    if let Some(target) = reachable.min_by_key(|target| (target.port(), target.is_ipv6())) {
        return Ok(target);
    }
    Err(match (wanted().next(), port) {
        (Some(loopback), _) => format!("it listens on {loopback} only; let it listen on 0.0.0.0"),
        (None, Some(port)) => format!("nothing listens on port {port}; see --port"),
        (None, None) => "it listens on no port".to_owned(),
    })
}

fn reachable(listener: SocketAddr) -> Option<SocketAddr> {
    let ip = listener.ip().to_canonical();
    let server = SERVER.matching(ip);
    (ip.is_unspecified() || ip == server).then_some(SocketAddr::new(server, listener.port()))
}

/// One check from the checker's address: the inner error says why the server is not ready yet.
async fn check(sandbox: &Sandbox, target: SocketAddr, readiness: &Readiness) -> Result<Result<(), String>> {
    let source = CHECKER.matching(target.ip());
    let (path, protocol) = (readiness.path.clone(), readiness.protocol.clone());
    let once = async move {
        let mut connection = Connection::open(source, target, &protocol)
            .await
            .map_err(|failure| format!("{} {}", failure.cause, failure.phase))?;
        let Some(path) = path else { return Ok(()) };
        let message = Message { close: true, ..Message::new(Method::GET, path) };
        match connection.exchange(&message).await {
            Exchange::Answered { status: 200..=299, .. } => Ok(()),
            Exchange::Answered { status, .. } => Err(format!("{} answered {status}", message.path)),
            Exchange::NotSent => Err(format!("{} gave no answer", message.path)),
            Exchange::Failed { cause, .. } => Err(format!("{}: {cause}", message.path)),
        }
    };
    let limited = async { tokio::time::timeout(CHECK_TIMEOUT, once).await };
    let checked = sandbox.namespaces().clients().runtime().spawn(limited).await?;
    Ok(checked.unwrap_or_else(|_| Err(format!("no answer within {CHECK_TIMEOUT:?}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(listeners: &[&str], port: Option<u16>) -> Result<String, String> {
        let listeners: Vec<SocketAddr> = listeners.iter().map(|listener| listener.parse().unwrap()).collect();
        choose(&listeners, port).map(|target| target.to_string())
    }

    #[test]
    fn chooses_what_can_be_reached() {
        assert_eq!(chosen(&["127.0.0.1:1", "0.0.0.0:8080"], None).unwrap(), "10.99.0.2:8080");
        assert_eq!(chosen(&["[::]:80", "0.0.0.0:80"], None).unwrap(), "10.99.0.2:80");
        assert_eq!(chosen(&["[::]:80"], None).unwrap(), "[fd99::2]:80");
        assert_eq!(chosen(&["0.0.0.0:80", "0.0.0.0:8080"], Some(8080)).unwrap(), "10.99.0.2:8080");
    }

    #[test]
    fn says_why_nothing_can_be_reached() {
        assert!(chosen(&[], None).unwrap_err().contains("no port"));
        assert!(chosen(&["127.0.0.1:80"], None).unwrap_err().contains("0.0.0.0"));
        assert!(chosen(&["0.0.0.0:80"], Some(81)).unwrap_err().contains("--port"));
    }
}
