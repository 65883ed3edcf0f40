//! The rows of docs/servers.md: which server, with which settings, and what its clients must see.

/// What clients see of a row's rehearsal, by what the settings are documented to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Every request is answered.
    Served,
    /// So is every request but those on a kept connection that cross with its close.
    Races,
    /// Some requests fail, or are answered 5xx.
    Cut,
}

/// A server with settings.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its section of the page.
    pub server: &'static str,
    /// Its test.
    pub name: &'static str,
    /// What follows `lastpacket rehearse $OPTIONS`, as a shell reads it.
    pub words: &'static str,
    /// What the clients must see.
    pub clients: Clients,
    /// What the settings are documented to do.
    pub why: &'static str,
}

/// What all rows have in common.
pub const OPTIONS: &str = "--load keep-alive:4,fresh:50/s,long:2:3s --grace 10s";

const fn row(
    server: &'static str,
    name: &'static str,
    words: &'static str,
    clients: Clients,
    why: &'static str,
) -> Row {
    Row { server, name, words, clients, why }
}

use Clients::{Cut, Races, Served};

macro_rules! nginx {
    ($options:literal) => {
        concat!("--long-path /slow ", $options, " -- sh docs/servers/nginx.sh")
    };
}

macro_rules! haproxy {
    ($options:literal) => {
        haproxy!($options, "--sidecar", "graceful")
    };
    ($options:literal, $beside:literal, $behaviour:literal) => {
        concat!(
            $options,
            " ",
            $beside,
            " 'app=lastpacket demo-server --behaviour ",
            $behaviour,
            " --port 9000' -- haproxy -W -db -f docs/servers/haproxy.cfg"
        )
    };
}

macro_rules! apache {
    ($options:literal) => {
        concat!("--path /index --long-path /slow ", $options, " -- sh docs/servers/apache.sh")
    };
}

macro_rules! gunicorn {
    ($options:literal, $more:literal) => {
        concat!(
            $options,
            " -- gunicorn --chdir docs/servers --bind 0.0.0.0:8080 --worker-tmp-dir /dev/shm",
            " --worker-class gthread --threads 16",
            $more,
            " wsgi:app"
        )
    };
}

macro_rules! uvicorn {
    ($options:literal, $more:literal) => {
        concat!(
            $options,
            " -- uvicorn --app-dir docs/servers --host 0.0.0.0 --port 8080 --log-level warning",
            $more,
            " asgi:app"
        )
    };
}

/// All rows, section by section.
pub const ROWS: [Row; 36] = [
    row(
        "nginx",
        "sigterm",
        nginx!(""),
        Cut,
        "nothing is waited for, and new connections come until the load balancer knows",
    ),
    row(
        "nginx",
        "sigquit",
        nginx!("--stop-signal SIGQUIT"),
        Cut,
        "answers are completed, but the listener closes at once: the load balancer does not know yet",
    ),
    row(
        "nginx",
        "sigterm_after_pre_stop",
        nginx!("--pre-stop 'sleep 2'"),
        Cut,
        "SIGTERM is nginx' fast stop: answers under way are cut off. Images set `STOPSIGNAL SIGQUIT` for that reason",
    ),
    row(
        "nginx",
        "sigquit_after_pre_stop",
        nginx!("--pre-stop 'sleep 2' --stop-signal SIGQUIT"),
        Races,
        "preStop outlasts the load balancer's delay, SIGQUIT lets answers finish",
    ),
    row(
        "nginx",
        "worker_shutdown_timeout",
        nginx!("--pre-stop 'sleep 2' --stop-signal SIGQUIT --env WORKER_SHUTDOWN_TIMEOUT=1s"),
        Cut,
        "`worker_shutdown_timeout` closes what is not done in time: the long answers are cut off",
    ),
    row(
        "nginx",
        "tls",
        nginx!("--tls --pre-stop 'sleep 2' --stop-signal SIGQUIT"),
        Races,
        "the same over TLS",
    ),
    row(
        "nginx",
        "tls_http2",
        nginx!("--tls --http2 --pre-stop 'sleep 2' --stop-signal SIGQUIT"),
        Races,
        "nginx says GOAWAY and finishes its streams",
    ),
    row("HAProxy", "sigterm", haproxy!("--port 8080"), Cut, "a hard stop"),
    row(
        "HAProxy",
        "sigterm_after_pre_stop",
        haproxy!("--port 8080 --pre-stop 'sleep 2'"),
        Cut,
        "preStop saves the new connections, SIGTERM still cuts those in flight",
    ),
    row(
        "HAProxy",
        "sigusr1_after_pre_stop",
        haproxy!("--port 8080 --stop-signal SIGUSR1 --pre-stop 'sleep 2'"),
        Races,
        "a soft stop after preStop; the application is a sidecar and goes last",
    ),
    row(
        "HAProxy",
        "tls",
        haproxy!("--tls --port 8443 --stop-signal SIGUSR1 --pre-stop 'sleep 2'"),
        Races,
        "the same over TLS",
    ),
    row(
        "HAProxy",
        "tls_http2",
        haproxy!("--tls --http2 --port 8443 --stop-signal SIGUSR1 --pre-stop 'sleep 2'"),
        Races,
        "HAProxy says GOAWAY and finishes its streams",
    ),
    row(
        "HAProxy",
        "application_goes_first",
        haproxy!("--port 8080 --stop-signal SIGUSR1 --pre-stop 'sleep 2'", "--container", "abrupt"),
        Cut,
        "the application is an ordinary container: it is stopped at once, while preStop holds HAProxy up, whose clients get 5xx answers. Make it or the proxy a sidecar, so that they stop in order",
    ),
    row(
        "Apache httpd",
        "sigterm_after_pre_stop",
        apache!("--pre-stop 'sleep 2'"),
        Cut,
        "SIGTERM is the fast stop: answers under way are cut off",
    ),
    row(
        "Apache httpd",
        "graceful_stop",
        apache!("--stop-signal SIGWINCH"),
        Cut,
        "a graceful stop closes the listener at once",
    ),
    row(
        "Apache httpd",
        "graceful_stop_after_pre_stop",
        apache!("--stop-signal SIGWINCH --pre-stop 'sleep 2'"),
        Races,
        "preStop, then graceful-stop",
    ),
    row(
        "Apache httpd",
        "tls",
        apache!("--tls --stop-signal SIGWINCH --pre-stop 'sleep 2'"),
        Races,
        "the same over TLS",
    ),
    row(
        "Apache httpd",
        "tls_http2",
        apache!("--tls --http2 --stop-signal SIGWINCH --pre-stop 'sleep 2'"),
        Races,
        "GOAWAY, and streams are finished",
    ),
    row(
        "gunicorn",
        "sigterm",
        gunicorn!("", ""),
        Cut,
        "workers finish, but connections that wait in the backlog are reset",
    ),
    row(
        "gunicorn",
        "sigterm_after_pre_stop",
        gunicorn!("--pre-stop 'sleep 2'", ""),
        Races,
        "preStop keeps it listening; then workers finish",
    ),
    row(
        "gunicorn",
        "sigquit_after_pre_stop",
        gunicorn!("--stop-signal SIGQUIT --pre-stop 'sleep 2'", ""),
        Cut,
        "SIGQUIT is the quick stop: requests are left unread and unanswered",
    ),
    row(
        "gunicorn",
        "graceful_timeout",
        gunicorn!("--pre-stop 'sleep 2'", " --graceful-timeout 1"),
        Cut,
        "`--graceful-timeout 1` is shorter than the requests",
    ),
    row(
        "gunicorn",
        "tls",
        gunicorn!("--tls --pre-stop 'sleep 2'", " --certfile '{cert}' --keyfile '{key}'"),
        Races,
        "the same over TLS",
    ),
    row("uvicorn", "sigterm", uvicorn!("", ""), Cut, "the listener closes at once"),
    row(
        "uvicorn",
        "sigterm_after_pre_stop",
        uvicorn!("--pre-stop 'sleep 2'", ""),
        Races,
        "preStop, then all requests are finished",
    ),
    row(
        "uvicorn",
        "tls",
        uvicorn!("--tls --pre-stop 'sleep 2'", " --ssl-certfile '{cert}' --ssl-keyfile '{key}'"),
        Races,
        "the same over TLS",
    ),
    row(
        "Node.js",
        "no_handler",
        "-- node docs/servers/node.mjs none",
        Cut,
        "PID 1 without a handler ignores SIGTERM and serves on until SIGKILL",
    ),
    row("Node.js", "exit", "-- node docs/servers/node.mjs exit", Cut, "`process.exit` in the handler"),
    row(
        "Node.js",
        "close",
        "-- node docs/servers/node.mjs close",
        Cut,
        "`server.close` closes the listener at once, and waits for keep-alive connections that never become idle: SIGKILL",
    ),
    row(
        "Node.js",
        "close_after_pre_stop",
        "--pre-stop 'sleep 2' -- node docs/servers/node.mjs close",
        Cut,
        "preStop saves the new connections, busy keep-alive connections hold it up until SIGKILL",
    ),
    row(
        "Node.js",
        "drain",
        "-- node docs/servers/node.mjs drain",
        Served,
        "goes on for two seconds with `connection: close`, then `server.close`: no preStop needed",
    ),
    row("Node.js", "drain_tls", "--tls -- node docs/servers/node.mjs drain", Served, "the same over TLS"),
    row("hyper", "abrupt", "--demo abrupt", Cut, "exits at once"),
    row(
        "hyper",
        "graceful",
        "--demo graceful",
        Served,
        "`connection: close` until traffic has stopped, then closes",
    ),
    row("hyper", "graceful_tls", "--tls --demo graceful", Served, "the same over TLS"),
    row(
        "hyper",
        "graceful_tls_http2",
        "--tls --http2 --demo graceful",
        Served,
        "GOAWAY after the next answer",
    ),
];
