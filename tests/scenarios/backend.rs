//! The backend: `/?ms=N` answers after N milliseconds, `/stream?n=N&ms=M` sends N lines, M milliseconds
//! apart.

use std::{
    io::{BufRead, BufReader, Result as IoResult, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Result;
use lastpacket_tests::netns::Namespace;

pub const PORT: u16 = 9000;

/// Serves in a namespace until the program ends.
///
/// # Errors
/// If the port is taken.
pub fn start(namespace: &Namespace) -> Result<()> {
    let listener = namespace.enter(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(())
}

/// One connection: request after request until the gateway closes it.
fn serve(stream: TcpStream) -> IoResult<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut answers = stream;
    loop {
        let mut first = String::new();
        if requests.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while requests.read_line(&mut header)? > 2 {
            header.clear();
        }
        let target = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let pause = Duration::from_millis(parameter(&target, "ms"));
        if target.starts_with("/stream") {
            stream_lines(&mut answers, parameter(&target, "n"), pause)?;
        } else {
            thread::sleep(pause);
            answers.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")?;
        }
    }
}

/// With a length: HAProxy 2.6 ends an HTTP/2 stream cleanly whose chunks were cut off, so that nobody
/// notices.
fn stream_lines(answers: &mut TcpStream, count: u64, pause: Duration) -> IoResult<()> {
    let line = b"hello\n";
    let length = count * line.len() as u64;
    answers.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
    for _ in 0..count {
        answers.write_all(line)?;
        thread::sleep(pause);
    }
    Ok(())
}

fn parameter(target: &str, name: &str) -> u64 {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}
