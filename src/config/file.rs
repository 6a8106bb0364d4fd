//! podbay.toml as it is written, read as far as it can be. PURE.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeArray, DeTable, DeValue};

use super::faults::{Faults, Place};
use super::images::ImagesFile;
use crate::model::schema::nearest;

/// The daemon's configuration as written. Unknown keys are errors.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct File {
    pub data_dir: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
    pub server: ServerFile,
    pub node: NodeFile,
    pub images: ImagesFile,
    pub source: Vec<SourceFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServerFile {
    pub listen: Option<String>,
    pub names: Vec<String>,
    pub service_range: Option<String>,
    pub pod_range: Option<String>,
    pub node_prefix: Option<u8>,
    pub node_grace_seconds: Option<u32>,
    pub eviction_seconds: Option<u32>,
    pub insecure_node_certificates: bool,
    pub audit_log: Option<PathBuf>,
    pub audit_policy: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct NodeFile {
    pub name: Option<String>,
    pub address: Option<String>,
    pub api_port: Option<u16>,
    pub lease_seconds: Option<u32>,
    pub max_pods: Option<u32>,
    pub pod_pids_limit: Option<u32>,
    pub bridge: Option<String>,
    pub nft_table: Option<String>,
    pub cgroup_root: Option<String>,
    pub systemd_slice: Option<bool>,
    pub shim: Option<PathBuf>,
    pub runtime_endpoint: Option<String>,
    pub runtime_handlers: BTreeMap<String, PathBuf>,
    pub cluster_dns: Vec<String>,
    pub resolv_conf: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    pub kubeconfig: Option<PathBuf>,
    pub bootstrap_kubeconfig: Option<PathBuf>,
    pub api_client_ca: Option<PathBuf>,
    pub api_client: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SourceFile {
    pub name: String,
    pub directory: Option<PathBuf>,
    pub git: Option<String>,
    pub reference: Option<String>,
    pub path: Option<String>,
    pub namespace: Option<String>,
    pub interval_seconds: Option<i32>,
    pub unsupported: Option<String>,
    pub suspend: Option<bool>,
    pub adopt: Option<bool>,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub ssh_key_file: Option<PathBuf>,
    pub known_hosts_file: Option<PathBuf>,
    pub budget_objects: Option<i32>,
    pub budget_percent: Option<i32>,
}

/// A file, and what is wrong with it so far.
#[derive(Debug, Default)]
pub struct Written {
    pub file: File,
    pub faults: Faults,
}

impl Written {
    /// Reads what can be read: the reader ends at the first unknown key and the first value of a wrong type, so that one is
    /// taken out and it is asked again.
    ///
    /// # Errors
    /// The text is no TOML, in the parser's words: beyond that place nothing is known.
    pub fn parse(file: &Path, text: &str) -> Result<Self, String> {
        let mut table = DeTable::parse(text).map_err(|error| error.to_string())?;
        let mut faults = Faults::of_file(file);
        loop {
            let error = match File::deserialize(toml::Deserializer::from(table.clone())) {
                Ok(file) => {
                    note_places(table.get_ref(), "", text, &mut faults.places);
                    return Ok(Self { file, faults });
                }
                Err(error) => error,
            };
            let found = error.span().and_then(|span| Some((take_out(table.get_mut(), "", &span)?, place(text, span.start))));
            let Some((key, place)) = found else { return Err(error.to_string()) };
            match unknown(error.message()) {
                Some((key_alone, meant)) => {
                    let above = key.strip_suffix(key_alone).unwrap_or_default();
                    let (key, told) = match meant {
                        // Its value is lacking where it belongs.
                        Some(meant) => (format!("{above}{meant}"), format!(", did you mean `{meant}`?")),
                        None => (key.clone(), String::new()),
                    };
                    faults.taken_out(key, place, format!("unknown key `{key_alone}`{told}"));
                }
                None => faults.taken_out(key.clone(), place, format!("{key}: {}", error.message())),
            }
        }
    }
}

/// Which key is unknown, and which is meant, by serde's words.
fn unknown(message: &str) -> Option<(&str, Option<&str>)> {
    let (key, expected) = message.strip_prefix("unknown field `")?.split_once('`')?;
    Some((key, nearest(key, expected.split('`').skip(1).step_by(2))))
}

fn place(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rfind('\n').map_or(before, |end| &before[end + 1..]);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn below(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

/// Where each value begins; of a table, where it is named.
fn note_places(table: &DeTable<'_>, above: &str, text: &str, places: &mut BTreeMap<String, Place>) {
    for (key, value) in table {
        let path = below(above, key.get_ref());
        let start = if matches!(value.get_ref(), DeValue::Table(_)) { key.span().start } else { value.span().start };
        places.insert(path.clone(), place(text, start));
        match value.get_ref() {
            DeValue::Table(table) => note_places(table, &path, text, places),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    places.insert(path.clone(), place(text, item.span().start));
                    if let DeValue::Table(table) = item.get_ref() {
                        note_places(table, &path, text, places);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Takes out the key or value that stands there; where it was.
fn take_out(table: &mut DeTable<'_>, above: &str, span: &Range<usize>) -> Option<String> {
    let mut found = None;
    for (key, value) in &mut *table {
        let path = below(above, key.get_ref());
        if key.span() == *span || value.span() == *span {
            found = Some((key.clone(), path));
            break;
        }
        let inside = match value.get_mut() {
            DeValue::Table(table) => take_out(table, &path, span),
            DeValue::Array(items) => take_item(items, &path, span),
            _ => None,
        };
        if inside.is_some() {
            return inside;
        }
    }
    let (key, path) = found?;
    table.remove(&key);
    Some(path)
}

fn take_item(items: &mut DeArray<'_>, above: &str, span: &Range<usize>) -> Option<String> {
    for (index, item) in items.iter_mut().enumerate() {
        let path = format!("{above}[{index}]");
        if item.span() == *span {
            *items = std::mem::replace(items, DeArray::new()).into_iter().filter(|item| item.span() != *span).collect();
            return Some(path);
        }
        if let DeValue::Table(table) = item.get_mut()
            && let Some(found) = take_out(table, &path, span)
        {
            return Some(found);
        }
    }
    None
}
