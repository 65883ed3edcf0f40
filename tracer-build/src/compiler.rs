//! Finding a rustc that can compile for BPF.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BPF_TARGET;

/// The major versions of LLVM that bpf-linker can be built for.
pub const KNOWN_LLVM: RangeInclusive<u32> = 21..=23;

/// Where Debian's compiler is, which rustup's hides in `PATH`.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// A rustc that can compile for BPF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The compiler itself, not rustup's proxy of it.
    pub path: PathBuf,
    /// What it calls itself: `rustc 1.96.0 (…)`.
    pub version: String,
    /// The major version of its LLVM, which bpf-linker must share.
    pub llvm: u32,
    /// How it comes by a core library for BPF.
    pub core: Core,
}

/// How a compiler comes by a core library for BPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// Its distribution ships it compiled.
    Precompiled,
    /// Cargo compiles it from the compiler's own source.
    Source,
}

impl Compiler {
    /// The first usable one of the system's compiler and the one that cargo uses here.
    pub fn find() -> Option<Compiler> {
        let of_cargo = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        [OsString::from(SYSTEM_RUSTC), of_cargo].into_iter().find_map(|rustc| Compiler::inspect(&rustc))
    }

    fn inspect(rustc: &OsString) -> Option<Compiler> {
        let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?.trim_end());
        let core = Core::of(&sysroot)?;
        let (version, llvm) = parse_version(&ask(rustc, &["-vV"])?)?;
        KNOWN_LLVM.contains(&llvm).then(|| Compiler { path: sysroot.join("bin/rustc"), version, llvm, core })
    }
}

impl Core {
    fn of(sysroot: &Path) -> Option<Core> {
        let rustlib = sysroot.join("lib/rustlib");
        let compiled = fs::read_dir(rustlib.join(BPF_TARGET).join("lib")).into_iter().flatten().flatten();
        let is_core = |name: &OsString| name.to_string_lossy().starts_with("libcore-");
        if compiled.map(|entry| entry.file_name()).any(|name| is_core(&name)) {
            return Some(Core::Precompiled);
        }
        rustlib.join("src/rust/library/core").exists().then_some(Core::Source)
    }
}

fn ask(rustc: &OsString, question: &[&str]) -> Option<String> {
    // Cargo's own library path names another compiler's libraries.
    let answer = Command::new(rustc).args(question).env_remove("LD_LIBRARY_PATH").output().ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// The first line and the major version of LLVM from what `rustc -vV` says.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.lines().next()?.to_owned();
    let llvm = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let major = llvm.split('.').next()?.parse().ok()?;
    Some((version, major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_llvm() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(text), Some(("rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(), 22)));
        assert_eq!(parse_version("rustc 1.96.0\n"), None);
    }
}
