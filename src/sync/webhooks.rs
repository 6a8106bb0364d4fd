//! Who asks admission webhooks about what a source writes. `assemble` puts the server's own way to ask behind it.

use async_trait::async_trait;

use super::asked::{Answer, Questions};

/// Asks webhooks.
#[async_trait]
pub trait AskWebhooks: Send + Sync {
    /// An answer to each question, in their order. `dry_run`: nothing will come of it.
    async fn ask(&self, questions: &Questions, dry_run: bool) -> Vec<Answer>;
}
