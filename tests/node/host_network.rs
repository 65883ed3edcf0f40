//! A pod on the host network: it shares addresses and counters with the node, and only its cgroup tells
//! what is its own.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lastpacket_tests::events::Events;
use socket2::{Domain, Socket, Type};
use tracer_core::{
    output::Endpoint,
    words::{Ending, Phase, Result as Answer},
};

use crate::{
    agent::Agent,
    agreement::lines_of,
    cases::{has_finding, phases, short},
    cluster,
    pod::{ContainerPlan, Pod, PodPlan},
};

/// Its port is refused when it has exited; another port of the node, at the same time, is none of its own.
pub fn alone() -> Result<()> {
    let node = cluster::node()?;
    let (here, nowhere) = (free_address()?, free_address()?);
    let plan = PodPlan::of("web-host", vec![ContainerPlan::httpd_at(here)]).on_host_network();
    let pod = Pod::run(node, &plan)?;
    let (uid, name) = (pod.uid().to_owned(), short(&pod, "httpd")?);
    let mut agent = Agent::without_api([&pod])?;
    let answered = ask(here)?;
    pod.stop_containers(Duration::from_secs(1))?;
    let (refused, elsewhere) = (refused(here)?, refused(nowhere)?);
    pod.stop_sandbox()?;
    pod.remove()?;
    agent.wait_for_verdicts(&uid, 1)?;
    let lines = lines_of(&agent.finish()?, &uid);
    let verdict = lines.verdict()?;
    ensure!(verdict.result == Answer::Cut, "{:?}: {:?}", verdict.result, verdict.reasons);
    let expected = [Phase::Running, Phase::StopSignal, Phase::KillSignal, Phase::Exiting, Phase::AfterExit];
    ensure!(phases(verdict, &name)? == expected, "{:?}", verdict.containers);
    has_finding(verdict, "stop-signal-ignored")?;
    // The connection that was answered ended before the pod was recorded.
    ensure!(!lines.closed().iter().any(|event| event.network.peer == answered), "{lines:#?}");
    let resets = lines.resets();
    let of = |peer| resets.iter().filter(move |event| event.network.peer == peer).collect::<Vec<_>>();
    let told = of(refused);
    ensure!(told.len() == 1 && told[0].ending == Some(Ending::Refused), "{resets:#?}");
    ensure!(told[0].phase == Phase::AfterExit && *told[0].container.name == *name, "{told:#?}");
    ensure!(of(elsewhere).is_empty(), "{resets:#?}");
    Ok(())
}

/// An address of the machine's own loopback on which nothing listens.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Asks once it listens; gives the client's own end.
fn ask(address: SocketAddr) -> Result<Endpoint> {
    for _ in 0..100 {
        if let Ok(mut client) = TcpStream::connect(address) {
            client.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            client.read_to_string(&mut answer)?;
            ensure!(answer.ends_with("ok\n"), "{answer}");
            return Ok(endpoint(client.local_addr()?));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("nothing listens on {address}")
}

/// Connects in vain; gives the client's own end.
fn refused(address: SocketAddr) -> Result<Endpoint> {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    client.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let local = client.local_addr()?.as_socket().context("no address")?;
    ensure!(client.connect(&address.into()).is_err(), "something listens on {address}");
    Ok(endpoint(local))
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { address: address.ip(), port: address.port() }
}
