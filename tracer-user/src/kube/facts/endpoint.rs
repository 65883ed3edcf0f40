//! Endpoints of Services on this node, by EndpointSlices.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::discovery::v1::{self, EndpointConditions, EndpointSlice};

/// On every slice that belongs to a Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A pod behind a Service, by one address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Namespace of the Service and the pod.
    pub namespace: String,
    /// The Service.
    pub service: String,
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's uid, where the slice tells it; hand-made slices may not.
    pub pod_uid: Option<String>,
}

/// What load balancers are told of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// It shall get new connections.
    pub ready: bool,
    /// It passes its readiness probes, terminating or not.
    pub serving: bool,
    /// It is being terminated.
    pub terminating: bool,
}

impl Conditions {
    /// An absent `ready` means true, an absent `serving` follows `ready`, and an absent `terminating`
    /// means false (API reference, `EndpointConditions`).
    fn read(conditions: Option<&EndpointConditions>) -> Self {
        let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        Self {
            ready,
            serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
            terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        }
    }

    /// Of an endpoint that is in two slices while the controller moves it: a load balancer may go by
    /// either.
    #[must_use]
    pub fn either(self, other: Self) -> Self {
        Self {
            ready: self.ready || other.ready,
            serving: self.serving || other.serving,
            terminating: self.terminating && other.terminating,
        }
    }
}

/// An endpoint was added, changed or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointChange {
    /// Which.
    pub endpoint: Endpoint,
    /// What was told of it before; `None` if it was not there.
    pub before: Option<Conditions>,
    /// What is told of it now; `None` if it was removed.
    pub after: Option<Conditions>,
}

/// A slice's endpoints on a node. Slices without a Service take no part in load balancing.
#[must_use]
pub fn endpoints_of_node(slice: &EndpointSlice, node: &str) -> BTreeMap<Endpoint, Conditions> {
    let metadata = &slice.metadata;
    let service = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    let (Some(service), Some(namespace)) = (service, &metadata.namespace) else { return BTreeMap::new() };
    let here =
        slice.endpoints.iter().flatten().filter(|endpoint| endpoint.node_name.as_deref() == Some(node));
    here.filter_map(|endpoint| {
        let key = Endpoint {
            namespace: namespace.clone(),
            service: service.clone(),
            // All addresses of one endpoint are the same thing; only the first is used by kube-proxy.
            address: endpoint.addresses.first()?.parse().ok()?,
            pod_uid: pod_uid(endpoint),
        };
        Some((key, Conditions::read(endpoint.conditions.as_ref())))
    })
    .collect()
}

fn pod_uid(endpoint: &v1::Endpoint) -> Option<String> {
    let target = endpoint.target_ref.as_ref()?;
    if target.kind.as_deref() == Some("Pod") { target.uid.clone() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(endpoints: &serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4",
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    #[test]
    fn endpoints_of_other_nodes_are_left_out() {
        let slice = slice(&json!([
            {"addresses": ["10.0.0.1"], "conditions": {}, "nodeName": "a", "targetRef": {"kind": "Pod", "uid": "u"}},
            {"addresses": ["10.0.0.2"], "conditions": {}, "nodeName": "b"},
            {"addresses": ["10.0.0.3"], "conditions": {}},
        ]));
        let found: Vec<_> = endpoints_of_node(&slice, "a").into_keys().collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].service.as_str(), found[0].pod_uid.as_deref()), ("web", Some("u")));
    }

    #[test]
    fn absent_conditions_mean_what_the_api_says() {
        let read = |conditions: serde_json::Value| {
            let slice =
                slice(&json!([{"addresses": ["10.0.0.1"], "conditions": conditions, "nodeName": "a"}]));
            endpoints_of_node(&slice, "a").into_values().next().unwrap()
        };
        let expect = |ready, serving, terminating| Conditions { ready, serving, terminating };
        assert_eq!(read(json!({})), expect(true, true, false));
        assert_eq!(read(json!({"ready": false})), expect(false, false, false));
        assert_eq!(
            read(json!({"ready": false, "serving": true, "terminating": true})),
            expect(false, true, true)
        );
    }

    #[test]
    fn a_slice_without_a_service_has_no_endpoints() {
        let mut slice = slice(&json!([{"addresses": ["10.0.0.1"], "conditions": {}, "nodeName": "a"}]));
        slice.metadata.labels = None;
        assert!(endpoints_of_node(&slice, "a").is_empty());
    }
}
