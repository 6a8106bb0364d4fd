//! `podbay token`: what agents join with.

use serde_json::{Value, json};

use super::args::TokenVerb;
use super::client::{call, connect, get};
use super::error::Outcome;
use super::output;

pub async fn run(verb: &TokenVerb) -> Outcome {
    match verb {
        TokenVerb::Create { client, ttl } => {
            let client = connect(client).await?;
            let made = call(&client, "POST", "/podbay/v1/tokens", Some(&json!({"ttlSeconds": ttl}))).await?;
            output::print(&output::clean(&format!("{}\n", made["token"].as_str().unwrap_or_default())));
        }
        TokenVerb::List(client) => {
            let client = connect(client).await?;
            let list = get(&client, "/podbay/v1/tokens").await?;
            let rows = list["items"].as_array().into_iter().flatten().map(|token| {
                let text = |field: &str| token[field].as_str().unwrap_or_default().to_owned();
                vec![text("id"), text("expiresAt")]
            });
            output::print(&output::table(&["ID", "EXPIRES"], rows.collect::<Vec<_>>()));
        }
        TokenVerb::Revoke { client, id } => {
            let client = connect(client).await?;
            let _: Value = call(&client, "DELETE", &format!("/podbay/v1/tokens/{id}"), None).await?;
            output::print(&format!("token {} revoked\n", output::clean(id)));
        }
    }
    Ok(0)
}
