//! The kernel's own totals of a network namespace: `/proc/PID/net/snmp` and `netstat`.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt, path::Path};

use anyhow::{Context, Result};
use tracer_core::books::Totals;

/// Descriptors of a namespace's counters. They still read right after the namespace's last process
/// is gone, without entering it; they keep the namespace alive, so that they must be closed at once
/// when the last reading is made.
pub struct TotalsReader {
    snmp: File,
    netstat: File,
    dev: File,
}

impl TotalsReader {
    /// Opens the counters in a `net` folder of procfs, such as `/proc/PID/net`.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn open(folder: &Path) -> Result<Self> {
        let open = |name: &str| {
            let path = folder.join(name);
            File::open(&path).with_context(|| format!("cannot open {}", path.display()))
        };
        Ok(Self { snmp: open("snmp")?, netstat: open("netstat")?, dev: open("dev")? })
    }

    /// Whether the namespace has a network interface but the loopback one. When it has none, the pod's
    /// sandbox was torn down.
    ///
    /// # Errors
    /// If the list of interfaces cannot be read.
    pub fn has_interface(&self) -> Result<bool> {
        Ok(parse_interfaces(&read_all(&self.dev)?))
    }

    /// Reads the totals.
    ///
    /// # Errors
    /// If a counter is missing or cannot be read.
    pub fn read(&self) -> Result<Totals> {
        parse(&read_all(&self.snmp)?, &read_all(&self.netstat)?)
    }
}

/// Both files are far smaller than this; one read keeps the counters close together in time.
const FILE_SIZE: usize = 64 * 1024;

fn read_all(file: &File) -> Result<String> {
    let mut bytes = vec![0; FILE_SIZE];
    let mut length = 0;
    loop {
        let count = file
            .read_at(&mut bytes[length..], length as u64)
            .context("cannot read the namespace's counters")?;
        if count == 0 {
            break;
        }
        length += count;
    }
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(snmp: &str, netstat: &str) -> Result<Totals> {
    let tcp = section(snmp, "Tcp:");
    let extended = section(netstat, "TcpExt:");
    let get = |counters: &HashMap<&str, u64>, name: &str| {
        counters.get(name).copied().with_context(|| format!("the kernel has no counter {name}"))
    };
    Ok(Totals {
        active_opens: get(&tcp, "ActiveOpens")?,
        passive_opens: get(&tcp, "PassiveOpens")?,
        estab_resets: get(&tcp, "EstabResets")?,
        current_established: get(&tcp, "CurrEstab")?,
        resets_sent: get(&tcp, "OutRsts")?,
        listen_overflows: get(&extended, "ListenOverflows")?,
        listen_drops: get(&extended, "ListenDrops")?,
        aborts_failed: get(&extended, "TCPAbortFailed")?,
    })
}

/// Two lines of headings, then a line per interface: `name: counters`.
fn parse_interfaces(dev: &str) -> bool {
    let names = dev.lines().skip(2).filter_map(|line| line.split(':').next());
    names.map(str::trim).any(|name| !name.is_empty() && name != "lo")
}

/// A section is two lines with the same first word: names, then values.
fn section<'a>(text: &'a str, prefix: &str) -> HashMap<&'a str, u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(prefix));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return HashMap::new() };
    // MaxConn is -1 for "no limit".
    let values = values.split_whitespace().map(|value| value.parse().unwrap_or(0));
    names.split_whitespace().zip(values).skip(1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_none() {
        let head = "Inter-| Receive\n face |bytes\n";
        assert!(!parse_interfaces(&format!("{head}    lo: 0 0\n")));
        assert!(parse_interfaces(&format!("{head}    lo: 0 0\n  eth0: 1 2\n")));
        assert!(!parse_interfaces(""));
    }

    #[test]
    fn counters_are_read_by_name() {
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: MaxConn ActiveOpens PassiveOpens EstabResets CurrEstab OutRsts\nTcp: -1 1 2 3 4 5\n";
        let netstat =
            "TcpExt: ListenOverflows ListenDrops TCPAbortFailed\nTcpExt: 6 7 8\nIpExt: InOctets\nIpExt: 9\n";
        let totals = parse(snmp, netstat).unwrap();
        assert_eq!((totals.active_opens, totals.passive_opens, totals.resets_sent), (1, 2, 5));
        assert_eq!((totals.listen_overflows, totals.listen_drops, totals.aborts_failed), (6, 7, 8));
        let error = parse("Tcp: ActiveOpens\nTcp: 1\n", netstat).unwrap_err().to_string();
        assert!(error.contains("no counter PassiveOpens"), "{error}");
    }
}
