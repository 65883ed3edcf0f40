//! The manifest: what it allows the agent, and that this is enough.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use lastpacket_tests::{
    binary,
    needs::{anywhere, live},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::files::{documents, of_kind, read};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        anywhere("manifest_grants_no_more_than_reading", grants_no_more),
        anywhere("manifest_confines_the_agent", confines),
        anywhere("manifest_runs_on_every_node", runs_everywhere),
        live("manifest_capabilities_are_enough_and_all_needed", capabilities_are_right),
    ]
}

fn manifest() -> Result<Vec<Value>> {
    documents(&read("deploy/manifest.yaml")?)
}

fn agent(manifest: &[Value]) -> Result<&Value> {
    Ok(&of_kind(manifest, "DaemonSet")?["spec"]["template"]["spec"])
}

fn grants_no_more() -> Result<()> {
    let manifest = manifest()?;
    let rules = of_kind(&manifest, "ClusterRole")?["rules"].as_array().context("no rules")?;
    let granted: Vec<_> = rules.iter().map(|rule| json!([rule["resources"], rule["verbs"]])).collect();
    let expected = [
        json!([["pods"], ["get", "list", "watch"]]),
        json!([["endpointslices"], ["list", "watch"]]),
        json!([["events"], ["create"]]),
        json!([["selfsubjectaccessreviews"], ["create"]]),
    ];
    ensure!(granted == expected, "{granted:?}");
    Ok(())
}

fn confines() -> Result<()> {
    let manifest = manifest()?;
    let agent = agent(&manifest)?;
    let context = &agent["containers"][0]["securityContext"];
    ensure!(context["privileged"] == false && context["allowPrivilegeEscalation"] == false, "{context}");
    ensure!(context["readOnlyRootFilesystem"] == true, "{context}");
    ensure!(context["capabilities"]["drop"] == json!(["ALL"]), "{context}");
    ensure!(context["seccompProfile"]["type"] == "RuntimeDefault", "{context}");
    ensure!(agent["hostNetwork"].is_null(), "the agent needs no host network");
    let mounts = agent["containers"][0]["volumeMounts"].as_array().context("no mounts")?;
    ensure!(mounts.iter().all(|mount| mount["readOnly"] == true), "{mounts:?}");
    Ok(())
}

fn runs_everywhere() -> Result<()> {
    let manifest = manifest()?;
    let agent = agent(&manifest)?;
    ensure!(agent["hostPID"] == true && agent["tolerations"] == json!([{"operator": "Exists"}]), "{agent}");
    let container = &agent["containers"][0];
    let node = &container["env"][0];
    ensure!(node["name"] == "NODE_NAME" && node["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName");
    let address = tracer_user::serve::DEFAULT_ADDRESS;
    ensure!(container["ports"][0]["containerPort"] == address.port(), "the agent listens on {address}");
    ensure!(container["livenessProbe"]["httpGet"]["path"] == "/healthz");
    ensure!(container["readinessProbe"]["httpGet"]["path"] == "/readyz");
    Ok(())
}

/// `lastpacket check` as the agent: with these capabilities and no others it says the same as with all,
/// and something else as soon as one is missing.
fn capabilities_are_right() -> Result<()> {
    let manifest = manifest()?;
    let added = &agent(&manifest)?["containers"][0]["securityContext"]["capabilities"]["add"];
    let added: Vec<&str> = added.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let whole = statuses(Command::new(binary::lastpacket()?))?;
    ensure!(statuses(with(&added)?)? == whole, "{added:?} are not enough");
    for (index, left_out) in added.iter().enumerate() {
        let mut fewer = added.clone();
        fewer.remove(index);
        ensure!(statuses(with(&fewer)?)? != whole, "{left_out} is not needed");
    }
    Ok(())
}

fn with(capabilities: &[&str]) -> Result<Command> {
    let bounding: String = capabilities.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--inh-caps=-all", &format!("--bounding-set=-all{bounding}"), "--"]);
    command.arg(binary::lastpacket()?);
    Ok(command)
}

fn statuses(mut lastpacket: Command) -> Result<Vec<(Value, Value)>> {
    let checked = lastpacket.args(["check", "--format", "json"]).output().context("cannot run setpriv")?;
    let answer: Value = serde_json::from_slice(&checked.stdout).context("`lastpacket check` gave no JSON")?;
    let conditions = answer["conditions"].as_array().context("no conditions")?;
    Ok(conditions.iter().map(|condition| (condition["name"].clone(), condition["status"].clone())).collect())
}
