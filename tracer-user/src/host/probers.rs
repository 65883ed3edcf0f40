//! The kubelet's processes: connections that they make to pods are probes.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::{pods::PodPath, process::Process};

/// Programs that are kubelets or have one inside (MicroK8s, k3s).
const NAMES: [&str; 5] = ["kubelet", "kubelite", "k3s-server", "k3s-agent", "hyperkube"];

/// How often all processes are looked through, unless a known kubelet is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Kubelets of this machine, as they come and go.
#[derive(Debug, Default)]
pub struct Probers {
    known: Vec<u32>,
    looked: Option<Instant>,
    /// One was there and is gone: it is being started again.
    missing: bool,
}

impl Probers {
    /// Looks for them, thoroughly only now and then or when one is gone.
    pub fn look(&mut self) -> &[u32] {
        self.missing |= !self.known.iter().all(|pid| is_prober(*pid));
        let is_recent = self.looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN);
        if self.missing || !is_recent {
            self.known = all();
            self.looked = Some(Instant::now());
            self.missing &= self.known.is_empty();
        }
        &self.known
    }
}

fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_prober(*pid)).collect()
}

/// A process of that name in a pod is none.
fn is_prober(pid: u32) -> bool {
    let named =
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| NAMES.contains(&comm.trim_end()));
    named
        && Process::read(pid)
            .is_ok_and(|process| process.cgroup.is_none_or(|path| PodPath::parse(&path).is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_no_kubelet() {
        assert!(!is_prober(std::process::id()));
        assert!(!Probers::default().look().contains(&std::process::id()));
    }
}
