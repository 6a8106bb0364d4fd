//! The node API: the kubelet's paths for logs, exec and the rest.
pub mod logs;
