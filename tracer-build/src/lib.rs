//! The toolchain of the kernel programs: what it consists of, whether it is there, and the object it builds.
//!
//! Shared by `tracer-user/build.rs`, which embeds the object, and by `cargo xtask setup`, which
//! installs what is missing.

mod compiler;
mod object;

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

pub use compiler::{Compiler, Core, KNOWN_LLVM};

/// The target triple of the kernel programs.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// The version of bpf-linker that `cargo xtask setup` installs.
pub const LINKER_VERSION: &str = "0.13.0";

/// What to do about anything that is missing.
pub const REMEDY: &str = "cargo xtask setup";

/// A compiler and a linker that fit each other.
#[derive(Debug, Clone)]
pub struct Toolchain {
    workspace: PathBuf,
    compiler: Compiler,
}

/// A part that keeps the kernel programs from being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// No compiler has a core for the BPF target.
    Compiler,
    /// bpf-linker is not installed in the workspace.
    Linker,
    /// bpf-linker is there, but nothing says that it was made for this compiler.
    Match,
}

/// Everything that is missing; `REMEDY` mends each part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub Vec<Part>);

/// Looks for the toolchain of the kernel programs.
///
/// # Errors
/// Names each missing part.
pub fn toolchain(workspace: &Path) -> Result<Toolchain, Missing> {
    let compiler = Compiler::find();
    let linker = linker(workspace).exists();
    match compiler {
        Some(compiler) if linker && is_ready(workspace, &compiler) => {
            Ok(Toolchain { workspace: workspace.to_owned(), compiler })
        }
        Some(_) => Err(Missing(vec![if linker { Part::Match } else { Part::Linker }])),
        None if linker => Err(Missing(vec![Part::Compiler])),
        None => Err(Missing(vec![Part::Compiler, Part::Linker])),
    }
}

/// The workspace's folder of build tools, which no commit contains.
pub fn tools(workspace: &Path) -> PathBuf {
    workspace.join(".tools")
}

/// Where bpf-linker belongs.
pub fn linker(workspace: &Path) -> PathBuf {
    tools(workspace).join("bin/bpf-linker")
}

/// The file that setup writes last: it names the versions that were made for each other.
pub fn ready_file(workspace: &Path) -> PathBuf {
    tools(workspace).join("ready")
}

/// What the ready file says when bpf-linker was made for this compiler.
pub fn ready_text(compiler: &Compiler) -> String {
    format!(
        "bpf-linker {LINKER_VERSION}\nLLVM {}\n{} ({})\n",
        compiler.llvm,
        compiler.version,
        compiler.path.display()
    )
}

/// Where cargo keeps what it builds for this workspace.
pub fn target_dir(workspace: &Path) -> PathBuf {
    workspace.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

fn is_ready(workspace: &Path, compiler: &Compiler) -> bool {
    fs::read_to_string(ready_file(workspace)).is_ok_and(|text| text == ready_text(compiler))
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Compiler => "no rustc has a core for BPF",
            Part::Linker => "bpf-linker is not installed",
            Part::Match => "bpf-linker does not fit the compiler",
        })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(Part::to_string).collect();
        write!(f, "{} (run `{REMEDY}`)", parts.join(", "))
    }
}

impl std::error::Error for Missing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_name_the_remedy() {
        let missing = Missing(vec![Part::Compiler, Part::Linker]);
        assert_eq!(
            missing.to_string(),
            "no rustc has a core for BPF, bpf-linker is not installed (run `cargo xtask setup`)"
        );
    }

    #[test]
    fn nothing_is_ready_in_an_empty_workspace() {
        let missing = toolchain(Path::new("/nonexistent")).unwrap_err();
        assert!(missing.0.contains(&Part::Linker));
    }
}
