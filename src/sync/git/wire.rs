//! What the daemon and its fetch process say to each other. PURE.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::model::GitSource;
use crate::sync::select::Limits;
use crate::sync::source::Tree;

/// One fetch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub url: String,
    pub reference: Option<String>,
    pub token_file: Option<String>,
    pub ca_file: Option<String>,
    pub ssh_key_file: Option<String>,
    pub known_hosts_file: Option<String>,
    /// Below the repository's root.
    pub path: String,
    pub clone_dir: String,
    /// User and group to become before anything is read.
    pub run_as: Option<(u32, u32)>,
    pub limits: Limits,
    pub bounds: Bounds,
    /// The commit the parent has: nothing is sent when it is still the newest.
    pub known_revision: Option<String>,
}

/// What the child may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bounds {
    pub memory_bytes: u64,
    pub file_bytes: u64,
    pub cpu_seconds: u64,
    /// Bytes that one fetch may receive.
    pub received_bytes: usize,
    /// A clone grown beyond it is made anew.
    pub clone_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, file_bytes: 1 << 30, cpu_seconds: 120, received_bytes: 512 << 20, clone_bytes: 1 << 30 }
    }
}

impl Request {
    pub fn new(spec: &GitSource, path: &str) -> Self {
        Self {
            url: spec.url.clone(),
            reference: spec.reference.clone().filter(|reference| !reference.is_empty()),
            token_file: spec.token_file.clone(),
            ca_file: spec.ca_file.clone(),
            ssh_key_file: spec.ssh_key_file.clone(),
            known_hosts_file: spec.known_hosts_file.clone(),
            path: path.trim_matches('/').to_owned(),
            clone_dir: String::new(),
            run_as: None,
            limits: Limits::default(),
            bounds: Bounds::default(),
            known_revision: None,
        }
    }
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Tree(WireTree),
    Unchanged,
    /// The commit was read, and is not taken.
    Refused {
        revision: String,
        why: String,
    },
    Failed(String),
}

/// A tree with its contents in base64.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireTree {
    revision: String,
    subject: String,
    path_exists: bool,
    notes: Vec<String>,
    files: BTreeMap<String, String>,
}

impl WireTree {
    pub fn new(tree: &Tree) -> Self {
        Self {
            revision: tree.revision.clone(),
            subject: tree.subject.clone(),
            path_exists: tree.path_exists,
            notes: tree.notes.clone(),
            files: tree.files.iter().map(|(path, content)| (path.clone(), STANDARD.encode(content))).collect(),
        }
    }

    /// The child is ours: what it encoded decodes.
    pub fn into_tree(self) -> Tree {
        Tree {
            revision: self.revision,
            subject: self.subject,
            path_exists: self.path_exists,
            notes: self.notes,
            files: self.files.into_iter().map(|(path, text)| (path, STANDARD.decode(text).unwrap_or_default())).collect(),
        }
    }
}
