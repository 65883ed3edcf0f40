//! `cargo xtask build`: lastpacket with its kernel programs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, shell};

/// What makes the binary small: only our own crates are in the path of records; what the others gain in
/// speed is lost in size. Given here and not in Cargo.toml, because the kernel programs are built by
/// the same profile, and their verifier is particular about the code that it gets.
const SMALL: [&str; 4] = [
    "profile.release.strip=true",
    "profile.release.codegen-units=1",
    "profile.release.lto=\"fat\"",
    "profile.release.package.\"*\".opt-level=\"s\"",
];

/// How to build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the optimised, statically linked binary
    #[arg(long)]
    release: bool,
}

/// Builds and says where the binary is.
pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = if args.release { release()? } else { debug()? };
    let size = fs::metadata(&binary).with_context(|| format!("cannot read {}", binary.display()))?.len();
    println!("{} ({:.1} MB)", binary.display(), size as f64 / 1e6);
    Ok(())
}

/// Builds the release binary and returns its path.
///
/// It is linked statically, so that it runs on any node. The explicit target keeps that from
/// build scripts and procedural macros, which cannot be static.
pub(crate) fn release() -> Result<PathBuf> {
    setup::ensure()?;
    let host = shell::capture(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let host = host.trim();
    let mut cargo = build()?;
    for setting in SMALL {
        cargo.args(["--config", setting]);
    }
    cargo.args(["--release", "--target", host]).env("RUSTFLAGS", "-C target-feature=+crt-static");
    shell::run(&mut cargo)?;
    Ok(tracer_build::target_dir(shell::workspace()?).join(host).join("release/lastpacket"))
}

fn debug() -> Result<PathBuf> {
    setup::ensure()?;
    shell::run(&mut build()?)?;
    Ok(tracer_build::target_dir(shell::workspace()?).join("debug/lastpacket"))
}

fn build() -> Result<Command> {
    let mut cargo = shell::cargo()?;
    cargo.args(["build", "--package", "tracer-user"]);
    Ok(cargo)
}
