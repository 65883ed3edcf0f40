//! What a gateway container runs: nginx, or an HAProxy that drains as Envoy does. It imitates Envoy and is
//! none.

/// The program.
#[derive(Clone, Copy, Debug)]
pub enum Server {
    Nginx,
    /// At SIGUSR1 its health turns failing; it goes on to serve for [`GRACE`], then it takes no new
    /// connections and finishes the requests that are under way.
    HaProxy,
}

/// Longer than the load balancer's lag.
const GRACE: &str = "1500ms";

/// What it serves.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub server: Server,
    /// Its folder among the artefacts.
    pub name: String,
    pub port: u16,
    /// Where it gets its answers from.
    pub upstream: String,
    /// Whether it listens at once, or when it is let.
    pub at_once: bool,
}

impl Gateway {
    /// What `sh` runs; `$POD` is the folder of what it serves.
    pub const fn command(&self) -> &'static str {
        match self.server {
            Server::Nginx => "exec nginx -e stderr -c \"$POD/gateway.conf\"",
            Server::HaProxy => "exec haproxy -db -f \"$POD/gateway.conf\"",
        }
    }

    /// Its `gateway.conf`.
    pub fn configuration(&self, folder: &str) -> String {
        match self.server {
            Server::Nginx => self.of_nginx(folder),
            Server::HaProxy => self.of_haproxy(),
        }
    }

    fn of_nginx(&self, folder: &str) -> String {
        let Self { port, upstream, .. } = self;
        format!(
            "daemon off; user root; worker_processes 2; pid {folder}/nginx.pid;
events {{}}
http {{
    access_log {folder}/access.log;
    upstream backend {{ server {upstream}; keepalive 16; }}
    server {{
        listen {port};
        location = /healthz {{ access_log off; root {folder}; try_files /ready =503; }}
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
            proxy_read_timeout 120s;
        }}
    }}
}}
"
        )
    }

    fn of_haproxy(&self) -> String {
        let Self { port, upstream, .. } = self;
        format!(
            "global
    log stdout format raw local0
    grace {GRACE}
defaults
    mode http
    log global
    option httplog
    timeout connect 2s
    timeout client 120s
    timeout server 120s
frontend gateway
    bind :{port}
    monitor-uri /healthz
    monitor fail if {{ stopping }}
    default_backend backend
backend backend
    server backend {upstream}
"
        )
    }
}
