//! Whom the command serves, and what it says where it cannot.

use std::{fs, process::Command};

use lastpacket_tests::binary;

use super::{scene::Scene, watch::Watch};

const WEB: &str = "deployment/web";

#[test]
fn without_permissions_it_says_which_before_anything_else() {
    let scene = Scene::new(&[0, 1]);
    scene.cluster.deny("get", "pods/log");
    scene.cluster.deny("patch", "deployments");
    let ended = scene.start(&[WEB, "--restart"]).finish();
    assert_eq!(ended.code(), 2, "{ended:?}");
    for words in
        ["get pods/log in namespace lastpacket", "patch deployments in namespace shop", "docs/rollout.md"]
    {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    assert!(scene.cluster.patches().is_empty());
    let without = scene.start(&[WEB, "--agents", "elsewhere"]).finish();
    assert!(without.stderr.contains("in namespace elsewhere"), "{without:?}");
}

#[test]
fn without_any_agent_nothing_is_restarted() {
    let scene = Scene::new(&[]);
    let ended = scene.start(&[WEB, "--restart"]).finish();
    assert!(ended.stderr.contains("no agent runs in namespace lastpacket"), "{ended:?}");
    assert_eq!(ended.code(), 2);
    assert!(scene.cluster.patches().is_empty());
}

#[test]
fn what_cannot_be_watched() {
    let scene = Scene::new(&[0, 1]);
    for (arguments, words) in [
        (&["deployment/none"][..], "there is no deployment/none in namespace shop"),
        (&["deployment/web", "-n", "elsewhere"], "in namespace elsewhere"),
        (&["pod/web"], "pod/web is no workload"),
        (&["deployment/web", "--context", "none"], "kubectl config get-contexts"),
        (&["deployment/web", "--fail-on", "late"], "late"),
    ] {
        let ended = scene.start(arguments).finish();
        assert!(ended.code() == 2 && ended.stderr.contains(words), "{arguments:?}: {ended:?}");
    }
    scene.edit(|deployment| deployment["spec"]["paused"] = true.into());
    let ended = scene.start(&[WEB, "--restart"]).finish();
    assert!(ended.code() == 2 && ended.stderr.contains("kubectl rollout resume"), "{ended:?}");
}

#[test]
fn called_by_kubectl_it_names_itself_so() {
    let folder = std::env::temp_dir().join(format!("lastpacket-plugin-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let plugin = folder.join("kubectl-lastpacket");
    std::os::unix::fs::symlink(fs::canonicalize(binary::lastpacket().unwrap()).unwrap(), &plugin).unwrap();
    let ended = Watch::start({
        let mut command = Command::new(&plugin);
        command.args(["rollout", "--help"]);
        command
    })
    .finish();
    fs::remove_dir_all(&folder).unwrap();
    assert!(
        ended.stdout.contains("Usage: kubectl lastpacket rollout [OPTIONS] <KIND/NAME>"),
        "{}",
        ended.stdout
    );
}
