//! Who asks admission webhooks about what a source writes. `assemble` puts the server's own way to ask behind it.

use async_trait::async_trait;

use super::asked::{Heard, Questions};

/// Plans in a row that have other questions than those before: each wave has its own, and so may what others write meanwhile.
pub const ROUNDS: usize = 100;

/// So many plans were made, and each had something else to ask.
#[derive(Debug, thiserror::Error)]
#[error("after {ROUNDS} rounds webhooks are still to be asked")]
pub struct StillOpen;

/// Asks webhooks.
#[async_trait]
pub trait AskWebhooks: Send + Sync {
    /// An answer to each question, in their order. `dry_run`: nothing will come of it.
    async fn ask(&self, questions: &Questions, dry_run: bool) -> Vec<Heard>;
}
