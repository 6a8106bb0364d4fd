//! Security contexts of pods and containers. PURE.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};

use super::{names, one_of, volume};
use crate::model::rule::{Errors, Path};

const ID: &str = "must be between 0 and 2147483647, inclusive";

pub(super) fn pod(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("securityContext");
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        errors.invalid(&path.child("shareProcessNamespace"), &true, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    if spec.host_users == Some(false) {
        let detail = "when `pod.Spec.HostUsers` is false";
        let of_host = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
        of_host.iter().filter(|(_, host)| *host == Some(true)).for_each(|(name, _)| errors.forbidden(&path.child(name), detail));
        // Its users are none of those that own a device (kubernetes.io, "User Namespaces", limitations).
        let own = |list: &'static str, all: &[Container], errors: &mut Errors| {
            for (index, _) in all.iter().enumerate().filter(|(_, it)| it.volume_devices.as_ref().is_some_and(|all| !all.is_empty())) {
                errors.forbidden(&path.child(list).index(index).child("volumeDevices"), detail);
            }
        };
        own("containers", &spec.containers, errors);
        own("initContainers", spec.init_containers.as_deref().unwrap_or_default(), errors);
    }
    let Some(it) = &spec.security_context else { return };
    id(it.run_as_user, &at.child("runAsUser"), errors);
    id(it.run_as_group, &at.child("runAsGroup"), errors);
    id(it.fs_group, &at.child("fsGroup"), errors);
    let groups = at.child("supplementalGroups");
    for (index, group) in it.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &groups.index(index), errors);
    }
    one_of(it.fs_group_change_policy.as_deref(), &["Always", "OnRootMismatch"], &at.child("fsGroupChangePolicy"), errors);
    one_of(it.supplemental_groups_policy.as_deref(), &["Merge", "Strict"], &at.child("supplementalGroupsPolicy"), errors);
    seccomp(it.seccomp_profile.as_ref(), &at.child("seccompProfile"), errors);
    apparmor(it.app_armor_profile.as_ref(), &at.child("appArmorProfile"), errors);
    sysctls(it, spec, &at.child("sysctls"), errors);
}

fn id(id: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(id) = id.filter(|it| !(0..=i64::from(i32::MAX)).contains(it)) {
        errors.invalid(path, &id, ID);
    }
}

fn sysctls(it: &PodSecurityContext, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, sysctl) in it.sysctls.iter().flatten().enumerate() {
        let at = path.index(index);
        let name = sysctl.name.replace('/', ".");
        if name.is_empty() {
            errors.required(&at.child("name"), "");
            continue;
        }
        errors.all(&at.child("name"), &sysctl.name, names::sysctl(&sysctl.name));
        let host = |area: &str| match area {
            "net" if spec.host_network == Some(true) => Some("may not be specified when 'hostNetwork' is true"),
            "ipc" if spec.host_ipc == Some(true) => Some("may not be specified when 'hostIPC' is true"),
            _ => None,
        };
        let area = if name.starts_with("net.") {
            "net"
        } else if ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|it| name.starts_with(it)) {
            "ipc"
        } else {
            ""
        };
        if let Some(detail) = host(area) {
            errors.invalid(&at.child("name"), &sysctl.name, detail);
        }
        if !seen.insert(name) {
            errors.duplicate(&at.child("name"), &sysctl.name);
        }
    }
}

fn seccomp(profile: Option<&SeccompProfile>, path: &Path<'_>, errors: &mut Errors) {
    let Some(it) = profile else { return };
    let local = it.localhost_profile.as_deref();
    let at = path.child("localhostProfile");
    match it.type_.as_str() {
        "" => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        "Localhost" if local.is_none() => errors.required(&at, "must be set when seccomp type is Localhost"),
        "Localhost" => volume::descending(local.unwrap_or_default(), &at, errors),
        "RuntimeDefault" | "Unconfined" => {
            if let Some(local) = local {
                errors.invalid(&at, local, "can only be set when seccomp type is Localhost");
            }
        }
        other => errors.unsupported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

fn apparmor(profile: Option<&AppArmorProfile>, path: &Path<'_>, errors: &mut Errors) {
    let Some(it) = profile else { return };
    let local = it.localhost_profile.as_deref();
    let at = path.child("localhostProfile");
    match it.type_.as_str() {
        "" => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        "Localhost" => match local {
            None | Some("") => errors.required(&at, "must be set when AppArmor type is Localhost"),
            Some(name) if name.trim() != name => errors.invalid(&at, name, "must not be padded with whitespace"),
            Some(_) => {}
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(local) = local {
                errors.invalid(&at, local, "can only be set when AppArmor type is Localhost");
            }
        }
        other => errors.unsupported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

pub(super) fn container(it: &SecurityContext, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    id(it.run_as_user, &path.child("runAsUser"), errors);
    id(it.run_as_group, &path.child("runAsGroup"), errors);
    one_of(it.proc_mount.as_deref(), &["Default", "Unmasked"], &path.child("procMount"), errors);
    if let (Some(mount @ "Unmasked"), true) = (it.proc_mount.as_deref(), spec.host_users != Some(false)) {
        errors.invalid(&path.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(it.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    apparmor(it.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
    if it.allow_privilege_escalation == Some(false) {
        if it.privileged == Some(true) {
            errors.invalid(path, it, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = it.capabilities.as_ref().and_then(|it| it.add.as_deref()).unwrap_or_default();
        if added.iter().any(|name| name == "CAP_SYS_ADMIN") {
            errors.invalid(path, it, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}
