//! One connection of a server: requests read and answered one after the other.

use std::{
    io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write},
    net::TcpStream,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Behaviour, Server};

/// Size of a large answer.
const LARGE: usize = 400_000;
const CHUNK: &[u8] = b"10\r\n0123456789abcde\n\r\n";
const PIECE: &[u8] = b"0123456789abcde\n";

/// What a request asks for.
struct Request {
    path: String,
    duration: Duration,
    length: usize,
    close: bool,
}

/// Answers until either side closes.
pub(super) fn all(stream: TcpStream, server: &Arc<Server>) {
    if stream.set_nonblocking(false).is_err() {
        return;
    }
    server.open.add(&stream);
    let mut reader = BufReader::new(&stream);
    while let Ok(Some(request)) = read_head(&mut reader, server) {
        server.in_flight.fetch_add(1, Ordering::SeqCst);
        server.touch();
        let answered =
            read_body(&mut reader, &request, server).and_then(|()| answer(&stream, &request, server));
        server.touch();
        server.in_flight.fetch_sub(1, Ordering::SeqCst);
        if !matches!(answered, Ok(true)) {
            break;
        }
    }
    drop(reader);
    server.open.close(stream);
}

fn read_head(reader: &mut BufReader<&TcpStream>, server: &Server) -> Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    if server.behaviour == Behaviour::SlowReader {
        pause(15);
    }
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let ms = path.split_once("ms=").and_then(|(_, ms)| ms.parse().ok()).unwrap_or(0);
    let mut request = Request { path, duration: Duration::from_millis(ms), length: 0, close: false };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        let header = header.trim_end().to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", length)) => request.length = length.parse().unwrap_or(0),
            Some(("connection", "close")) => request.close = true,
            None => return Ok(Some(request)),
            _ => {}
        }
    }
}

fn read_body(reader: &mut BufReader<&TcpStream>, request: &Request, server: &Server) -> Result<()> {
    let mut left = request.length;
    while left > 0 {
        let mut piece = [0; 256];
        let most = left.min(piece.len());
        let read = reader.read(&mut piece[..most])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        left -= read;
        if server.behaviour == Behaviour::SlowReader {
            pause(30);
        }
    }
    Ok(())
}

/// Returns whether the connection goes on.
fn answer(mut to: &TcpStream, request: &Request, server: &Server) -> Result<bool> {
    let path = request.path.split('?').next().unwrap_or_default();
    let end = Instant::now() + request.duration;
    match path {
        "/stream" => {
            to.write_all(head("transfer-encoding: chunked", false).as_bytes())?;
            while !(server.is_stopping() && server.behaviour == Behaviour::Drain) {
                paced(to, CHUNK, server)?;
            }
            to.write_all(b"0\r\n\r\n")?;
            return Ok(false);
        }
        "/chunked" => {
            to.write_all(head("transfer-encoding: chunked", false).as_bytes())?;
            while Instant::now() < end {
                paced(to, CHUNK, server)?;
            }
            to.write_all(b"0\r\n\r\n")?;
        }
        "/download" => {
            let pieces = request.duration.as_millis() / 20;
            to.write_all(head(&length(PIECE.len() * pieces as usize), false).as_bytes())?;
            for _ in 0..pieces {
                paced(to, PIECE, server)?;
            }
        }
        _ => {
            thread::sleep(request.duration.max(Duration::from_millis(3)));
            let body = if path == "/large" { LARGE } else { 12 };
            let close = request.close || server.is_stopping() && server.behaviour == Behaviour::Drain;
            let whole = head(&length(body), close).into_bytes();
            let whole = [whole, vec![b'x'; body]].concat();
            let cut = server.is_stopping() && server.behaviour == Behaviour::MidResponse;
            to.write_all(if cut { &whole[..whole.len() - body / 2] } else { &whole })?;
            return Ok(!close && !cut);
        }
    }
    Ok(true)
}

/// The next piece of an answer that takes its time; an application that stops may stop here.
fn paced(mut to: &TcpStream, piece: &[u8], server: &Server) -> Result<()> {
    pause(20);
    if server.is_stopping() && server.behaviour == Behaviour::MidResponse {
        return Err(Error::other("stopped in mid-response"));
    }
    to.write_all(piece)
}

fn length(bytes: usize) -> String {
    format!("content-length: {bytes}")
}

fn head(framing: &str, close: bool) -> String {
    let connection = if close { "close" } else { "keep-alive" };
    format!("HTTP/1.1 200 OK\r\nserver: soak\r\n{framing}\r\nconnection: {connection}\r\n\r\n")
}

fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}
