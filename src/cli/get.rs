//! `podbay get`: lists and single objects, as kubectl prints them.

use anyhow::bail;
use serde_json::Value;

use super::args::{GetArgs, GetFormat};
use super::client::{self, connect, path, target};
use super::error::Outcome;
use super::output;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub async fn run(args: &GetArgs) -> Outcome {
    let (kind, name) = target(&args.what)?;
    if name.is_some() && args.all_namespaces {
        bail!("a name and --all-namespaces do not go together");
    }
    let client = connect(&args.client).await?;
    let namespace = (!args.all_namespaces).then(|| args.namespace.as_deref().unwrap_or("default"));
    let mut path = path(kind, namespace, name.as_deref());
    if let Some(selector) = &args.selector {
        let query: String = form_encoded(selector);
        path.push_str(&format!("?labelSelector={query}"));
    }
    let tabular = matches!(args.output, GetFormat::Table | GetFormat::Wide);
    let accept = if tabular { TABLE } else { "application/json" };
    let request = http::Request::builder().uri(&path).header("accept", accept).body(Vec::new())?;
    let value: Value = client.request(request).await?;
    match args.output {
        GetFormat::Json => output::print(&output::json(&value)),
        GetFormat::Yaml => output::print(&output::clean(&serde_yaml::to_string(&value)?)),
        GetFormat::Name => output::print(&names(&value, kind)),
        GetFormat::Table | GetFormat::Wide => {
            if value["rows"].as_array().is_some_and(Vec::is_empty) {
                match namespace.filter(|_| kind.info().namespaced) {
                    Some(namespace) => anstream::eprintln!("No resources found in {} namespace.", output::clean(namespace)),
                    None => anstream::eprintln!("No resources found"),
                }
                return Ok(0);
            }
            let with_namespace = args.all_namespaces && kind.info().namespaced;
            output::print(&output::server_table(&value, args.output == GetFormat::Wide, with_namespace));
        }
    }
    Ok(0)
}

/// Percent-encodes what a query value must not hold.
pub(super) fn form_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn names(value: &Value, kind: crate::model::Kind) -> String {
    let one = std::slice::from_ref(value);
    let objects = value["items"].as_array().map_or(one, Vec::as_slice);
    let info = kind.info();
    let group = if info.group.is_empty() { String::new() } else { format!(".{}", info.group) };
    objects
        .iter()
        .map(|it| format!("{}{group}/{}\n", info.singular, output::clean(it["metadata"]["name"].as_str().unwrap_or_default())))
        .collect()
}

/// The objects behind the client's default namespace rules: one object by name.
pub(super) async fn object(client: &kube::Client, kind: crate::model::Kind, namespace: Option<&str>, name: &str) -> anyhow::Result<Value> {
    client::get(client, &path(kind, Some(namespace.unwrap_or("default")), Some(name))).await
}
