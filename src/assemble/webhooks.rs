//! The server's way to ask webhooks behind the one that sync and previews have.

use async_trait::async_trait;

use crate::server::hooks::CommitsAsked;
use crate::sync::asked::{Heard, Questions};
use crate::sync::webhooks::AskWebhooks;

/// Webhooks as the server asks them.
pub struct Asked(pub CommitsAsked);

#[async_trait]
impl AskWebhooks for Asked {
    async fn ask(&self, questions: &Questions, dry_run: bool) -> Vec<Heard> {
        self.0.ask(questions, dry_run).await
    }
}
