//! A veth pair between the network namespaces of two pods.

use std::{net::Ipv4Addr, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::pod::Pod;
use crate::shell;

/// The address of the end that is traced.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The other end's.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// Links two pods; the link goes with their namespaces.
pub(crate) fn link(server: &Pod, client: &Pod) -> Result<()> {
    let (server_pid, client_pid) = (server.pid().to_string(), client.pid().to_string());
    let pair = ["link", "add", "veth0", "netns", &server_pid, "type", "veth"];
    let peer = ["peer", "name", "veth0", "netns", &client_pid];
    shell::capture(Command::new("ip").args(pair).args(peer))?;
    for (pod, address) in [(server, SERVER), (client, CLIENT)] {
        shell::capture(enter(pod, "ip").args(["address", "add", &format!("{address}/24"), "dev", "veth0"]))?;
        shell::capture(enter(pod, "ip").args(["link", "set", "veth0", "up"]))?;
    }
    Ok(())
}

/// A program in a pod's network namespace.
pub(crate) fn enter(pod: &Pod, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", pod.pid())).arg(program);
    command
}

/// A hidden verb of this program in a pod's network namespace.
pub(crate) fn enter_verb(pod: &Pod, verb: &str) -> Result<Command> {
    let program: PathBuf = std::env::current_exe().context("cannot find the own program")?;
    let mut command = enter(pod, &program.to_string_lossy());
    command.arg(verb);
    Ok(command)
}
