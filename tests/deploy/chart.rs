//! The chart, rendered by a real helm: its defaults are the manifest.

use std::fs;

use anyhow::{Result, ensure};
use lastpacket_tests::programs::with_programs;
use libtest_mimic::Trial;

use crate::files::{documents, of_kind, path, read, run};

const MANIFEST: &str = "deploy/manifest.yaml";
const HEADER: &str = "\
# lastpacket's agent for every node: kubectl apply -f deploy/manifest.yaml
# Rendered from deploy/chart with createNamespace: true; change it there.
";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        with_programs("golden_chart_renders_to_the_manifest", &["helm"], renders_to_the_manifest),
        with_programs("chart_leaves_the_namespace_to_helm", &["helm"], leaves_the_namespace),
        with_programs("chart_passes_its_linter", &["helm"], passes_its_linter),
        with_programs("chart_switches", &["helm"], switches),
        with_programs("chart_refuses_values_that_it_does_not_know", &["helm"], refuses),
    ]
}

fn render(set: &str) -> Result<String> {
    run("helm", &["template", "lastpacket", "deploy/chart", "--namespace", "lastpacket", "--set", set])
}

/// Comments and all; written anew with `UPDATE=1`.
fn renders_to_the_manifest() -> Result<()> {
    let rendered = render("createNamespace=true")?;
    let lines = rendered.lines().filter(|line| !line.is_empty() && !line.starts_with("# Source: "));
    let rendered: String = lines.skip(1).flat_map(|line| [line, "\n"]).collect();
    let rendered = format!("{HEADER}{rendered}");
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(path(MANIFEST), &rendered)?;
    }
    ensure!(read(MANIFEST)? == rendered, "{MANIFEST} differs from the chart's defaults:\n{rendered}");
    Ok(())
}

/// `helm install --create-namespace` makes it.
fn leaves_the_namespace() -> Result<()> {
    let rendered = documents(&render("createNamespace=false")?)?;
    let mut manifest = documents(&read(MANIFEST)?)?;
    manifest.retain(|document| document["kind"] != "Namespace");
    ensure!(rendered == manifest, "the defaults make something else: {rendered:?}");
    Ok(())
}

fn passes_its_linter() -> Result<()> {
    run("helm", &["lint", "--strict", "deploy/chart"]).map(drop)
}

fn switches() -> Result<()> {
    let all = "serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboards.enabled=true,\
               serviceMonitor.labels.release=prometheus,extraArgs={--quiet,2s}";
    let rendered = documents(&render(all)?)?;
    let monitor = of_kind(&rendered, "ServiceMonitor")?;
    ensure!(monitor["spec"]["endpoints"][0]["honorLabels"] == true, "{monitor}");
    ensure!(monitor["metadata"]["labels"]["release"] == "prometheus", "{monitor}");
    let service = of_kind(&rendered, "Service")?;
    let pods = &of_kind(&rendered, "DaemonSet")?["spec"]["template"];
    for (label, value) in service["spec"]["selector"].as_object().into_iter().flatten() {
        ensure!(pods["metadata"]["labels"][label] == *value, "the Service finds no agent by {label}");
    }
    let arguments = &pods["spec"]["containers"][0]["args"];
    ensure!(*arguments == serde_json::json!(["agent", "--quiet", "2s"]), "{arguments}");
    let rules = &documents(&read("deploy/rules.yaml")?)?[0];
    ensure!(of_kind(&rendered, "PrometheusRule")?["spec"] == *rules, "the rules are others");
    let board = of_kind(&rendered, "ConfigMap")?["data"]["lastpacket.json"].as_str().unwrap_or_default();
    let board: serde_json::Value = serde_json::from_str(board)?;
    ensure!(board == serde_json::from_str::<serde_json::Value>(&read("deploy/dashboard.json")?)?);
    Ok(())
}

fn refuses() -> Result<()> {
    for wrong in
        ["tolerance=x", "maxUnavailable=0", "serviceMonitor.enabled=maybe", "image.pullPolicy=Sometimes"]
    {
        let error = render(wrong).err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(error.contains("don't meet the specifications of the schema"), "{wrong}: {error}");
    }
    Ok(())
}
