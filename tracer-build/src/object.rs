//! Building the kernel object with the toolchain that was found.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

use crate::{BPF_TARGET, Core, Toolchain, linker, target_dir};

/// The binary target of tracer-ebpf.
const OBJECT: &str = "lastpacket-ebpf";

/// What an outer cargo or clippy sets for its own compiler; its flags and target are overridden anyway.
const OUTER_CARGO: [&str; 3] = ["LD_LIBRARY_PATH", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER"];

impl Toolchain {
    /// Builds the kernel object into `out_dir` and returns its path.
    ///
    /// Meant for a build script: the compiler's warnings become the build script's.
    ///
    /// # Errors
    /// When the kernel programs do not compile; the error holds what cargo said.
    pub fn build_object(&self, out_dir: &Path) -> Result<PathBuf> {
        // One folder for the debug and the release build, since the object is the same in both.
        let built_in = target_dir(&self.workspace).join("bpf");
        let cargo = self.cargo(&built_in).output().context("cannot run cargo")?;
        let said = String::from_utf8_lossy(&cargo.stderr);
        if !cargo.status.success() {
            bail!("the kernel programs do not compile:\n{said}");
        }
        for line in said.lines().filter(|line| !line.is_empty()) {
            println!("cargo:warning={line}");
        }
        let built = built_in.join(BPF_TARGET).join("release").join(OBJECT);
        let linked = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        let object = out_dir.join(OBJECT);
        fs::write(&object, without_dwarf(&linked)?)
            .with_context(|| format!("cannot write {}", object.display()))?;
        Ok(object)
    }

    fn cargo(&self, built_in: &Path) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for name in OUTER_CARGO {
            cargo.env_remove(name);
        }
        cargo
            .current_dir(&self.workspace)
            .args(["build", "--quiet", "--release", "--package", "tracer-ebpf", "--bin", OBJECT])
            .args(["--target", BPF_TARGET, "--target-dir"])
            .arg(built_in)
            .env("RUSTC", &self.compiler.path)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags());
        match self.compiler.core {
            // aya-ebpf needs one unstable feature, the inline assembly of BPF; nothing else may use any.
            Core::Precompiled => cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf"),
            Core::Source => cargo.env("RUSTC_BOOTSTRAP", "1").args(["-Z", "build-std=core"]),
        };
        cargo
    }

    fn rustflags(&self) -> String {
        // In a build script, the machine that will run the programs may not be the one that builds them.
        let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
        [
            format!("-Clinker={}", linker(&self.workspace).display()),
            "-Clink-arg=--btf".to_owned(),
            "-Cdebuginfo=2".to_owned(),
            format!("--cfg=bpf_target_arch=\"{arch}\""),
        ]
        .join("\x1f")
    }
}

/// The object without DWARF, most of it, which nobody reads: the kernel's own form of debug
/// information (`.BTF`, `.BTF.ext`) was made from it and stays.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the linker's object cannot be read")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table; this library wants two.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("the object cannot be written without DWARF")?;
    Ok(stripped)
}
