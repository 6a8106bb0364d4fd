//! The `nft` program: one script, one transaction.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::NetworkError;
use super::plan::{self, Ruleset};

/// Where distributions put it; a daemon's PATH may lack the `sbin`s.
const PROGRAMS: &[&str] = &["nft", "/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft"];

/// Our table in the network namespace of the calling thread.
pub(super) struct Table {
    pub name: String,
    /// What we applied last.
    applied: Option<Ruleset>,
}

impl Table {
    pub fn new(name: String) -> Self {
        Self { name, applied: None }
    }

    /// Makes the table so. Returns whether anything changed.
    pub fn apply(&mut self, wanted: Ruleset) -> Result<bool, NetworkError> {
        let there = self.generation()?;
        if there.as_deref() == Some(wanted.hash().as_str()) {
            self.applied = Some(wanted);
            return Ok(false);
        }
        // Only what is known for sure can be changed by its difference.
        let old = self.applied.take().filter(|applied| there.as_deref() == Some(applied.hash().as_str()));
        run(&plan::script(&self.name, old.as_ref(), &wanted))?;
        self.applied = Some(wanted);
        Ok(true)
    }

    /// The hash of the ruleset that is in the kernel; `None` without a table of ours.
    fn generation(&self) -> Result<Option<String>, NetworkError> {
        let output = nft(&["list", "chain", "ip", &self.name, plan::GENERATION], "")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let hash = text.split_once("comment \"").and_then(|(_, rest)| rest.split_once('"')).map(|(hash, _)| hash.to_owned());
        Ok(hash.filter(|_| output.status.success()))
    }

    /// Takes the table away. No error when there is none.
    pub fn remove(&mut self) -> Result<(), NetworkError> {
        self.applied = None;
        run(&format!("add table ip {0}\ndelete table ip {0}\n", self.name))
    }
}

/// Chains of other tables that drop what they forward unless a rule of theirs accepts it.
pub(super) fn foreign_forward_drops(own: &str) -> Result<Vec<String>, NetworkError> {
    let output = nft(&["-j", "list", "chains"], "")?;
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let chains = listed["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"]);
    let dropping = chains.filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop" && chain["table"] != own);
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(dropping
        .filter(|chain| matches!(chain["family"].as_str(), Some("ip" | "inet")))
        .map(|chain| format!("chain {} of table {} {}", word(&chain["name"]), word(&chain["family"]), word(&chain["table"])))
        .collect())
}

fn run(script: &str) -> Result<(), NetworkError> {
    let output = nft(&["-f", "-"], script)?;
    if output.status.success() {
        return Ok(());
    }
    let cause: String = String::from_utf8_lossy(&output.stderr).chars().take(500).collect();
    Err(NetworkError::failed("change nftables", cause.trim()))
}

/// Whether there is such a program.
pub(super) fn is_there() -> bool {
    nft(&["--version"], "").is_ok()
}

fn nft(arguments: &[&str], input: &str) -> Result<Output, NetworkError> {
    for program in PROGRAMS {
        let child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
            Err(cause) => return Err(NetworkError::failed(format!("run {program}"), cause)),
        };
        if let Some(mut stdin) = child.stdin.take() {
            // It reads everything before it writes anything; when it ends early, its message says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        return child.wait_with_output().map_err(|cause| NetworkError::failed(format!("run {program}"), cause));
    }
    Err(NetworkError::NoNft)
}
