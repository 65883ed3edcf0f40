//! `cargo xtask servers`: rehearses the servers of docs/servers.md and makes its tables anew.

use anyhow::{Result, bail};

use crate::{programs, setup, shell};

/// How often.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rehearse every row so many times
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

/// Runs all rows and writes what was seen into the page, also if some of it was not as expected.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !shell::is_root() {
        bail!("rehearsals load kernel programs and need root: run it as root, or with `sudo -E`");
    }
    setup::ensure()?;
    programs::install_all()?;
    let mut cargo = shell::cargo()?;
    cargo.args(["test", "--workspace", "--test", "servers"]);
    cargo.env("LASTPACKET_REQUIRE_LIVE", "1");
    cargo.env("LASTPACKET_SERVERS_REPEAT", args.repeat.to_string());
    cargo.env("LASTPACKET_SERVERS_PAGE", shell::workspace()?.join("docs/servers.md"));
    shell::run(&mut cargo)
}
