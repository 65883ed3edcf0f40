//! What the running kernel has: field offsets, hooks, and the choices that follow from them.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result, bail};
use tracer_common::{ABSENT, Calls, Offsets, Settings};
use tracer_core::books::CurrEstabRule;

use super::{
    btf::Btf,
    curr_estab,
    hooks::{self, Hook},
};

/// What was found out about the running kernel.
pub struct Facts {
    /// Where its fields are.
    pub offsets: Offsets,
    /// What it can do.
    pub settings: Settings,
    /// Names of `enum sk_rst_reason`, without the prefix.
    pub reset_reasons: HashMap<i32, String>,
    /// Hooks that it has.
    pub hooks: Vec<Hook>,
    /// Hooks that it lacks.
    pub missing_hooks: Vec<Hook>,
    /// Required fields that it lacks, as `structure.member`.
    pub missing_fields: Vec<String>,
    /// What its CurrEstab counts; `None` if that could not be found out.
    pub curr_estab: Option<CurrEstabRule>,
}

impl Facts {
    /// Finds out about the running kernel.
    ///
    /// # Errors
    /// If it has no readable BTF.
    pub fn of_running_kernel() -> Result<Self> {
        let curr_estab = curr_estab::measure();
        if let Err(error) = &curr_estab {
            log::warn!("what CurrEstab counts is unknown, its book is left out: {error:#}");
        }
        Ok(Self { curr_estab: curr_estab.ok(), ..Self::from_btf(&Btf::of_running_kernel()?, version()?) })
    }

    fn from_btf(btf: &Btf, version: (u32, u32)) -> Self {
        let mut offsets = Offsets::NONE;
        let mut missing_fields = Vec::new();
        for (structure, path, required, offset) in offsets.table() {
            match btf.offset_of(structure, path) {
                Some(found) => *offset = found,
                None if required => missing_fields.push(format!("{structure}.{path}")),
                None => {}
            }
        }
        let preemptible = hooks::are_tracepoints_preemptible(version);
        let settings = Settings { lanes: hooks::lanes(preemptible), ..settings(btf, &offsets) };
        let (hooks, missing_hooks) = hooks::find(btf, settings.reset_has_reason == 1, preemptible);
        Self {
            offsets,
            settings,
            reset_reasons: reset_reasons(btf),
            hooks,
            missing_hooks,
            missing_fields,
            curr_estab: None,
        }
    }

    /// What this kernel cannot show, in words. `refused` are hooks that it has, but that could not be
    /// attached.
    #[must_use]
    pub fn cannot_show(&self, refused: &[Hook]) -> Vec<String> {
        let missing = self.missing_hooks.iter().map(|hook| format!("{} (no hook {})", hook.shows, hook.name));
        let refused = refused.iter().map(|hook| format!("{} (hook {} refused)", hook.shows, hook.name));
        let reasons = (self.settings.reset_has_reason == 0)
            .then(|| "the kernel's reasons of resets (from Linux 6.10 on)".to_owned());
        let payload = (self.settings.page_offset == 0)
            .then(|| "what payload in pages looks like: it is judged by its length".to_owned());
        let calls = (self.settings.call_number == ABSENT).then(|| {
            "whether an answer was whole: what applications read and write cannot be found".to_owned()
        });
        let level = self
            .curr_estab
            .is_none()
            .then(|| "whether CurrEstab agrees: what it counts could not be tried".to_owned());
        missing.chain(refused).chain(reasons).chain(payload).chain(calls).chain(level).collect()
    }

    /// Fails if tracing is impossible, naming what is missing.
    ///
    /// # Errors
    /// If a required field or hook is missing.
    pub fn require_all(&self) -> Result<()> {
        if let Some(field) = self.missing_fields.first() {
            bail!("this kernel's BTF has no field {field}; run `lastpacket check`");
        }
        if let Some(hook) = self.missing_hooks.iter().find(|hook| hook.required) {
            bail!("this kernel has no hook {}; run `lastpacket check`", hook.name);
        }
        Ok(())
    }
}

fn settings(btf: &Btf, offsets: &Offsets) -> Settings {
    let memory = memory_layout();
    let registers = registers(btf);
    Settings {
        page_offset: memory.map_or(0, |memory| memory.page_offset),
        vmemmap: memory.map_or(0, |memory| memory.vmemmap),
        bases_are_variables: memory.map_or(0, |memory| u32::from(memory.are_variables)),
        page_struct_size: btf.size_of("page").unwrap_or(0),
        page_shift: 12,
        upid_size: btf.size_of("upid").unwrap_or(0),
        scope_by_cookie: u32::from(offsets.net_cookie != ABSENT && crate::host::netns::has_cookies()),
        reset_has_reason: u32::from(btf.tracepoint("tcp_send_reset").is_some_and(|hook| hook.arguments >= 3)),
        victim_is_task: u32::from(btf.tracepoint("mark_victim").is_some_and(|hook| hook.first_is_pointer)),
        lanes: 1,
        task_is_typed: u32::from(btf.enumeration("bpf_func_id").iter().any(|(name, _)| name == TYPED_TASK)),
        calls: CALLS,
        call_number: registers.map_or(ABSENT, |registers| registers[0]),
        call_second: registers.map_or(ABSENT, |registers| registers[1]),
        reserved: 0,
    }
}

/// Helper that gives programs the current task with its type.
const TYPED_TASK: &str = "BPF_FUNC_get_current_task_btf";

/// System calls that read from and write to sockets, as this architecture numbers them.
const CALLS: Calls = Calls {
    read: libc::SYS_read as u32,
    write: libc::SYS_write as u32,
    recvfrom: libc::SYS_recvfrom as u32,
    sendto: libc::SYS_sendto as u32,
    readv: libc::SYS_readv as u32,
    writev: libc::SYS_writev as u32,
    recvmsg: libc::SYS_recvmsg as u32,
    sendmsg: libc::SYS_sendmsg as u32,
};

/// Where a system call's number and second argument are kept while it runs.
fn registers(btf: &Btf) -> Option<[u32; 2]> {
    let offset = |member| btf.offset_of("pt_regs", member);
    if cfg!(target_arch = "aarch64") {
        let general = offset("regs")?;
        Some([offset("syscallno")?, general + 8])
    } else {
        Some([offset("orig_ax")?, offset("si")?])
    }
}

fn reset_reasons(btf: &Btf) -> HashMap<i32, String> {
    let prefix = "SK_RST_REASON_";
    btf.enumeration("sk_rst_reason")
        .into_iter()
        .filter_map(|(name, value)| Some((value, name.strip_prefix(prefix)?.to_owned())))
        .collect()
}

/// Where the direct map and the page array begin, to look into segments whose payload lies in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MemoryLayout {
    page_offset: u64,
    vmemmap: u64,
    are_variables: bool,
}

/// Where the kernel's text begins when it was not moved at boot (`CONFIG_PHYSICAL_START`).
const UNMOVED_TEXT: u64 = 0xffff_ffff_8100_0000;

/// x86-64 only; elsewhere, and where this finds nothing, the payload is judged by its length.
///
/// Most kernels list the two bases, which are variables. A kernel that lists no data, but whose text
/// was not moved at boot, has not moved its memory either (`kaslr_memory_enabled`), and the bases are
/// the constants for four-level paging (`arch/x86/include/asm/page_64_types.h`). Were that wrong
/// after all, the bytes read would look like neither a TLS alert nor an HTTP/2 frame.
fn memory_layout() -> Option<MemoryLayout> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    let symbols = fs::read_to_string("/proc/kallsyms").ok()?;
    match (symbol(&symbols, "page_offset_base"), symbol(&symbols, "vmemmap_base")) {
        (Some(page_offset), Some(vmemmap)) => {
            Some(MemoryLayout { page_offset, vmemmap, are_variables: true })
        }
        _ if symbol(&symbols, "_text") == Some(UNMOVED_TEXT) && !has_five_level_paging() => {
            Some(MemoryLayout {
                page_offset: 0xffff_8880_0000_0000,
                vmemmap: 0xffff_ea00_0000_0000,
                are_variables: false,
            })
        }
        _ => None,
    }
}

/// The kernel hides the processor's flag when it does not use it (`check_la57_support`).
fn has_five_level_paging() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains(" la57"))
}

fn symbol(symbols: &str, name: &str) -> Option<u64> {
    let line = symbols.lines().find(|line| line.split_whitespace().nth(2) == Some(name))?;
    let address = u64::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
    (address != 0).then_some(address)
}

/// Version of the running kernel, as `uname -r` says.
///
/// # Errors
/// If uname fails.
pub fn release() -> Result<String> {
    let uname = nix::sys::utsname::uname().context("uname failed")?;
    Ok(uname.release().to_string_lossy().into_owned())
}

/// The running kernel's version: its first two numbers.
///
/// # Errors
/// If uname fails.
pub fn version() -> Result<(u32, u32)> {
    let release = release()?;
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_by_their_whole_name() {
        let symbols =
            "ffffffff81000000 T page_offset_base_x\nffffffff82000000 D page_offset_base\n0 D vmemmap_base\n";
        assert_eq!(symbol(symbols, "page_offset_base"), Some(0xffff_ffff_8200_0000));
        assert_eq!(symbol(symbols, "vmemmap_base"), None, "a hidden address is no address");
    }
}
