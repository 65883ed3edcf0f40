//! Rehearsing a pod's termination: the sandbox, its client load, and the kubelet's sequence.

pub mod certificate;
pub mod comparison;
pub mod demo;
pub mod hook;
pub mod listeners;
pub mod load;
pub mod ready;
pub mod sandbox;
pub mod terminate;
