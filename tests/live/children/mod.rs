//! Processes that cases need: this program itself, with a listening socket as its standard input.

pub mod confined;
mod faulty;
mod hold;
mod http;
mod probe;
mod seccomp;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use self::faulty::Fault;
pub use self::{hold::Holder, probe::Prober};

use anyhow::{Context, Result, bail};
use lastpacket_tests::netns::Namespace;
use nix::sys::signal::{Signal, raise};
use socket2::{SockRef, Socket};

/// The role of this process, if it was started as a child: the word after `child`.
pub fn role() -> Option<String> {
    let mut words = std::env::args().skip(1);
    if words.next()? == "child" { words.next() } else { None }
}

/// Starts this program in a namespace, with a listener to serve.
pub fn start(namespace: &Namespace, role: &str, listener: &Socket) -> Result<Child> {
    let listener = OwnedFd::from(listener.try_clone()?);
    namespace.enter(|| {
        let this = std::env::current_exe()?;
        Command::new(this)
            .args(["child", role])
            .stdin(Stdio::from(listener))
            .spawn()
            .context("cannot start itself")
    })
}

/// Does what the role says, until that is done or the process is ended.
pub fn play(role: &str) -> Result<()> {
    match role.split_once(':').unwrap_or((role, "")) {
        ("denied", what) => confined::become_program(what),
        ("hold", count) => hold::hold(count.parse()?),
        ("hold-and-part", count) => hold::hold_and_part(count.parse()?),
        ("probe", _) => probe::probe(),
        ("hold-and-close", count) => hold::hold_and_close(count.parse()?),
        ("http-exit", port) => faulty::serve(port.parse()?, Fault::Exit),
        ("http-closes-listener", port) => faulty::serve(port.parse()?, Fault::ClosesListener),
        ("http-deaf", port) => faulty::serve(port.parse()?, Fault::Deaf),
        ("http-serves-on", port) => faulty::serve(port.parse()?, Fault::ServesOn),
        ("proxy", ports) => {
            let (port, behind) = ports.split_once(':').context("two ports")?;
            faulty::proxy(port.parse()?, behind.parse()?)
        }
        ("eat", words) => {
            let (port, cgroup) = words.split_once(':').context("a port and a cgroup")?;
            faulty::eat(port.parse()?, cgroup)
        }
        ("http", port) => http::serve_alone(port.parse()?),
        ("http-forking", port) => http::serve_by_workers(port.parse()?),
        ("http-worker", _) => http::serve(&listener()?),
        ("ask-and-exit", server) => ask_and_exit(server),
        _ => serve_one(role),
    }
}

/// The listener that was handed down.
fn listener() -> Result<TcpListener> {
    Ok(TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?))
}

fn serve_one(role: &str) -> Result<()> {
    let (mut connection, _) = listener()?.accept()?;
    connection.read_exact(&mut [0; 10])?;
    match role {
        "answer-and-exit" => answer_and_exit(&connection),
        "answer-in-part-and-exit" => {
            connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nthe first of it")?;
            // SAFETY: ends the process at once; nothing of it is needed any more.
            unsafe { libc::_exit(0) }
        }
        "answer-and-wait" => {
            connection.write_all(&[b'y'; 10])?;
            thread::sleep(Duration::from_secs(20));
            Ok(())
        }
        "leader-exits-first" => {
            connection.write_all(&[b'y'; 10])?;
            leader_exits_first()
        }
        _ => bail!("no role {role}"),
    }
}

/// Asks another server, and ends without waiting for its answer.
fn ask_and_exit(server: &str) -> Result<()> {
    let mut connection = TcpStream::connect(server)?;
    connection.write_all(&[b'?'; 100])?;
    // SAFETY: ends the process at once; nothing of it is needed any more.
    unsafe { libc::_exit(0) }
}

/// Leaves 200 kB to the kernel and the connection open.
fn answer_and_exit(connection: &TcpStream) -> Result<()> {
    SockRef::from(connection).set_send_buffer_size(600_000)?;
    connection.set_nonblocking(true)?;
    let mut to = connection;
    let written = to.write(&[b'y'; 200_000])?;
    if written != 200_000 {
        bail!("only {written} bytes found room");
    }
    // SAFETY: ends the process at once; nothing of it is needed any more.
    unsafe { libc::_exit(0) }
}

/// The first thread ends, another one lives on and then kills the process.
fn leader_exits_first() -> Result<()> {
    thread::spawn(|| {
        thread::sleep(Duration::from_millis(150));
        raise(Signal::SIGKILL)
    });
    // SAFETY: ends the calling thread only; what it owns stays as it is until the process ends.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    bail!("the thread did not end")
}
