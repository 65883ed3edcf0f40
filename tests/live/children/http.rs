//! A small HTTP/1.1 server without a handler for any signal: as PID 1 it takes no SIGTERM.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Result;

/// Serves in this process.
pub fn serve_alone(port: u16) -> Result<()> {
    serve(&TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?)
}

/// Serves in two child processes, as servers with workers do; this one only waits.
pub fn serve_by_workers(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let mut workers = Vec::new();
    for _ in 0..2 {
        let shared = Stdio::from(OwnedFd::from(listener.try_clone()?));
        workers.push(
            Command::new(std::env::current_exe()?).args(["child", "http-worker:"]).stdin(shared).spawn()?,
        );
    }
    workers.iter_mut().try_for_each(|worker| worker.wait().map(drop))?;
    Ok(())
}

/// Serves a listener, with a thread for each connection.
pub fn serve(listener: &TcpListener) -> Result<()> {
    loop {
        let (connection, _) = listener.accept()?;
        // A client that goes away ends its own thread only.
        thread::spawn(move || answer_all(&connection));
    }
}

/// Answers requests without bodies, one after the other. `/slow?ms=N` takes its time.
pub fn answer_all(connection: &TcpStream) -> Result<()> {
    let mut lines = BufReader::new(connection).lines();
    while let Some(request) = lines.next().transpose()? {
        while lines.next().transpose()?.is_some_and(|header| !header.is_empty()) {}
        let delay = request.split_once("?ms=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        thread::sleep(Duration::from_millis(delay.unwrap_or(0)));
        let mut to = connection;
        to.write_all(b"HTTP/1.1 200 OK\r\nserver: a small one, without any signal handlers\r\ncontent-length: 2\r\n\r\nok")?;
    }
    Ok(())
}
