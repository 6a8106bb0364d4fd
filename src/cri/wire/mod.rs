//! The CRI as it is on the wire: its messages, generated from `runtime.proto`, and what they mean to us. PURE.
//!
//! The generated services beside them only say which message goes where.
//!
//! - `sandbox`, `container`, `status`, `signal`: between the messages and the seam's types; pure
//! - `error`: between gRPC's codes and the seam's errors

pub mod container;
pub mod error;
pub mod sandbox;
pub mod signal;
pub mod status;

#[allow(clippy::all, clippy::too_many_lines, clippy::unwrap_used, missing_docs)]
mod generated {
    tonic::include_proto!("runtime.v1");
}

pub use generated::*;

/// Never shows what it holds.
impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthConfig(…)")
    }
}
