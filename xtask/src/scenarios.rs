//! `cargo xtask scenarios`: the well-known shutdown experiments, and a table of what was expected and
//! seen.

use anyhow::{Result, bail};

use crate::{programs, setup, shell};

/// Which, and how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The scenarios to play, such as s1 or s3-rollout-current; all if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// With their original durations instead of a tenth of them
    #[arg(long)]
    full: bool,
}

/// Plays them; artefacts of each are kept in target/scenarios.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !shell::is_root() {
        bail!("scenarios load kernel programs and need root: run it as root, or with `sudo -E`");
    }
    setup::ensure()?;
    programs::install_all()?;
    let mut cargo = shell::cargo()?;
    cargo.args(["test", "--workspace", "--test", "scenarios"]);
    cargo.env("LASTPACKET_REQUIRE_LIVE", "1");
    cargo.env("LASTPACKET_SCENARIOS", args.names.join(","));
    if args.full {
        cargo.env("LASTPACKET_SCENARIOS_FULL", "1");
    }
    shell::run(&mut cargo)
}
