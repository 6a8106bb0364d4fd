//! The `nft` program: one script, one transaction.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::firewall::{self, Hook};
use super::plan::{self, Ruleset};
use super::{NetworkError, host};

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

/// Chains of other tables, and iptables' own, that keep pods from getting anywhere; one sentence each.
pub(super) fn foreign_drops(own: &str, bridge: &str, note: &str) -> Result<Vec<String>, NetworkError> {
    let json = |arguments: &[&str]| -> Result<serde_json::Value, NetworkError> {
        Ok(serde_json::from_slice(&nft(arguments, "")?.stdout).unwrap_or_default())
    };
    let mut problems = Vec::new();
    for chain in firewall::chains(&json(&["-j", "list", "chains"])?, own) {
        // Without the elements of its sets, which may be many.
        let table = json(&["-j", "-t", "list", "table", &chain.family, &chain.table])?;
        problems.extend(firewall::problem(&chain, &table, bridge, note));
    }
    if host::has_legacy_filter() {
        for hook in Hook::ALL {
            match legacy(&["-S", hook.legacy_chain()]) {
                Some(rules) => problems.extend(firewall::legacy_problem(hook, &rules, bridge, note)),
                None => problems.push(format!(
                    "chain {} of iptables-legacy is in force and cannot be read without the program iptables-legacy: whether it lets {bridge} through is not known",
                    hook.legacy_chain()
                )),
            }
        }
    }
    Ok(problems)
}

fn legacy(arguments: &[&str]) -> Option<String> {
    let programs = ["iptables-legacy", "/usr/sbin/iptables-legacy", "/sbin/iptables-legacy"];
    let output = programs.iter().find_map(|program| Command::new(program).args(arguments).stdin(Stdio::null()).output().ok())?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
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
