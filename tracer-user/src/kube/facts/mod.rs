//! What is kept of the API's objects: only what events, phases and findings need.

mod container;
mod endpoint;
mod pod;

pub use container::{ContainerFacts, ContainerKind, LastExit, PreStop};
pub use endpoint::{Conditions, Endpoint, EndpointChange, endpoints_of_node};
pub use pod::{Deletion, PodFacts, Workload};
