//! The verbs a person types: one file a verb, each a thin client of the REST API but for those at the end.
//!
//! - `oci`: the flags of `podbay oci`, which other programs call
//! - `args`: every verb and flag (the source of `--help` and of the completions)
//! - `words` (pure): what is said of a word that is no verb
//! - `kubeconfig`: which one is used, and reading it
//! - `client`: kubeconfig to a client, and the REST paths of the kinds
//! - `output`: tables, JSON, YAML; nothing from outside reaches a terminal unescaped
//! - `error`: failures to exit codes and hints
//! - `outcome` (pure): how far an accepted revision is
//! - `trouble`: why pods do not run as wanted
//! - `drift`: what `explain` says of fields that others changed
//! - `terminal`: the streams of `exec` and `attach`
//! - `local`: what a verb needs of this host without a server; `assemble` provides it
//!
//! The verbs of a host (`up`, `server`, `agent`, `down`, `reset`, `image`, `runtime`, `oci`) are carried out by
//! `assemble`: they need the parts, not the API.

pub mod args;
pub mod attach;
pub mod client;
pub mod describe;
mod drift;
pub mod error;
pub mod exec;
pub mod explain;
pub mod get;
pub mod kubeconfig;
pub mod local;
pub mod logs;
pub mod node;
pub mod oci;
mod outcome;
pub mod output;
pub mod reconcile;
pub mod snapshot;
pub mod source;
pub mod status;
mod terminal;
pub mod token;
mod trouble;
pub mod words;
