//! The tool's own log on stderr: warnings, and the kernel programs' lines when asked for.

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Other crates' debug lines are nobody's concern; the kernel programs' are.
        let ours = ["tracer_user", "lastpacket_ebpf"].iter().any(|name| record.target().starts_with(name));
        // Its warnings come again as our own, once and in our words.
        let told = record.target().starts_with("kube_client");
        if ours || (record.level() <= log::Level::Warn && !told) {
            eprintln!("lastpacket: {}: {}", record.level().as_str().to_lowercase(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Starts the log. A second call changes nothing.
pub fn start() {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}
