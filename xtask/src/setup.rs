//! `cargo xtask setup`: a compiler with a core for BPF, and bpf-linker made for its LLVM.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use tracer_build::{Compiler, Core, KNOWN_LLVM, LINKER_VERSION};

use crate::{apt, shell};

/// Debian's compiler with a compiled core for BPF; it lives beside rustup's.
const DEBIAN_COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Installs what is missing and says so, one line a step.
pub(crate) fn run() -> Result<()> {
    let workspace = shell::workspace()?;
    let compiler = match Compiler::find() {
        Some(compiler) => compiler,
        None => install_compiler()?,
    };
    let core = match compiler.core {
        Core::Precompiled => "its core for BPF",
        Core::Source => "the source of its core",
    };
    say("found", &format!("{} with {core}, {}", compiler.version, compiler.path.display()));
    if tracer_build::toolchain(workspace).is_err() {
        install_linker(workspace, &compiler)?;
    }
    say("found", &format!("bpf-linker {LINKER_VERSION} for LLVM {}", compiler.llvm));
    Ok(())
}

/// Runs setup only if something is missing, so that other verbs say nothing about it otherwise.
pub(crate) fn ensure() -> Result<()> {
    match tracer_build::toolchain(shell::workspace()?) {
        Ok(_) => Ok(()),
        Err(_) => run(),
    }
}

fn install_compiler() -> Result<Compiler> {
    let mut tried = Vec::new();
    if apt::is_usable() {
        let what = DEBIAN_COMPILER.join(" ");
        tried.extend(timed(&what, || apt::install(&DEBIAN_COMPILER)).err());
    }
    if Compiler::find().is_none() && shell::find("rustup").is_some() {
        let rustup =
            || shell::capture(Command::new("rustup").args(["component", "add", "rust-src"])).map(drop);
        tried.extend(timed("rust-src", rustup).err());
    }
    for error in &tried {
        eprintln!("    {error:#}");
    }
    Compiler::find().ok_or_else(|| {
        let (oldest, newest) = (KNOWN_LLVM.start(), KNOWN_LLVM.end());
        anyhow!(
            "no compiler for BPF: as root on Debian install {}, or with rustup run `rustup component add \
             rust-src` for a toolchain whose LLVM is {oldest} to {newest}, then run `cargo xtask setup` again",
            DEBIAN_COMPILER.join(" and ")
        )
    })
}

fn install_linker(workspace: &Path, compiler: &Compiler) -> Result<()> {
    let tools = tracer_build::tools(workspace);
    link_llvm(&tools, compiler)?;
    timed(&format!("bpf-linker {LINKER_VERSION}"), || {
        // By force: one that is there was made for another LLVM, or its installation was broken off.
        let mut cargo = shell::cargo()?;
        cargo
            .args(["install", "--quiet", "--force", "--locked", "bpf-linker", "--version", LINKER_VERSION])
            .args(["--no-default-features", "--features", &format!("llvm-{}", compiler.llvm), "--root"])
            .arg(&tools)
            .env("LLVM_PREFIX", tools.join("llvm"));
        shell::capture(&mut cargo).map(drop)
    })?;
    fs::write(tracer_build::ready_file(workspace), tracer_build::ready_text(compiler))
        .context("cannot write .tools/ready")
}

/// Makes `.tools/llvm` look like an installation of the very LLVM that the compiler has.
fn link_llvm(tools: &Path, compiler: &Compiler) -> Result<()> {
    let library = llvm_library(compiler)?;
    let folder = tools.join("llvm/lib");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("cannot clear .tools/llvm")?;
    }
    fs::create_dir_all(&folder).context("cannot make .tools/llvm")?;
    // One name for linking, and the library's own for loading: the folder is bpf-linker's rpath.
    let own = library.file_name().context("libLLVM has no name")?;
    for name in ["libLLVM.so".as_ref(), own] {
        symlink(&library, folder.join(name)).context("cannot link libLLVM")?;
    }
    Ok(())
}

/// The shared LLVM that the compiler loads.
fn llvm_library(compiler: &Compiler) -> Result<PathBuf> {
    let loads = shell::capture(Command::new("ldd").arg(&compiler.path).env_remove("LD_LIBRARY_PATH"))?;
    let llvm = loads.lines().find(|line| line.trim_start().starts_with("libLLVM"));
    let Some(path) = llvm.and_then(|line| line.split_whitespace().nth(2)) else {
        bail!("{} has no shared LLVM that bpf-linker could use", compiler.path.display());
    };
    fs::canonicalize(path).with_context(|| format!("cannot find {path}"))
}

fn timed(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    say("installing", what);
    let start = Instant::now();
    work().with_context(|| format!("cannot install {what}"))?;
    say("done", &format!("{what} ({:.0} s)", start.elapsed().as_secs_f64()));
    Ok(())
}

fn say(what: &str, detail: &str) {
    eprintln!("    {what:<12}{detail}");
}
