//! AppArmor: which label a container's processes get, and the profile that the runtime brings along. What puts a label on
//! is in the shim.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::errand;
use crate::cri::{AppArmor, CriError};

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// `name (enforce)`, a line each. In securityfs, which a container for example does not have.
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

/// A parser takes a second at the most, unless it or the kernel hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What this host has of AppArmor.
#[derive(Debug)]
enum Host {
    Without,
    /// It is enabled, and why its profiles cannot be read (nor, then, loaded).
    Closed(String),
    /// The lines of its profiles.
    Open(String),
}

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
    /// When the last attempt to load it ended, and how. None that succeeded: what the kernel has by its name may be an
    /// earlier version's.
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Confinement {
    /// The label; empty: none is set.
    ///
    /// # Errors
    /// A profile is wanted that this host does not have; the runtime's own cannot be loaded.
    pub fn label(&self, wanted: &AppArmor, privileged: bool) -> Result<String, CriError> {
        let host = look(Path::new(ENABLED), Path::new(LOADED));
        match choose(wanted, privileged, &host)? {
            Choice::Nothing => Ok(String::new()),
            Choice::Label(name) => Ok(name),
            Choice::Default => {
                let is_there = host.has(DEFAULT);
                match parser() {
                    Some(parser) => self.provide(is_there, Instant::now(), || load(parser)),
                    None => Ok(if is_there { DEFAULT.to_owned() } else { String::new() }),
                }
            }
        }
    }

    /// `is_there`: some profile of that name is, maybe an earlier version's. Who removes what is in no file of
    /// /etc/apparmor.d (aa-remove-unknown(8)) removes this one as well: it is loaded again. Whoever asked while it was being
    /// loaded takes what came of that: a parser that hangs is not waited for by one after the other.
    fn provide(&self, is_there: bool, asked: Instant, load: impl FnOnce() -> Result<(), String>) -> Result<String, CriError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.take().filter(|(at, outcome)| *at >= asked || (is_there && outcome.is_ok()));
        let (at, outcome) = known.unwrap_or_else(|| {
            let outcome = load();
            (Instant::now(), outcome)
        });
        *last = Some((at, outcome.clone()));
        match outcome {
            Err(cause) if is_there => tracing::warn!(cause, "the AppArmor profile {DEFAULT} stays as it was: it cannot be replaced"),
            Err(cause) => return Err(CriError::failed(format!("load the AppArmor profile {DEFAULT}"), cause)),
            Ok(()) => {}
        }
        Ok(DEFAULT.to_owned())
    }
}

impl Host {
    fn has(&self, name: &str) -> bool {
        let Self::Open(loaded) = self else { return false };
        loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(profile, _)| profile == name))
    }

    fn lack(&self, has_parser: bool) -> Option<(&'static str, String)> {
        match self {
            Self::Closed(cause) => {
                let text = "containers are not confined by AppArmor profiles, and those that name one do not start: is securityfs mounted?";
                Some(("NoSecurityfs", format!("{text} {cause}")))
            }
            Self::Open(_) if !has_parser && !self.has(DEFAULT) => {
                let text =
                    "containers that name no AppArmor profile are not confined by one: there is no apparmor_parser (install `apparmor`)";
                Some(("NoParser", text.to_owned()))
            }
            Self::Without | Self::Open(_) => None,
        }
    }
}

/// What containers cannot have here though the kernel has AppArmor: a word and a sentence for the node's conditions.
pub fn lack() -> Option<(&'static str, String)> {
    look(Path::new(ENABLED), Path::new(LOADED)).lack(parser().is_some())
}

fn look(enabled: &Path, loaded: &Path) -> Host {
    if !std::fs::read_to_string(enabled).is_ok_and(|text| text.trim() == "Y") {
        return Host::Without;
    }
    match std::fs::read(loaded) {
        Ok(text) => Host::Open(String::from_utf8_lossy(&text).into_owned()),
        Err(cause) => Host::Closed(format!("{}: {cause}", loaded.display())),
    }
}

fn parser() -> Option<&'static str> {
    PARSERS.into_iter().find(|program| Path::new(program).exists())
}

fn load(parser: &str) -> Result<(), String> {
    let mut command = Command::new(parser);
    command.args(["--replace", "--skip-cache", "--quiet"]);
    errand::run(&mut command, PROFILE, PATIENCE).map_err(|cause| format!("{parser}: {cause}"))
}

fn choose(wanted: &AppArmor, privileged: bool, host: &Host) -> Result<Choice, CriError> {
    let refused = |name: &str, cause: &str| Err(CriError::failed(format!("confine it by the AppArmor profile {name}"), cause));
    match (wanted, host) {
        (AppArmor::Localhost(name), Host::Without) => refused(name, "AppArmor is not enabled on this host"),
        (AppArmor::Localhost(name), Host::Closed(cause)) => refused(name, &format!("this host's profiles cannot be read: {cause}")),
        (AppArmor::Localhost(name), Host::Open(_)) if host.has(name) => Ok(Choice::Label(name.clone())),
        (AppArmor::Localhost(name), Host::Open(_)) => refused(name, "it is not loaded on this host"),
        (AppArmor::RuntimeDefault, Host::Open(_)) if !privileged => Ok(Choice::Default),
        (AppArmor::RuntimeDefault | AppArmor::Unconfined, Host::Open(_)) => Ok(Choice::Label("unconfined".to_owned())),
        (AppArmor::RuntimeDefault | AppArmor::Unconfined, Host::Without | Host::Closed(_)) => Ok(Choice::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_host_has_is_set() {
        let open = || Host::Open("docker-default (enforce)\nmy profile (complain)\nbroken\n".to_owned());
        let closed = || Host::Closed("why".to_owned());
        let local = |name: &str| AppArmor::Localhost(name.into());
        let label = |name: &str| Some(Choice::Label(name.into()));
        for (wanted, privileged, host, expected) in [
            (AppArmor::RuntimeDefault, false, Host::Without, Some(Choice::Nothing)),
            (AppArmor::RuntimeDefault, true, Host::Without, Some(Choice::Nothing)),
            (AppArmor::RuntimeDefault, false, open(), Some(Choice::Default)),
            (AppArmor::RuntimeDefault, true, open(), label("unconfined")),
            (AppArmor::Unconfined, false, Host::Without, Some(Choice::Nothing)),
            (AppArmor::Unconfined, false, open(), label("unconfined")),
            (AppArmor::RuntimeDefault, false, closed(), Some(Choice::Nothing)),
            (AppArmor::Unconfined, true, closed(), Some(Choice::Nothing)),
            (local("docker-default"), false, closed(), None),
            (local("docker-default"), false, Host::Without, None),
            (local("docker-default"), false, open(), label("docker-default")),
            (local("docker-default"), true, open(), label("docker-default")),
            (local("my profile"), false, open(), label("my profile")),
            (local("docker"), false, open(), None),
            (local("broken"), false, open(), None),
        ] {
            let got = choose(&wanted, privileged, &host).ok();
            assert_eq!(got, expected, "{wanted:?} privileged: {privileged} {host:?}");
        }
    }

    #[test]
    fn the_profile_knows_its_own_name() {
        assert!(PROFILE.starts_with(&format!("profile {DEFAULT} ")));
        for rule in ["signal (send,receive)", "ptrace (trace,tracedby,read,readby)"] {
            assert!(PROFILE.contains(&format!("  {rule} peer={DEFAULT},\n")), "{rule}");
        }
    }

    #[test]
    fn a_host_whose_profiles_cannot_be_read_is_not_one_without() {
        let dir = tempfile::tempdir().unwrap();
        let [enabled, loaded] = ["enabled", "profiles"].map(|name| dir.path().join(name));
        let say = |has_parser: bool| {
            let host = look(&enabled, &loaded);
            let refused =
                choose(&AppArmor::Localhost("mine".into()), false, &host).err().map(|error| error.to_string()).unwrap_or_default();
            (host.lack(has_parser).map(|(reason, _)| reason), refused)
        };
        let (lack, refused) = say(true);
        assert!(lack.is_none() && refused.contains("not enabled"), "{lack:?} {refused}");
        std::fs::write(&enabled, "N\n").unwrap();
        assert_eq!(say(false).0, None);
        std::fs::write(&enabled, "Y\n").unwrap();
        let (lack, refused) = say(true);
        let words = format!("cannot be read: {}: No such file", loaded.display());
        assert!(lack == Some("NoSecurityfs") && refused.contains(&words), "{lack:?} {refused}");
        std::fs::write(&loaded, b"\xff (enforce)\nother (enforce)\n").unwrap();
        let (lack, refused) = say(true);
        assert!(lack.is_none() && refused.contains("not loaded"), "{lack:?} {refused}");
        assert_eq!(say(false).0, Some("NoParser"));
        std::fs::write(&loaded, format!("{DEFAULT} (enforce)\nmine (enforce)\n")).unwrap();
        assert_eq!(say(false), (None, String::new()));
    }

    #[test]
    fn whoever_waits_for_a_profile_takes_what_comes_of_it() {
        let all = Confinement::default();
        let before = Instant::now();
        let failed = all.provide(false, before, || Err("it hangs".to_owned()));
        assert!(failed.is_err_and(|error| error.to_string().contains("it hangs")));
        let never = || -> Result<(), String> { unreachable!("it is loaded once more") };
        assert!(all.provide(false, before, never).is_err_and(|error| error.to_string().contains("it hangs")));
        assert_eq!(all.provide(true, before, never).ok().as_deref(), Some(DEFAULT), "an earlier version's will do");
        assert_eq!(all.provide(false, Instant::now(), || Ok(())).ok().as_deref(), Some(DEFAULT), "who comes later tries again");
        assert_eq!(all.provide(false, before, never).ok().as_deref(), Some(DEFAULT));
        assert_eq!(all.provide(true, Instant::now(), never).ok().as_deref(), Some(DEFAULT), "there, and ours");
        assert!(all.provide(false, Instant::now(), || Err("gone".to_owned())).is_err(), "somebody took it away");
        let mut loads = 0;
        let mut load = || {
            loads += 1;
            Ok(())
        };
        assert!(all.provide(true, Instant::now(), &mut load).is_ok() && all.provide(true, Instant::now(), &mut load).is_ok());
        assert_eq!(loads, 1, "what is there may be an earlier version's");
    }
}
