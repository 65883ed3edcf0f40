//! The loaded programs and the tables that they share with user space.

use std::{
    collections::HashMap as StdHashMap,
    fs,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::Program,
};
use tracer_common::{
    CONVERSATION, Counters, InitEntry, LANES, MAX_TARGETS, Mode, NOTES, Pod, RelayState, ScopeEntry,
};

use super::{
    facts::Facts,
    hooks::{Hook, Relief},
    lockdown, memlock,
    ring::Records,
};

/// The object that build.rs made; empty if the toolchain for it was missing.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lastpacket-ebpf"));

/// Looks at events that seem to be missed, and the time between them: a task that is preempted while its event is
/// taken over runs on within that.
const MISSED_LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Size of the ring buffer in bytes: a power of two, at least a page.
    pub ring_buffer: u32,
    /// Compile the programs' own debug lines in.
    pub kernel_log: bool,
    /// Tell new cgroups, as an agent needs them.
    pub inventory: bool,
}

impl LoadOptions {
    /// Room for 20,000 records: what a busy pod makes while user space is not scheduled for 100 ms.
    pub const RING_BUFFER: u32 = 4 << 20;
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { ring_buffer: Self::RING_BUFFER, kernel_log: false, inventory: false }
    }
}

/// Which key a scope entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeKey {
    /// A network namespace, by cookie or inode.
    Netns(u64),
    /// A cgroup, by id.
    Cgroup(u64),
}

type Bytes<const N: usize> = [u8; N];
const SCOPE_ENTRY: usize = size_of::<ScopeEntry>();
const INIT_ENTRY: usize = size_of::<InitEntry>();
const COUNTERS: usize = size_of::<Counters>();
const RELAY_STATE: usize = size_of::<RelayState>();

/// The loaded and attached programs. Everything is detached when this value is dropped, and by the
/// kernel when the process dies: nothing is pinned.
pub struct Probes {
    ebpf: Ebpf,
    scope: HashMap<MapData, u64, Bytes<SCOPE_ENTRY>>,
    scope_cgroups: HashMap<MapData, u64, Bytes<SCOPE_ENTRY>>,
    any_armed: Array<MapData, u32>,
    inits: HashMap<MapData, u32, Bytes<INIT_ENTRY>>,
    exchanges: HashMap<MapData, u64, Bytes<CONVERSATION>>,
    probers: HashMap<MapData, u32, u32>,
    counters: PerCpuArray<MapData, Bytes<COUNTERS>>,
    relays: PerCpuArray<MapData, Bytes<RELAY_STATE>>,
    lanes: u32,
    missed: StdHashMap<&'static str, u64>,
    attached: Vec<Hook>,
    refused: Vec<Hook>,
    by_cookie: bool,
}

/// The kernel's types, parsed, take more memory than all that comes after them.
fn give_memory_back() {
    // SAFETY: it takes a number, and may be called at any time (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

impl Probes {
    /// Loads the programs and attaches them to all hooks that the kernel has.
    ///
    /// # Errors
    /// If the kernel refuses; the message names the program and the remedy.
    pub fn load(facts: &Facts, options: LoadOptions) -> Result<(Self, Records)> {
        if OBJECT.is_empty() {
            bail!(
                "this binary was built without its kernel programs; run `cargo xtask setup` and build again"
            );
        }
        facts.require_all()?;
        lockdown::require_none()?;
        memlock::lift()?;
        let log_level = if options.kernel_log { aya_log::Level::Debug as u8 } else { 0 };
        let mut ebpf = EbpfLoader::new()
            // Offsets are in OFFSETS: there is nothing to relocate.
            .btf(None)
            .override_global("OFFSETS", facts.offsets.as_bytes(), true)
            .override_global("SETTINGS", facts.settings.as_bytes(), true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .map_max_entries("RECORDS", options.ring_buffer)
            .map_max_entries("COUNTERS", MAX_TARGETS * facts.settings.lanes)
            .map_max_entries("NOTES", if facts.settings.lanes == LANES { NOTES } else { 1 })
            .load(OBJECT)
            .context("cannot load the kernel programs; run `lastpacket check`")?;
        let records = Records::new(ebpf.take_map("RECORDS").context("the object has no map RECORDS")?)?;
        let mut probes = Self {
            scope: HashMap::try_from(ebpf.take_map("SCOPE").context("the object has no map SCOPE")?)?,
            scope_cgroups: HashMap::try_from(
                ebpf.take_map("SCOPE_CGROUPS").context("the object has no map SCOPE_CGROUPS")?,
            )?,
            any_armed: Array::try_from(
                ebpf.take_map("ANY_ARMED").context("the object has no map ANY_ARMED")?,
            )?,
            inits: HashMap::try_from(ebpf.take_map("INITS").context("the object has no map INITS")?)?,
            exchanges: HashMap::try_from(
                ebpf.take_map("EXCHANGES").context("the object has no map EXCHANGES")?,
            )?,
            probers: HashMap::try_from(ebpf.take_map("PROBERS").context("the object has no map PROBERS")?)?,
            counters: PerCpuArray::try_from(
                ebpf.take_map("COUNTERS").context("the object has no map COUNTERS")?,
            )?,
            relays: PerCpuArray::try_from(ebpf.take_map("RELAYS").context("the object has no map RELAYS")?)?,
            lanes: facts.settings.lanes,
            missed: StdHashMap::new(),
            attached: Vec::new(),
            refused: Vec::new(),
            by_cookie: facts.settings.scope_by_cookie == 1,
            ebpf,
        };
        // Not before: what the loader had parsed of it is freed by now, and its memory is used again.
        let btf = Btf::from_sys_fs().context("cannot read the kernel's type information (BTF)")?;
        for hook in facts.hooks.iter().filter(|hook| options.inventory || !hook.of_inventory) {
            probes.attach(*hook, &btf)?;
        }
        drop(btf);
        give_memory_back();
        Ok((probes, records))
    }

    fn attach(&mut self, hook: Hook, btf: &Btf) -> Result<()> {
        let mut programs = std::iter::once(hook.name).chain(hook.relief.programs.iter().copied());
        let result = programs
            .try_for_each(|program| self.attach_program(program, &hook, btf))
            .with_context(|| format!("cannot attach {}; run `lastpacket check`", hook.name));
        match result {
            Ok(()) => self.attached.push(hook),
            Err(error) if hook.required => return Err(error),
            Err(error) => {
                log::warn!("{error:#}: without it {} cannot be seen", hook.shows);
                self.refused.push(hook);
            }
        }
        Ok(())
    }

    fn attach_program(&mut self, name: &str, hook: &Hook, btf: &Btf) -> Result<()> {
        let program =
            self.ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
        match program {
            Program::BtfTracePoint(program) => {
                program.load(hook.name, btf)?;
                program.attach()?;
            }
            Program::RawTracePoint(program) => {
                program.load()?;
                program.attach(hook.name)?;
            }
            Program::KProbe(program) => {
                program.load()?;
                program.attach(hook.name, 0)?;
            }
            _ => bail!("the program {name} is of a kind that nobody attaches"),
        }
        Ok(())
    }

    /// Hooks that the kernel has, but that could not be attached.
    #[must_use]
    pub fn refused(&self) -> &[Hook] {
        &self.refused
    }

    /// Hooks that are attached.
    #[must_use]
    pub fn attached(&self) -> &[Hook] {
        &self.attached
    }

    /// The programs, for the reader of their debug lines.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The key of a network namespace in the scope table.
    #[must_use]
    pub fn netns_key(&self, identity: crate::host::netns::Identity) -> u64 {
        identity.cookie.filter(|_| self.by_cookie).unwrap_or(identity.inode)
    }

    /// Puts a namespace or cgroup in scope, or changes what is done for it.
    ///
    /// # Errors
    /// If the table is full.
    pub fn scope(&mut self, key: ScopeKey, entry: ScopeEntry) -> Result<()> {
        let (map, key) = self.scope_map(key);
        map.insert(key, to_array(&entry), 0).context("cannot put a target in scope: too many targets")?;
        if entry.mode == Mode::ARMED {
            self.any_armed.set(0, 1, 0).context("cannot arm the kernel programs")?;
        }
        Ok(())
    }

    /// Takes a namespace or cgroup out of scope. That it is gone already is no error.
    pub fn unscope(&mut self, key: ScopeKey) {
        let (map, key) = self.scope_map(key);
        let _ = map.remove(&key);
        self.disarm();
    }

    /// Lets the programs of reads and writes rest if no target is armed. The programs arm a target by
    /// themselves, and say that any is only then: so it is cleared first, and looked afterwards.
    fn disarm(&mut self) {
        let is_armed = |entry: &Bytes<SCOPE_ENTRY>| {
            ScopeEntry::read_from(entry).is_some_and(|entry| entry.mode == Mode::ARMED)
        };
        let armed = |map: &HashMap<MapData, u64, Bytes<SCOPE_ENTRY>>| {
            map.iter().filter_map(Result::ok).any(|(_, entry)| is_armed(&entry))
        };
        // What fails leaves it set, which costs time only.
        if self.any_armed.set(0, 0, 0).is_ok() && (armed(&self.scope) || armed(&self.scope_cgroups)) {
            let _ = self.any_armed.set(0, 1, 0);
        }
    }

    /// Forgets what the applications of a target read and wrote: sockets that are still open then, or close
    /// unseen, would leave their entries behind.
    pub fn forget_exchanges(&mut self, target: u32) {
        let entries = self.exchanges.iter().filter_map(Result::ok);
        let left = entries.filter(|(_, entry)| entry.starts_with(target.as_bytes()));
        let sockets: Vec<u64> = left.map(|(socket, _)| socket).collect();
        for socket in sockets {
            // It may have been closed meanwhile.
            let _ = self.exchanges.remove(&socket);
        }
    }

    fn scope_map(&mut self, key: ScopeKey) -> (&mut HashMap<MapData, u64, Bytes<SCOPE_ENTRY>>, u64) {
        match key {
            ScopeKey::Netns(key) => (&mut self.scope, key),
            ScopeKey::Cgroup(key) => (&mut self.scope_cgroups, key),
        }
    }

    /// Registers a container's init by its process id in the initial pid namespace.
    ///
    /// # Errors
    /// If the table is full.
    pub fn register_init(&mut self, pid: u32, entry: InitEntry) -> Result<()> {
        self.inits
            .insert(pid, to_array(&entry), 0)
            .context("cannot register a container's init: too many containers")
    }

    /// Forgets a container's init. That it is gone already is no error.
    pub fn forget_init(&mut self, pid: u32) {
        let _ = self.inits.remove(&pid);
    }

    /// From now on connections that these processes make are probes.
    ///
    /// # Errors
    /// If there are too many.
    pub fn set_probers(&mut self, pids: &[u32]) -> Result<()> {
        let known: Vec<u32> = self.probers.keys().filter_map(Result::ok).collect();
        for gone in known.iter().filter(|pid| !pids.contains(pid)) {
            let _ = self.probers.remove(gone);
        }
        for pid in pids {
            self.probers.insert(pid, 0, 0).context("cannot register a prober: too many kubelets")?;
        }
        Ok(())
    }

    /// Cgroups that are made or entered from now on; of use once, and with
    /// [`LoadOptions::inventory`].
    ///
    /// # Errors
    /// If they were taken before.
    pub fn take_cgroups(&mut self) -> Result<Records> {
        Records::new(self.ebpf.take_map("CGROUPS").context("the map CGROUPS was taken before")?)
    }

    /// What the programs counted for a target, over all lanes and CPUs.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn counters(&self, target: u32) -> Result<Counters> {
        let mut sum = Counters::default();
        for lane in 0..self.lanes {
            let slot = target + lane * MAX_TARGETS;
            let per_cpu = self.counters.get(&slot, 0).context("cannot read the kernel programs' counters")?;
            sum = per_cpu.iter().filter_map(|bytes| Counters::read_from(bytes)).fold(sum, Counters::plus);
        }
        Ok(sum)
    }

    /// How often the kernel skipped a program because it was running already on the same CPU, by
    /// program (`recursion_misses`, from Linux 5.12 on), and no other took over: each is an event that
    /// was not seen. `None` if /proc cannot be read. Where there are new ones, it takes until it is sure of them.
    #[must_use]
    pub fn missed(&mut self) -> Option<&StdHashMap<&'static str, u64>> {
        if !Path::new("/proc/self/fdinfo").exists() {
            return None;
        }
        for hook in &self.attached {
            let before = self.missed.get(hook.name).copied().unwrap_or_default();
            let now = self.missed_of(hook, before).filter(|now| *now > before);
            self.missed.extend(now.map(|now| (hook.name, now)));
        }
        Some(&self.missed)
    }

    /// An event that is just being taken over looks like one that is missed: what is missed is missing still
    /// when its task has run on.
    fn missed_of(&self, hook: &Hook, before: u64) -> Option<u64> {
        let mut least = u64::MAX;
        for _ in 0..MISSED_LOOKS {
            // First what was taken over: then it is never more than what was skipped.
            let taken_over = self.taken_over(&hook.relief)?;
            least = least.min(self.skipped(hook.name)?.saturating_sub(taken_over));
            if least <= before || hook.relief.programs.is_empty() {
                break;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        Some(least)
    }

    fn taken_over(&self, relief: &Relief) -> Option<u64> {
        if relief.programs.is_empty() {
            return Some(0);
        }
        let per_cpu = self.relays.get(&relief.number, 0).ok()?;
        let states = per_cpu.iter().filter_map(|bytes| RelayState::read_from(bytes));
        Some(states.flat_map(|state| state.taken_over).sum())
    }

    fn skipped(&self, name: &str) -> Option<u64> {
        let fd = match self.ebpf.program(name)? {
            Program::BtfTracePoint(program) => program.fd(),
            Program::RawTracePoint(program) => program.fd(),
            Program::KProbe(program) => program.fd(),
            _ => return None,
        };
        let fd = fd.ok()?.as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
    }
}

fn to_array<T: Pod, const N: usize>(value: &T) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(value.as_bytes());
    bytes
}
