//! User space of lastpacket: the edges (kernel, host, rehearsals, sinks), which do not know each
//! other, and the pipeline that joins them with the core.

pub mod agent;
pub mod cli;
pub mod clock;
pub mod host;
pub mod kernel;
pub mod kube;
pub mod log;
pub mod pipeline;
pub mod rehearse;
pub mod report;
pub mod serve;
pub mod sink;
