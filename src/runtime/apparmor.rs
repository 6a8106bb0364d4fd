//! AppArmor: which label a container's processes get. The kernel's part is in the shim.

use crate::cri::{AppArmor, CriError};

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// `name (enforce)`, a line each.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// The label; empty: none is set.
///
/// # Errors
/// A profile is wanted that this host does not have.
pub fn label(wanted: &AppArmor, privileged: bool) -> Result<String, CriError> {
    let enabled = std::fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "Y");
    let loaded = enabled.then(|| std::fs::read_to_string(LOADED).unwrap_or_default());
    choose(wanted, privileged, loaded.as_deref())
}

/// `loaded`: the host's profiles; `None`: it has no AppArmor.
fn choose(wanted: &AppArmor, privileged: bool, loaded: Option<&str>) -> Result<String, CriError> {
    let refused = |name: &str, cause: &str| Err(CriError::failed(format!("confine it by the AppArmor profile {name}"), cause));
    match (wanted, loaded) {
        (AppArmor::Localhost(name), None) => refused(name, "AppArmor is not enabled on this host"),
        (AppArmor::Localhost(name), Some(loaded)) => {
            let known = loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(profile, _)| profile == name));
            if known { Ok(name.clone()) } else { refused(name, "it is not loaded on this host") }
        }
        (AppArmor::Unconfined, Some(_)) => Ok("unconfined".to_owned()),
        (AppArmor::RuntimeDefault, Some(_)) if privileged => Ok("unconfined".to_owned()),
        // There is none that this runtime brings along.
        (AppArmor::RuntimeDefault, _) | (AppArmor::Unconfined, None) => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_host_has_is_set() {
        let loaded = "docker-default (enforce)\nmy profile (complain)\nbroken\n";
        let local = |name: &str| AppArmor::Localhost(name.into());
        for (wanted, privileged, host, label) in [
            (AppArmor::RuntimeDefault, false, None, Some("")),
            (AppArmor::RuntimeDefault, true, None, Some("")),
            (AppArmor::RuntimeDefault, false, Some(loaded), Some("")),
            (AppArmor::RuntimeDefault, true, Some(loaded), Some("unconfined")),
            (AppArmor::Unconfined, false, None, Some("")),
            (AppArmor::Unconfined, false, Some(loaded), Some("unconfined")),
            (local("docker-default"), false, None, None),
            (local("docker-default"), false, Some(loaded), Some("docker-default")),
            (local("my profile"), false, Some(loaded), Some("my profile")),
            (local("docker"), false, Some(loaded), None),
            (local("broken"), false, Some(loaded), None),
        ] {
            let got = choose(&wanted, privileged, host).ok();
            assert_eq!(got.as_deref(), label, "{wanted:?} privileged: {privileged}");
        }
    }
}
