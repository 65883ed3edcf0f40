//! What a web server pays: wrk against nginx, beside the untraced rate of the same round.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    figure::{Figure, Goal},
    link::enter,
    pod::Pod,
    tracers::{Tracers, Variant},
};
use crate::{apt, shell};

const ROUNDS: usize = 5;
const PORT: u16 = 8080;
const VARIANTS: [Variant; 3] = [Variant::Untraced, Variant::Known, Variant::Armed];
/// A worker and a small answer, as in front of most services.
const CONFIGURATION: &str = "
daemon off; worker_processes 1; error_log stderr crit; pid nginx.pid;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000; server { listen 8080; location / { return 200 ok; } } }
";

/// Requests a second, and the 99th percentile of the time to an answer in milliseconds.
#[derive(Clone, Copy)]
struct Load {
    rate: f64,
    p99: f64,
}

/// Loads nginx over connections that are kept and over one a request, traced and untraced.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    for (program, package) in [("wrk", "wrk"), ("nginx", "nginx-light")] {
        if shell::find(program).is_none() {
            apt::install(&[package])?;
        }
    }
    let tracers = Tracers::ours(super::lastpacket()?);
    let pod = Pod::start(1)?;
    let _nginx = Nginx::start(&pod)?;
    let mut figures = Vec::new();
    for (name, options) in
        [("kept connections", [].as_slice()), ("a connection a request", &["-H", "Connection: close"])]
    {
        let mut loads = VARIANTS.map(|variant| (variant, Vec::new()));
        for round in 0..ROUNDS {
            eprintln!("    round {} of {ROUNDS}, {name}", round + 1);
            for (variant, loads) in &mut loads {
                let _tracer = tracers.start(*variant, &pod)?;
                loads.push(load(&pod, options)?);
            }
        }
        figures.extend(compare(name, &loads));
    }
    Ok(figures)
}

fn compare(name: &str, loads: &[(Variant, Vec<Load>)]) -> Vec<Figure> {
    let Some((_, untraced)) = loads.first() else { return Vec::new() };
    let mut figures = Vec::new();
    for (variant, loads) in loads {
        let name = format!("{name}: {}", variant.name());
        let shares = loads.iter().zip(untraced).map(|(load, base)| load.rate / base.rate).collect();
        figures.push(match variant {
            Variant::Untraced => {
                let rates = loads.iter().map(|load| load.rate).collect();
                Figure::new(&name, "requests/s", rates, Goal::None)
            }
            _ => Figure::new(&name, "of untraced", shares, Goal::None),
        });
        figures.push(Figure::new(name, "p99 ms", loads.iter().map(|load| load.p99).collect(), Goal::None));
    }
    figures
}

/// Runs wrk in the pod's network namespace.
fn load(pod: &Pod, options: &[&str]) -> Result<Load> {
    let mut wrk = enter(pod, "wrk");
    wrk.args(["--threads", "1", "--connections", "20", "--duration", "3s", "--latency"]).args(options);
    let said = shell::capture(wrk.arg(format!("http://127.0.0.1:{PORT}/")))?;
    let value = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).with_context(|| format!("wrk told no {name}:\n{said}"))
    };
    let rate = value("Requests/sec:")?.parse().context("wrk told no number")?;
    Ok(Load { rate, p99: milliseconds(value("99%")?)? })
}

/// A time as wrk writes it.
fn milliseconds(text: &str) -> Result<f64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_alphabetic());
    let number: f64 = digits.parse().with_context(|| format!("{text} is no time"))?;
    match &text[digits.len()..] {
        "us" => Ok(number / 1e3),
        "ms" => Ok(number),
        "s" => Ok(number * 1e3),
        unit => bail!("wrk measures in {unit}"),
    }
}

/// nginx in the pod's network namespace; ended and removed when dropped.
struct Nginx {
    child: Child,
    folder: PathBuf,
}

impl Nginx {
    fn start(pod: &Pod) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("lastpacket-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).context("cannot make a folder for nginx")?;
        fs::write(folder.join("nginx.conf"), CONFIGURATION).context("cannot write nginx's configuration")?;
        let program = shell::find("nginx").context("nginx is not installed")?;
        let mut nginx = enter(pod, &program.to_string_lossy());
        nginx.arg("-p").arg(&folder).args(["-c", "nginx.conf"]).stdin(Stdio::null());
        let child = nginx.spawn().context("cannot run nginx")?;
        let nginx = Self { child, folder };
        nginx.wait_until_it_answers(pod)?;
        Ok(nginx)
    }

    fn wait_until_it_answers(&self, pod: &Pod) -> Result<()> {
        let listening = format!(":{PORT:04X} ");
        for _ in 0..500 {
            let sockets = fs::read_to_string(format!("/proc/{}/net/tcp", pod.pid())).unwrap_or_default();
            if sockets.contains(&listening) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("nginx did not listen within 5 s")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SAFETY: it takes two numbers; the child is not reaped yet, so that the number is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        // Nothing more can be done if these fail.
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_unit() {
        let times = ["431.00us", "1.25ms", "2.00s"].map(|text| milliseconds(text).ok());
        assert_eq!(times, [Some(0.431), Some(1.25), Some(2000.0)]);
        assert!(milliseconds("5.00m").is_err());
    }
}
