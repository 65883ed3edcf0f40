//! The server over real connections.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn start() -> (SocketAddr, Arc<Readiness>) {
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (address, readiness) = (listener.local_addr().unwrap(), Arc::<Readiness>::default());
    let pages = Pages {
        metrics: Box::new(|| "# EOF\n".to_owned()),
        metrics_type: "application/openmetrics-text",
        readiness: Arc::clone(&readiness),
    };
    tokio::spawn(serve(listener, pages));
    (address, readiness)
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn readiness_tells_what_is_missing() {
    let (address, readiness) = start().await;
    let answer = ask(address, "GET", "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("not attached yet\n") && answer.contains("not all known yet\n"), "{answer}");
    readiness.hooks_attached(true);
    let answer = ask(address, "GET", "/readyz").await;
    assert!(answer.ends_with("\r\n\r\nthe pods of this node are not all known yet\n"), "{answer}");
    readiness.inventory_complete(true);
    assert!(ask(address, "GET", "/readyz").await.ends_with("\r\n\r\nready\n"));
}

#[tokio::test]
async fn pages_have_their_types_and_the_rest_is_refused() {
    let (address, _) = start().await;
    let metrics = ask(address, "GET", "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 ") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(metrics.contains("content-type: application/openmetrics-text\r\n"), "{metrics}");
    assert!(ask(address, "GET", "/healthz").await.ends_with("ok\n"));
    assert!(ask(address, "GET", "/").await.starts_with("HTTP/1.1 404 "));
    assert!(ask(address, "POST", "/metrics").await.starts_with("HTTP/1.1 405 "));
    assert!(!ask(address, "HEAD", "/metrics").await.contains("EOF"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_so() {
    let (address, _) = start().await;
    let error = format!("{:#}", listen(address).await.unwrap_err());
    assert!(error.contains(&format!("cannot serve metrics on {address}")), "{error}");
    assert!(error.contains("another program listens there"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silent_connections_do_not_hold_their_places() {
    let (address, _) = start().await;
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = timeout(4 * REQUEST_TIME, ask(address, "GET", "/healthz")).await.unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
}
