//! Container images made of what this machine has: Debian's static busybox, nginx with its libraries.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{oci_image, oci_image::File, programs};

/// Holds sandboxes, as Kubernetes' own `pause` does.
pub const PAUSE: &str = "localhost/node-test/pause:1";
/// Shell and small tools; also a web server that, as PID 1, takes no SIGTERM.
pub const TOOLS: &str = "localhost/node-test/tools:1";
/// nginx, whose graceful stop is SIGQUIT, as the image says.
pub const NGINX: &str = "localhost/node-test/nginx:1";
/// Where nginx listens.
pub const NGINX_PORT: u16 = 80;
/// Where the tools' web server listens.
pub const HTTPD_PORT: u16 = 8080;

/// It must be called `pause`, and end when it is told to.
const PAUSE_SCRIPT: &str = "#!/bin/busybox sh
trap 'exit 0' TERM INT
while :; do busybox sleep 3600 & wait $!; done
";
/// Answers after two seconds.
const SLOW_SCRIPT: &str = "#!/bin/busybox sh
busybox sleep 2
printf 'Content-Type: text/plain\\r\\n\\r\\nslow\\n'
";
/// `/slow` sends 8 kB at once and the other 16 kB within two seconds.
const NGINX_CONFIG: &str = "daemon off;
master_process on;
worker_processes 2;
user root root;
pid /tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {
        listen 80;
        root /srv;
        location = / { return 200 'ok\\n'; }
        location = /slow { limit_rate_after 8k; limit_rate 8k; }
    }
}
";

/// Writes all archives into a folder.
pub fn make(folder: &Path) -> Result<Vec<PathBuf>> {
    let tools = || -> Result<Vec<File>> {
        Ok(vec![
            File::program("bin/busybox", fs::read(programs::find("busybox")?)?),
            File::link("bin/sh", "busybox"),
        ])
    };
    let mut pause = tools()?;
    pause.push(File::program("pause", PAUSE_SCRIPT));
    let mut web = tools()?;
    web.push(File::data("srv/index.html", "ok\n"));
    web.push(File::program("srv/cgi-bin/slow", SLOW_SCRIPT));
    let mut nginx = tools()?;
    nginx.extend(nginx_with_libraries()?);
    [
        (PAUSE, pause, &["/pause"][..], None),
        (TOOLS, web, &["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/srv"], None),
        (NGINX, nginx, &["/usr/sbin/nginx", "-c", "/etc/nginx/nginx.conf"], Some("SIGQUIT")),
    ]
    .into_iter()
    .map(|(name, files, entrypoint, stop_signal)| {
        let path = folder.join(format!("{}.tar", name.replace(['/', ':'], "-")));
        let archive = oci_image::archive(name, &files, entrypoint, stop_signal)?;
        fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    })
    .collect()
}

fn nginx_with_libraries() -> Result<Vec<File>> {
    let nginx = programs::find("nginx")?;
    let listed = Command::new("ldd").arg(&nginx).output().context("cannot run ldd")?;
    ensure!(listed.status.success(), "ldd {}: {listed:?}", nginx.display());
    let text = String::from_utf8(listed.stdout)?;
    let mut files = vec![
        File::program("usr/sbin/nginx", fs::read(&nginx)?),
        File::data("etc/nginx/nginx.conf", NGINX_CONFIG),
        File::data("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"),
        File::data("etc/group", "root:x:0:\n"),
        File::data("srv/slow", vec![b'x'; 24 << 10]),
        File::folder("tmp"),
        File::folder("var/log/nginx"),
        File::folder("var/lib/nginx"),
    ];
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        files.push(File::program(library.trim_start_matches('/'), fs::read(library)?));
    }
    Ok(files)
}
