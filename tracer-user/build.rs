//! Embeds the kernel programs: puts their object, or an empty file without a toolchain, in `$OUT_DIR`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has no workspace")?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    for part in ["tracer-ebpf", "tracer-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(part).display());
    }
    // Setup writes it last. While it is missing, cargo runs this script again in every build.
    println!("cargo:rerun-if-changed={}", tracer_build::ready_file(workspace).display());
    match tracer_build::toolchain(workspace) {
        Ok(toolchain) => {
            toolchain.build_object(&out_dir)?;
        }
        Err(missing) => {
            println!("cargo:warning=kernel programs left out: {missing}");
            fs::write(out_dir.join("lastpacket-ebpf"), []).context("cannot write the empty object")?;
        }
    }
    Ok(())
}
