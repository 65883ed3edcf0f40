//! How to reach the API, and as which node.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// The variable that the DaemonSet fills with the node's name, by the downward API.
pub const NODE_NAME: &str = "NODE_NAME";

/// For a connection; then the API is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client by a given kubeconfig; else by `KUBECONFIG`, `~/.kube/config`, or the pod's service
/// account. Tokens and certificates that rotate are read again.
///
/// # Errors
/// If there is none of them, or it cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.with_context(
                || format!("the kubeconfig {} does not tell how to reach the API", path.display()),
            )?
        }
        None => Config::infer()
            .await
            .context("neither a kubeconfig nor a service account tells how to reach the Kubernetes API")?,
    };
    with(config)
}

/// A client and the namespace that it works in, by the conventions of kubectl: a kubeconfig given by name,
/// or those of `KUBECONFIG`, or `~/.kube/config`, and a context in it; else, inside a pod, its service
/// account.
///
/// # Errors
/// If there is none of them, or it cannot be used.
pub async fn for_user(kubeconfig: Option<&Path>, context: Option<String>) -> Result<(Client, String)> {
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        None if options.context.is_some() => Config::from_kubeconfig(&options).await,
        None => {
            let config = Config::infer().await.context(
                "neither a kubeconfig nor a service account tells how to reach the Kubernetes API; give --kubeconfig",
            )?;
            return Ok((with(config.clone())?, config.default_namespace));
        }
    };
    let config = config.context(
        "the kubeconfig does not tell how to reach the Kubernetes API; look with `kubectl config get-contexts`",
    )?;
    Ok((with(config.clone())?, config.default_namespace))
}

/// A client by a configuration. It repeats what the server refuses for being too busy (429, 503, 504)
/// when `Retry-After` says.
///
/// # Errors
/// If the configuration's certificates or credentials cannot be used.
pub fn with(mut config: Config) -> Result<Client> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    if config.cluster_url.scheme_str() == Some("http") {
        // Such as `kubectl proxy`: no certificate is checked, so that those of the system, which an image
        // may lack, are not to be asked for.
        config.root_cert.get_or_insert_default();
    }
    Client::try_from(config).context("cannot set up a client of the Kubernetes API")
}

/// The node's name as given, or by the environment.
///
/// # Errors
/// If neither tells it.
pub fn node_name(given: Option<String>) -> Result<String> {
    match given.or_else(|| std::env::var(NODE_NAME).ok()).filter(|name| !name.is_empty()) {
        Some(name) => Ok(name),
        None => bail!("which node is this? Give --node-name, or {NODE_NAME} by the downward API"),
    }
}
