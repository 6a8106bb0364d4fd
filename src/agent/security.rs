//! A container's security context: the pod's and its own in one. PURE.

use std::path::Path;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, PodSpec, SeccompProfile};

use crate::cri::{AppArmor, Image, Seccomp, SecurityContext};

/// What this host has for containers.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Where Localhost profiles live.
    pub seccomp_dir: &'a Path,
    /// Its kernel confines by AppArmor profiles.
    pub has_apparmor: bool,
}

/// Merges both levels; the container's wins.
///
/// # Errors
/// `runAsNonRoot` or an AppArmor profile that cannot be kept: the messages are the kubelet's.
pub fn context(spec: &PodSpec, container: &Container, image: Option<&Image>, host: Host<'_>) -> Result<SecurityContext, String> {
    let empty = k8s_openapi::api::core::v1::PodSecurityContext::default();
    let pod = spec.security_context.as_ref().unwrap_or(&empty);
    let none = k8s_openapi::api::core::v1::SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let privileged = own.privileged == Some(true);
    let id = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let run_as_user = id(own.run_as_user.or(pod.run_as_user));
    let run_as_non_root = own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
    if run_as_non_root {
        not_root(run_as_user, image)?;
    }
    let confined_by = own.app_armor_profile.as_ref().or(pod.app_armor_profile.as_ref());
    // Who names none takes what there is.
    if confined_by.is_some_and(|profile| profile.type_ != "Unconfined") && !host.has_apparmor {
        return Err("Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned());
    }
    let groups = pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group);
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let profile = own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref());
    Ok(SecurityContext {
        // A pod has no words for these.
        add_ambient_capabilities: Vec::new(),
        processes_of: String::new(),
        own_processes: false,
        run_as_username: String::new(),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        privileged,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        run_as_user,
        run_as_group: id(own.run_as_group.or(pod.run_as_group)),
        supplemental_groups: groups.filter_map(|group| u32::try_from(group).ok()).collect(),
        strict_groups: pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(profile, host.seccomp_dir) },
        apparmor: apparmor(confined_by),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        run_as_non_root,
    })
}

fn seccomp(profile: Option<&SeccompProfile>, dir: &Path) -> Seccomp {
    match profile.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
        Some(("Unconfined", _)) => Seccomp::Unconfined,
        Some(("Localhost", Some(name))) => Seccomp::Localhost(dir.join(name.trim_start_matches('/'))),
        _ => Seccomp::RuntimeDefault,
    }
}

fn apparmor(profile: Option<&AppArmorProfile>) -> AppArmor {
    match profile.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
        Some(("Unconfined", _)) => AppArmor::Unconfined,
        Some(("Localhost", Some(name))) => AppArmor::Localhost(name.to_owned()),
        _ => AppArmor::RuntimeDefault,
    }
}

fn not_root(run_as_user: Option<u32>, image: Option<&Image>) -> Result<(), String> {
    let image_user = image.map(|image| image.user.split(':').next().unwrap_or_default()).unwrap_or_default();
    match run_as_user {
        Some(0) => Err("container's runAsUser breaks non-root policy".to_owned()),
        Some(_) => Ok(()),
        None if image_user.is_empty() => Err("container has runAsNonRoot and image will run as root".to_owned()),
        None => match image_user.parse::<u32>() {
            Ok(0) => Err("container has runAsNonRoot and image will run as root".to_owned()),
            Ok(_) => Ok(()),
            Err(_) => {
                Err(format!("container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Capabilities, PodSecurityContext, SecurityContext as Own};

    fn host() -> Host<'static> {
        Host { seccomp_dir: Path::new("/s"), has_apparmor: false }
    }

    fn image(user: &str) -> Image {
        Image { id: "i".into(), tags: vec![], digests: vec![], size_bytes: 1, user: user.into(), pinned: false }
    }

    #[test]
    fn the_containers_own_wins() {
        let pod = PodSecurityContext {
            run_as_user: Some(1000),
            run_as_group: Some(1001),
            fs_group: Some(2000),
            supplemental_groups: Some(vec![3000]),
            ..PodSecurityContext::default()
        };
        let own = Own {
            run_as_user: Some(7),
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: Some(vec!["NET_ADMIN".into()]), drop: Some(vec!["ALL".into()]) }),
            ..Own::default()
        };
        let spec = PodSpec { security_context: Some(pod), ..PodSpec::default() };
        let c = Container { name: "a".into(), security_context: Some(own), ..Container::default() };
        let got = context(&spec, &c, None, host()).unwrap();
        assert_eq!((got.run_as_user, got.run_as_group), (Some(7), Some(1001)));
        assert_eq!(got.supplemental_groups, [3000, 2000]);
        assert!(got.no_new_privs && !got.privileged);
        assert_eq!(got.seccomp, Seccomp::RuntimeDefault);
        assert_eq!((got.add_capabilities, got.drop_capabilities), (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
    }

    #[test]
    fn privileged_is_unconfined_and_profiles_are_found_below_the_directory() {
        let with = |own: Own| Container { name: "a".into(), security_context: Some(own), ..Container::default() };
        let spec = PodSpec::default();
        let privileged = with(Own { privileged: Some(true), ..Own::default() });
        assert_eq!(context(&spec, &privileged, None, host()).unwrap().seccomp, Seccomp::Unconfined);
        let profile = SeccompProfile { type_: "Localhost".into(), localhost_profile: Some("p/a.json".into()) };
        let local = with(Own { seccomp_profile: Some(profile), ..Own::default() });
        assert_eq!(context(&spec, &local, None, host()).unwrap().seccomp, Seccomp::Localhost("/s/p/a.json".into()));
    }

    #[test]
    fn run_as_non_root_is_checked_before_the_container_exists() {
        let table = [
            (None, "", Some("image will run as root")),
            (None, "0:5", Some("image will run as root")),
            (None, "app", Some("non-numeric user (app)")),
            (None, "1000:1000", None),
            (Some(0), "1000", Some("breaks non-root policy")),
            (Some(5), "", None),
        ];
        for (user, image_user, want) in table {
            let own = Own { run_as_non_root: Some(true), run_as_user: user, ..Own::default() };
            let c = Container { name: "a".into(), security_context: Some(own), ..Container::default() };
            let got = context(&PodSpec::default(), &c, Some(&image(image_user)), host());
            match want {
                Some(text) => assert!(got.as_ref().is_err_and(|e| e.contains(text)), "{user:?} {image_user:?}: {got:?}"),
                None => assert!(got.is_ok(), "{user:?} {image_user:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_profile_that_is_asked_for_is_not_left_out() {
        let named = |kind: &str| {
            let profile = AppArmorProfile { type_: kind.into(), localhost_profile: (kind == "Localhost").then(|| "own".into()) };
            Some(profile).filter(|_| !kind.is_empty())
        };
        for (of_pod, own, refused) in [
            ("", "", false),
            ("", "RuntimeDefault", true),
            ("RuntimeDefault", "", true),
            ("RuntimeDefault", "Unconfined", false),
            ("Unconfined", "Localhost", true),
        ] {
            let pod = PodSecurityContext { app_armor_profile: named(of_pod), ..PodSecurityContext::default() };
            let spec = PodSpec { security_context: Some(pod), ..PodSpec::default() };
            let own = Own { app_armor_profile: named(own), ..Own::default() };
            let c = Container { name: "a".into(), security_context: Some(own), ..Container::default() };
            assert_eq!(context(&spec, &c, None, host()).is_err(), refused, "{spec:?} {c:?}");
            assert!(context(&spec, &c, None, Host { has_apparmor: true, ..host() }).is_ok());
        }
    }
}
