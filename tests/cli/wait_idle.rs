//! `lastpacket wait-idle` as nobody, without any capability, against real connections; how many there
//! were, and until when, is what the clients know.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use lastpacket_tests::{needs, netns::Namespace};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::program::{self, Copy, ensure_one_sentence};

pub fn trials() -> Vec<Trial> {
    vec![
        needs::live("wait_idle::a_port_without_connections_is_idle", no_connections),
        needs::live("wait_idle::it_waits_for_the_last_connection", last_connection),
        needs::live("wait_idle::the_time_is_up_and_it_says_who_is_connected", time_is_up),
        needs::live("wait_idle::connections_between_two_looks_count", short_connections),
        needs::live("wait_idle::ignored_peers_do_not_count", ignored_peers),
        needs::live("wait_idle::a_listener_for_both_protocols", both_protocols),
        needs::live("wait_idle::a_connection_that_nobody_accepted_counts", not_accepted),
        needs::live("wait_idle::the_hook_of_the_documentation", documented_hook),
        needs::live("wait_idle::it_copies_itself_to_other_containers", copies_itself),
    ]
}

const QUIET: Duration = Duration::from_millis(600);

/// A server in a network namespace of its own that reads every connection to its end, then closes it.
struct Server {
    namespace: Namespace,
    port: u16,
}

impl Server {
    fn new(address: &str) -> Result<Self> {
        let namespace = Namespace::new()?;
        let listener = namespace.enter(|| Ok(TcpListener::bind(address)?))?;
        let port = listener.local_addr()?.port();
        // It ends with the test's process: nothing tells it to.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || drop((&stream).read_to_end(&mut Vec::new())));
            }
        });
        Ok(Self { namespace, port })
    }

    fn connect(&self, address: IpAddr) -> Result<TcpStream> {
        let to = SocketAddr::new(address, self.port);
        self.namespace.enter(|| TcpStream::connect(to).context("cannot connect"))
    }

    /// Starts waiting for this port.
    fn wait_idle(&self, more: &[&str]) -> Result<Waiting> {
        let copy = Copy::new()?;
        let (port, quiet) = (self.port.to_string(), format!("{}ms", QUIET.as_millis()));
        let mut arguments = vec!["wait-idle", "--port", &port, "--quiet", &quiet];
        arguments.extend(more);
        let mut command = copy.as_nobody(&arguments);
        let began = Instant::now();
        let child = self.namespace.enter(|| Ok(command.spawn()?))?;
        // Its first look, on a machine that is busy with other tests.
        thread::sleep(Duration::from_millis(200));
        Ok(Waiting { _copy: copy, began, end: thread::spawn(|| program::end(child)) })
    }
}

struct Waiting {
    _copy: Copy,
    began: Instant,
    end: JoinHandle<Result<program::Ended>>,
}

impl Waiting {
    /// Its answer, and how long it took.
    fn answer(self) -> Result<(Value, Duration)> {
        let ended = self.end.join().map_err(|_| anyhow!("the reader panicked"))??;
        let took = self.began.elapsed();
        let answer: Value = serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
        let code = if answer["idle"] == true { 0 } else { 1 };
        ensure!(ended.status.code() == Some(code), "{}: {answer}", ended.status);
        Ok((answer, took))
    }
}

fn localhost() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

fn no_connections() -> Result<()> {
    let server = Server::new("127.0.0.1:0")?;
    let (answer, took) = server.wait_idle(&[])?.answer()?;
    ensure!(answer["idle"] == true && answer["not_listening"] == serde_json::json!([]), "{answer}");
    ensure!(took >= QUIET, "{took:?}");
    let elsewhere = Server { port: 1, ..server };
    let (answer, _) = elsewhere.wait_idle(&[])?.answer()?;
    ensure!(answer["not_listening"] == serde_json::json!([1]), "{answer}");
    Ok(())
}

fn last_connection() -> Result<()> {
    let server = Server::new("127.0.0.1:0")?;
    let client = server.connect(localhost())?;
    let waiting = server.wait_idle(&[])?;
    thread::sleep(2 * QUIET);
    let closed = Instant::now();
    drop(client);
    let (answer, _) = waiting.answer()?;
    ensure!(answer["idle"] == true && answer["ended"] == 1, "{answer}");
    ensure!(closed.elapsed() >= QUIET, "{:?} after the end", closed.elapsed());
    Ok(())
}

fn time_is_up() -> Result<()> {
    let server = Server::new("127.0.0.1:0")?;
    let _clients = [server.connect(localhost())?, server.connect(localhost())?];
    let (answer, took) = server.wait_idle(&["--timeout", "900ms"])?.answer()?;
    ensure!(took >= Duration::from_millis(900), "{took:?}");
    ensure!(answer["idle"] == false && answer["open"] == 2, "{answer}");
    ensure!(answer["peers"] == serde_json::json!([{"address": "127.0.0.1", "open": 2}]), "{answer}");
    Ok(())
}

/// Each lives for some microseconds, and leaves nothing behind: the client closes first.
fn short_connections() -> Result<()> {
    let server = Server::new("127.0.0.1:0")?;
    let waiting = server.wait_idle(&["--timeout", "30s"])?;
    let count = 20;
    for _ in 1..count {
        drop(server.connect(localhost())?);
        thread::sleep(QUIET / 6);
    }
    let last = server.connect(localhost())?;
    let ended = Instant::now();
    drop(last);
    let (answer, _) = waiting.answer()?;
    ensure!(answer["idle"] == true && answer["ended"] == count && answer["missed"] == false, "{answer}");
    ensure!(ended.elapsed() >= QUIET, "{:?} after the last", ended.elapsed());
    Ok(())
}

fn ignored_peers() -> Result<()> {
    let server = Server::new("127.0.0.1:0")?;
    let _open = server.connect(localhost())?;
    let waiting = server.wait_idle(&["--ignore-peer", "127.0.0.0/8", "--timeout", "30s"])?;
    drop(server.connect(localhost())?);
    let (answer, _) = waiting.answer()?;
    ensure!(answer["idle"] == true && answer["ended"] == 0 && answer["ignored"] == 1, "{answer}");
    Ok(())
}

fn both_protocols() -> Result<()> {
    let server = Server::new("[::]:0")?;
    let clients = [server.connect(localhost())?, server.connect("::1".parse()?)?];
    let (answer, _) = server.wait_idle(&["--timeout", "500ms"])?.answer()?;
    let peers = serde_json::json!([{"address": "127.0.0.1", "open": 1}, {"address": "::1", "open": 1}]);
    ensure!(answer["peers"] == peers, "{answer}");
    let waiting = server.wait_idle(&["--timeout", "30s", "--ignore-peer", "127.0.0.1"])?;
    drop(clients);
    let (answer, _) = waiting.answer()?;
    ensure!(answer["idle"] == true && answer["ended"] == 1 && answer["ignored"] == 1, "{answer}");
    Ok(())
}

fn not_accepted() -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = namespace.enter(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let server = Server { namespace, port: listener.local_addr()?.port() };
    let client = server.connect(localhost())?;
    let (answer, _) = server.wait_idle(&["--timeout", "500ms"])?.answer()?;
    ensure!(answer["open"] == 1, "{answer}");
    drop(client);
    Ok(())
}

/// As a kubelet runs it: the words of the manifest, with the pod's environment.
fn documented_hook() -> Result<()> {
    let page = include_str!("../../docs/wait-idle.md");
    let script = page.lines().find_map(|line| line.trim().strip_prefix("- exec /lastpacket-bin/lastpacket "));
    let (copy, node) = (Copy::new()?, IpAddr::from([127, 0, 0, 1]));
    let script = format!("exec {} {}", copy.path(), script.context("there is no hook in the manifest")?);
    let server = Server::new("0.0.0.0:8080")?;
    // A probe that never ends, and a client.
    let _probe = server.connect(node)?;
    server.namespace.ip("addr add 127.0.0.9/32 dev lo\n")?;
    let client = server.connect(IpAddr::from([127, 0, 0, 9]))?;
    ensure!(client.local_addr()?.ip() != node, "the client has the node's address");
    let began = Instant::now();
    let child = server.namespace.enter(|| {
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("NODE_IP", node.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command.spawn()?)
    })?;
    thread::sleep(Duration::from_secs(1));
    drop(client);
    let ended = program::end(child)?;
    ensure!(ended.status.success(), "{ended:?}");
    let took = began.elapsed();
    ensure!(
        (Duration::from_secs(4)..Duration::from_secs(20)).contains(&took),
        "a second and the quiet time: {took:?}"
    );
    let answer: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(answer["idle"] == true && answer["ended"] == 1, "{answer}");
    Ok(())
}

fn copies_itself() -> Result<()> {
    let file = std::env::temp_dir().join(format!("lastpacket-copy-{}", std::process::id()));
    let path = file.to_str().context("no text")?;
    let copied = program::run(program::lastpacket(["wait-idle", "--copy-to", path])?)?;
    ensure!(copied.status.success(), "{copied:?}");
    let mode = file.metadata()?.permissions().mode();
    let runs = Command::new(&file).arg("--version").output();
    std::fs::remove_file(&file)?;
    ensure!(mode & 0o111 == 0o111 && runs?.status.success(), "{mode:o}");
    let nowhere = program::run(program::lastpacket(["wait-idle", "--copy-to", "/no/such/folder/file"])?)?;
    ensure_one_sentence(&nowhere, &["cannot copy to /no/such/folder/file", "mount a volume"])
}
