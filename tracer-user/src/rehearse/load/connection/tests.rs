//! How each way of ending a connection is told, against a scripted server.

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use hyper::Method;
use tokio::time::sleep;

use super::{super::message::UPLOAD_INTERVAL, *};

async fn connect(http2: bool) -> Result<(Connection, DuplexStream)> {
    let (client, server) = duplex(64 * 1024);
    let (sender, driver) = http::start(client, http2).await?;
    let (local, peer) = ("10.99.0.1:40000".parse()?, "10.99.0.2:80".parse()?);
    Ok((
        Connection {
            sender,
            driver,
            protocol: Protocol::new(http2, false)?,
            ids: Random::for_client(1, 1),
            local,
            peer,
            requests: 0,
        },
        server,
    ))
}

/// Sends a GET to a server that answers `answer` and closes.
async fn exchange_with(answer: &'static [u8]) -> Result<Exchange> {
    exchange(false, answer).await
}

async fn exchange(http2: bool, answer: &'static [u8]) -> Result<Exchange> {
    let (mut connection, mut server) = connect(http2).await?;
    tokio::spawn(async move {
        let mut request = [0; 1024];
        let _ = server.read(&mut request).await;
        let _ = server.write_all(answer).await;
        // HTTP/2 says farewell in return.
        while http2 && server.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {}
    });
    Ok(connection.exchange(&Message::new(Method::GET, "/".to_owned())).await)
}

/// What Apache httpd says when a request meets its graceful stop: no answer, and yet no loss of the
/// connection.
#[tokio::test]
async fn what_an_http2_server_refuses_is_its_own_word() -> Result<()> {
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x02";
    let answer = [SETTINGS, GOAWAY].concat().leak();
    let failed = exchange(true, answer).await?;
    assert!(matches!(failed, Exchange::Failed { cause: Cause::ServerError(_), .. }), "{failed:?}");
    Ok(())
}

#[tokio::test]
async fn complete_answers_are_answers_whatever_their_status() -> Result<()> {
    let answer = exchange_with(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno").await?;
    assert!(matches!(answer, Exchange::Answered { status: 503, bytes: 2, close: false }));
    let answer =
        exchange_with(b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n").await?;
    assert!(matches!(answer, Exchange::Answered { status: 200, close: true, .. }));
    Ok(())
}

#[tokio::test]
async fn a_close_without_an_answer_fails() -> Result<()> {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-"] {
        let failed = exchange_with(answer).await?;
        assert!(matches!(failed, Exchange::Failed { cause: Cause::Eof, phase: Phase::Headers }));
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_cut_off_fails() -> Result<()> {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let failed = exchange_with(answer).await?;
        assert!(matches!(failed, Exchange::Failed { cause: Cause::Truncated, phase: Phase::Body }));
    }
    Ok(())
}

#[tokio::test]
async fn a_close_while_idle_is_no_failure() -> Result<()> {
    let (mut connection, server) = connect(false).await?;
    drop(server);
    connection.closed().await;
    let message = Message::new(Method::GET, "/".to_owned());
    assert!(matches!(connection.exchange(&message).await, Exchange::NotSent));
    assert_eq!(connection.requests, 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_cut_off_fails_while_sending() -> Result<()> {
    let (mut connection, mut server) = connect(false).await?;
    tokio::spawn(async move {
        let mut request = [0; 1024];
        let _ = server.read(&mut request).await;
        sleep(UPLOAD_INTERVAL * 2).await;
    });
    let upload = Message { upload: UPLOAD_INTERVAL * 10, ..Message::new(Method::POST, "/".to_owned()) };
    let failed = connection.exchange(&upload).await;
    assert!(matches!(failed, Exchange::Failed { phase: Phase::Send, cause: Cause::Eof | Cause::Reset }));
    Ok(())
}
