//! StatefulSets and DaemonSets: old pods go before new ones come, those of a StatefulSet by the same name.

use serde_json::json;

use super::{
    objects::Kind,
    said::{as_recorded, drained},
    scene::Scene,
};

/// Both kinds that replace their pods in place.
const IN_PLACE: [Kind; 2] = [Kind::StatefulSet, Kind::DaemonSet];

#[test]
fn each_pod_has_its_row_and_all_their_total() {
    for kind in IN_PLACE {
        let scene = Scene::of(kind, &[0, 1]);
        let watch = scene.watch(&[], 2);
        scene.roll(&watch, as_recorded);
        let ended = watch.finish();
        let rows = kind.pods().map(|(old, _)| (old.to_owned(), "cut".to_owned()));
        assert_eq!(ended.results(), rows, "{kind:?}");
        let total = ended.total();
        assert_eq!(total["workload"], kind.workload());
        assert_eq!((&total["pods"], &total["lost"]), (&json!(2), &json!(4)), "{kind:?}: {total}");
        assert_eq!((total["rollout"].as_str(), ended.code()), (Some("complete"), 1), "{kind:?}: {ended:?}");
    }
}

#[test]
fn a_report_has_the_old_pods_only() {
    for kind in IN_PLACE {
        let scene = Scene::of(kind, &[0, 1]);
        let watch = scene.watch(&["--output", "markdown"], 2);
        scene.roll(&watch, as_recorded);
        let ended = watch.finish();
        let rows = ended.stdout.lines().filter(|line| line.starts_with("| ❌ | shop/web-")).count();
        assert_eq!(rows, 2, "{kind:?}: {}", ended.stdout);
        assert!(!ended.stdout.contains("no verdict"), "{kind:?}: {}", ended.stdout);
    }
}

#[test]
fn restart_begins_a_rollout() {
    for kind in IN_PLACE {
        let scene = Scene::of(kind, &[0, 1]);
        let watch = scene.watch(&["--restart"], 2);
        while scene.cluster.patches().is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        scene.at_work();
        scene.end(0, drained);
        scene.end(1, drained);
        scene.complete();
        let ended = watch.finish();
        assert_eq!((ended.results().len(), ended.code()), (2, 0), "{kind:?}: {ended:?}");
    }
}

#[test]
fn a_partition_leaves_pods_as_they_are() {
    let scene = Scene::of(Kind::StatefulSet, &[0, 1]);
    scene.edit(|set| set["spec"]["updateStrategy"] = json!({"rollingUpdate": {"partition": 1}}));
    let watch = scene.watch(&[], 2);
    scene.begin();
    scene.end(0, drained);
    scene.at_work();
    let ended = watch.finish();
    assert_eq!((ended.results().len(), ended.code()), (1, 0), "{ended:?}");
    assert_eq!(ended.total()["rollout"], "complete", "{ended:?}");
}

#[test]
fn what_never_rolls_out_is_refused() {
    for (kind, strategy, words) in [
        (Kind::StatefulSet, json!({"type": "OnDelete"}), "as somebody deletes its pods"),
        (Kind::DaemonSet, json!({"type": "OnDelete"}), "as somebody deletes its pods"),
        (
            Kind::StatefulSet,
            json!({"rollingUpdate": {"partition": 2}}),
            "keeps all of its 2 pods as they are",
        ),
    ] {
        let scene = Scene::of(kind, &[0, 1]);
        scene.edit(|object| object["spec"]["updateStrategy"] = strategy);
        let ended = scene.start(&[kind.workload(), "--restart"]).finish();
        assert!(ended.code() == 2 && ended.stderr.contains(words), "{kind:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "one sentence: {}", ended.stderr);
        assert!(scene.cluster.patches().is_empty(), "{kind:?}");
    }
}
