//! `lastpacket agent`: the DaemonSet.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};

use super::{
    Outcome,
    options::{TraceOptions, interrupted, runtime},
};
use crate::{
    agent, kube, serve,
    serve::{Pages, Readiness},
    sink::prometheus::{self, Metrics},
};

/// How the agent runs.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Where to serve /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDRESS", default_value_t = serve::DEFAULT_ADDRESS)]
    listen: SocketAddr,
    /// How to reach the Kubernetes API [default: KUBECONFIG, ~/.kube/config, the service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Go without the Kubernetes API: pods are named by their uids
    #[arg(long, conflicts_with = "kubeconfig")]
    without_api: bool,
    /// Add the label `pod` to metrics
    #[arg(long)]
    pod_label: bool,
    /// Post no Warning Events on pods that were cut
    #[arg(long)]
    no_warnings: bool,
    #[command(flatten)]
    options: TraceOptions,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    super::options::require_root()?;
    runtime()?.block_on(async {
        let interrupted = interrupted()?;
        let node = kube::client::node_name(arguments.options.node_name.clone());
        let client = match arguments.without_api {
            true => None,
            false => Some(kube::client::client(arguments.kubeconfig.as_deref()).await.context(
                "the agent names pods by the Kubernetes API; give --kubeconfig, or --without-api",
            )?),
        };
        let node = if client.is_some() { node? } else { node.unwrap_or_default() };
        let listener = serve::listen(arguments.listen).await?;
        let (metrics, readiness) =
            (Arc::new(Metrics::new(arguments.pod_label)), Arc::new(Readiness::default()));
        let shown = Arc::clone(&metrics);
        let pages = Pages {
            metrics: Box::new(move || shown.encode()),
            metrics_type: prometheus::CONTENT_TYPE,
            readiness: Arc::clone(&readiness),
        };
        tokio::spawn(serve::serve(listener, pages));
        let pipeline = arguments.options.start_agent()?;
        let settings = agent::Settings {
            node,
            checkers: arguments.options.probe_peer.clone(),
            one_way: arguments.options.one_way.clone(),
            client,
            warnings: !arguments.no_warnings,
        };
        agent::run(pipeline, settings, readiness, move |line| metrics.observe(line), interrupted).await?;
        Ok(Outcome::Fine)
    })
}
