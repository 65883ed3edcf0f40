//! lastpacket

use clap::Parser;
use tracer_user::rehearse::demo;

#[derive(Parser)]
enum Command {
    /// Runs the demonstration server.
    #[command(hide = true)]
    DemoServer {
        /// What it does at SIGTERM.
        #[arg(long, value_enum)]
        behaviour: demo::Behaviour,
        /// Where it listens.
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::DemoServer { behaviour, port } => demo::run(behaviour, port).await,
    }
}
