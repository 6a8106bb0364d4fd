//! AppArmor: which label a container's processes get, and the profile that the runtime brings along. What puts a label on
//! is in the shim.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::cri::{AppArmor, CriError};

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// `name (enforce)`, a line each. Not there: the kernel has none, or no securityfs is mounted, as in a container.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Who compiles and loads profiles (apparmor_parser(8)); a daemon's PATH may lack the `sbin`s.
const PARSERS: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];

/// The name of the profile below.
const DEFAULT: &str = "podbay-default";

/// What confines a container that names no profile (apparmor.d(5)): everything that capabilities, mounts and the seccomp
/// filter leave is allowed, but for mounts, for the files below /proc and /sys that are the host's, and for signals and
/// traces beyond the containers of this profile. Of /proc/sys the `shm*` are the container's own, of /sys the cgroups.
/// `runc` and `crun` are the labels that some distributions give those programs.
const PROFILE: &str = "\
profile podbay-default flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  umount,
  deny mount,
  deny remount,
  deny pivot_root,

  signal (receive) peer={unconfined,runc,crun},
  signal (send,receive) peer=podbay-default,
  ptrace (trace,tracedby,read,readby) peer=podbay-default,

  deny /proc/{kcore,sysrq-trigger} rwklx,
  deny /proc/* wkl,
  deny /proc/[^0-9s]*/** wkl,
  deny /proc/s[^y]*/** wkl,
  deny /proc/sys/[^k]** wkl,
  deny /proc/sys/kernel/[^s]** wkl,
  deny /proc/sys/kernel/s[^h]** wkl,
  deny /proc/sys/kernel/sh[^m]** wkl,

  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/{,**} rwklx,
  deny /sys/[^f]** wkl,
  deny /sys/f[^s]** wkl,
  deny /sys/fs/[^c]** wkl,
  deny /sys/fs/c[^g]** wkl,
}
";

/// What a container gets.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Nothing,
    Label(String),
    /// The runtime's own profile.
    Default,
}

/// The runtime's own profile, loaded when a container first wants it.
#[derive(Debug, Default)]
pub struct Confinement {
    /// Whether the kernel has the text above, and not that of an earlier version of this program.
    is_ours: Mutex<bool>,
}

impl Confinement {
    /// The label; empty: none is set.
    ///
    /// # Errors
    /// A profile is wanted that this host does not have; the runtime's own cannot be loaded.
    pub fn label(&self, wanted: &AppArmor, privileged: bool) -> Result<String, CriError> {
        let loaded = loaded();
        match choose(wanted, privileged, loaded.as_deref())? {
            Choice::Nothing => Ok(String::new()),
            Choice::Label(name) => Ok(name),
            Choice::Default => self.provide(has(&loaded.unwrap_or_default(), DEFAULT)),
        }
    }

    /// `is_there`: some profile of that name is, maybe an earlier version's. Who removes what is in no file of
    /// /etc/apparmor.d (aa-remove-unknown(8)) removes this one as well: it is loaded again.
    fn provide(&self, is_there: bool) -> Result<String, CriError> {
        let mut is_ours = self.is_ours.lock().unwrap_or_else(PoisonError::into_inner);
        if is_there && *is_ours {
            return Ok(DEFAULT.to_owned());
        }
        let Some(parser) = parser() else {
            return Ok(if is_there { DEFAULT.to_owned() } else { String::new() });
        };
        match load(parser) {
            Ok(()) => *is_ours = true,
            Err(cause) if is_there => tracing::warn!(cause, "the AppArmor profile {DEFAULT} stays as it was: it cannot be replaced"),
            Err(cause) => return Err(CriError::failed(format!("load the AppArmor profile {DEFAULT}"), cause)),
        }
        Ok(DEFAULT.to_owned())
    }
}

/// What containers cannot have here though the kernel has AppArmor: a word and a sentence for the node's conditions.
pub fn lack() -> Option<(&'static str, String)> {
    let is_short = loaded().is_some_and(|loaded| !has(&loaded, DEFAULT)) && parser().is_none();
    let text = "containers that name no AppArmor profile are not confined by one: there is no apparmor_parser (install `apparmor`)";
    is_short.then(|| ("NoParser", text.to_owned()))
}

/// The host's profiles; `None`: it has no AppArmor.
fn loaded() -> Option<String> {
    let is_enabled = std::fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "Y");
    if is_enabled { std::fs::read_to_string(LOADED).ok() } else { None }
}

fn has(loaded: &str, name: &str) -> bool {
    loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(profile, _)| profile == name))
}

fn parser() -> Option<&'static str> {
    PARSERS.into_iter().find(|program| std::path::Path::new(program).exists())
}

fn load(parser: &str) -> Result<(), String> {
    let mut command = Command::new(parser);
    command.args(["--replace", "--skip-cache", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let failed = |cause: std::io::Error| format!("{parser}: {cause}");
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // When it ends early, its message says why.
        stdin.write_all(PROFILE.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
    Err(format!("{parser}: {}: {said}", output.status))
}

/// `loaded`: the host's profiles; `None`: it has no AppArmor.
fn choose(wanted: &AppArmor, privileged: bool, loaded: Option<&str>) -> Result<Choice, CriError> {
    let refused = |name: &str, cause: &str| Err(CriError::failed(format!("confine it by the AppArmor profile {name}"), cause));
    match (wanted, loaded) {
        (AppArmor::Localhost(name), None) => refused(name, "AppArmor is not enabled on this host"),
        (AppArmor::Localhost(name), Some(loaded)) if has(loaded, name) => Ok(Choice::Label(name.clone())),
        (AppArmor::Localhost(name), Some(_)) => refused(name, "it is not loaded on this host"),
        (AppArmor::RuntimeDefault, Some(_)) if !privileged => Ok(Choice::Default),
        (AppArmor::RuntimeDefault | AppArmor::Unconfined, Some(_)) => Ok(Choice::Label("unconfined".to_owned())),
        (AppArmor::RuntimeDefault | AppArmor::Unconfined, None) => Ok(Choice::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_host_has_is_set() {
        let loaded = "docker-default (enforce)\nmy profile (complain)\nbroken\n";
        let local = |name: &str| AppArmor::Localhost(name.into());
        let label = |name: &str| Some(Choice::Label(name.into()));
        for (wanted, privileged, host, expected) in [
            (AppArmor::RuntimeDefault, false, None, Some(Choice::Nothing)),
            (AppArmor::RuntimeDefault, true, None, Some(Choice::Nothing)),
            (AppArmor::RuntimeDefault, false, Some(loaded), Some(Choice::Default)),
            (AppArmor::RuntimeDefault, true, Some(loaded), label("unconfined")),
            (AppArmor::Unconfined, false, None, Some(Choice::Nothing)),
            (AppArmor::Unconfined, false, Some(loaded), label("unconfined")),
            (local("docker-default"), false, None, None),
            (local("docker-default"), false, Some(loaded), label("docker-default")),
            (local("docker-default"), true, Some(loaded), label("docker-default")),
            (local("my profile"), false, Some(loaded), label("my profile")),
            (local("docker"), false, Some(loaded), None),
            (local("broken"), false, Some(loaded), None),
        ] {
            let got = choose(&wanted, privileged, host).ok();
            assert_eq!(got, expected, "{wanted:?} privileged: {privileged}");
        }
    }

    #[test]
    fn the_profile_knows_its_own_name() {
        assert!(PROFILE.starts_with(&format!("profile {DEFAULT} ")));
        for rule in ["signal (send,receive)", "ptrace (trace,tracedby,read,readby)"] {
            assert!(PROFILE.contains(&format!("  {rule} peer={DEFAULT},\n")), "{rule}");
        }
    }
}
