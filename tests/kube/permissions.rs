//! What the agent asks about its permissions, and the Events it posts.

use lastpacket_tests::api_server::ApiServer;
use tracer_user::kube::{client, permissions, warning};

use super::{fast, pods, updates_of};

/// There is one provider of cryptography, or the first client would panic.
#[tokio::test]
async fn a_client_over_tls_can_be_made() {
    let mut config = kube::Config::new("https://127.0.0.1:6443".parse().unwrap());
    config.root_cert = Some(Vec::new());
    client::with(config).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_found() {
    let server = ApiServer::with_pods(0).await;
    server.deny("watch", "endpointslices");
    let answers = permissions::ask(&client::with(server.config()).unwrap()).await.unwrap();
    let denied: Vec<_> = answers.iter().filter(|answer| !answer.allowed).collect();
    assert_eq!((answers.len(), denied.len()), (permissions::PERMISSIONS.len(), 1));
    assert_eq!((denied[0].permission.verb, denied[0].permission.resource), ("watch", "endpointslices"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_is_posted_on_the_pod() {
    let server = ApiServer::with_pods(1).await;
    let updates = updates_of(&server, fast()).await;
    let pod = pods(&updates).next().unwrap();
    let client = client::with(server.config()).unwrap();
    warning::post(&client, "node1", pod, "3 losses", 1_795_248_119_000_000_000).await.unwrap();
    let posted = server.posted();
    let event = &posted[0];
    assert_eq!((&event["type"], &event["reason"]), (&"Warning".into(), &"TrafficCut".into()));
    assert_eq!(event["regarding"]["uid"], *pod.uid);
    assert_eq!((&event["note"], &event["reportingInstance"]), (&"3 losses".into(), &"node1".into()));
    assert_eq!(event["eventTime"], "2026-11-21T08:01:59.000000Z");
    assert_eq!(event["metadata"]["namespace"], *pod.namespace);
}
