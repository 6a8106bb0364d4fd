//! The checks of the Pod Security Standards. PURE.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Capabilities, Container, LifecycleHandler, PodSpec, Probe, SecurityContext, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::pod_security::{Level, SAFE_SYSCTLS};

/// Capabilities that a runtime gives anyway.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Allowed besides those that a pod may set here.
const NEWER_SYSCTLS: [&str; 2] = ["net.ipv4.tcp_notsent_lowat", "net.ipv4.tcp_slow_start_after_idle"];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// A container of any list: what the checks look at.
struct Seen<'a> {
    name: &'a str,
    context: Option<&'a SecurityContext>,
    host_ports: Vec<i32>,
    hosts: bool,
}

/// What of a pod the level forbids: each check with who breaks it, in the order of the checks.
pub fn violations(level: Level, meta: &ObjectMeta, spec: &PodSpec) -> Vec<String> {
    if level == Level::Privileged {
        return vec![];
    }
    let containers = containers(spec);
    let mut found = Vec::new();
    baseline(meta, spec, &containers, level, &mut found);
    if level == Level::Restricted {
        restricted(spec, &containers, &mut found);
    }
    found
}

fn containers(spec: &PodSpec) -> Vec<Seen<'_>> {
    let plain = |it: &'_ Container| -> (Vec<i32>, bool) {
        let ports = it.ports.iter().flatten().filter_map(|port| port.host_port).filter(|port| *port != 0).collect();
        let probes = [&it.liveness_probe, &it.readiness_probe, &it.startup_probe];
        let hooks = it.lifecycle.iter().flat_map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
        (ports, probes.into_iter().flatten().any(probes_elsewhere) || hooks.flatten().any(asks_elsewhere))
    };
    let lists = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut all: Vec<Seen<'_>> = lists
        .map(|it| {
            let (host_ports, hosts) = plain(it);
            Seen { name: &it.name, context: it.security_context.as_ref(), host_ports, hosts }
        })
        .collect();
    all.extend(spec.ephemeral_containers.iter().flatten().map(|it| Seen {
        name: &it.name,
        context: it.security_context.as_ref(),
        host_ports: vec![],
        hosts: false,
    }));
    all
}

/// The node asks, so its loopback is as forbidden as any other host.
fn named(host: Option<&String>) -> bool {
    host.is_some_and(|host| !host.is_empty())
}

fn probes_elsewhere(probe: &Probe) -> bool {
    named(probe.http_get.as_ref().and_then(|it| it.host.as_ref())) || named(probe.tcp_socket.as_ref().and_then(|it| it.host.as_ref()))
}

fn asks_elsewhere(handler: &LifecycleHandler) -> bool {
    named(handler.http_get.as_ref().and_then(|it| it.host.as_ref())) || named(handler.tcp_socket.as_ref().and_then(|it| it.host.as_ref()))
}

/// `container "a"`, `containers "a", "b"`.
fn who(names: &[&str]) -> String {
    let list: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!("container{} {}", if names.len() == 1 { "" } else { "s" }, list.join(", "))
}

fn of<'a>(containers: &'a [Seen<'_>], broken: impl Fn(&Seen<'_>) -> bool) -> Vec<&'a str> {
    containers.iter().filter(|it| broken(it)).map(|it| it.name).collect()
}

/// The text of a check that some containers break.
fn say(found: &mut Vec<String>, check: &str, names: &[&str], rest: &str) {
    if !names.is_empty() {
        found.push(format!("{check} ({} {rest})", who(names)));
    }
}

fn baseline(meta: &ObjectMeta, spec: &PodSpec, containers: &[Seen<'_>], level: Level, found: &mut Vec<String>) {
    apparmor(meta, spec, containers, found);
    if level == Level::Baseline {
        let wrong = |it: &Seen<'_>| added(it).any(|name| !DEFAULT_CAPABILITIES.contains(&name));
        let extra: BTreeSet<&str> = containers.iter().flat_map(added).filter(|name| !DEFAULT_CAPABILITIES.contains(name)).collect();
        let rest = format!("must not include {} in securityContext.capabilities.add", quoted(extra));
        say(found, "non-default capabilities", &of(containers, wrong), &rest);
    }
    namespaces(spec, found);
    if level == Level::Baseline {
        let paths: Vec<&Volume> = spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some()).collect();
        if !paths.is_empty() {
            found.push(format!("hostPath volumes ({})", volumes(&paths)));
        }
    }
    ports(containers, found);
    say(found, "probe or lifecycle host", &of(containers, |it| it.hosts), "must not set a host in a probe or lifecycle handler");
    let privileged = |it: &Seen<'_>| it.context.and_then(|context| context.privileged) == Some(true);
    say(found, "privileged", &of(containers, privileged), "must not set securityContext.privileged=true");
    let unmasked = |it: &Seen<'_>| it.context.and_then(|context| context.proc_mount.as_deref()).is_some_and(|mount| mount != "Default");
    let unmasked = of(containers, unmasked);
    if spec.host_users != Some(false) || level == Level::Restricted {
        say(found, "procMount", &unmasked, "must not set securityContext.procMount to \"Unmasked\"");
    }
    selinux(spec, containers, found);
    if level == Level::Baseline {
        unconfined(spec, containers, found);
    }
    sysctls(spec, found);
}

fn added<'a>(it: &Seen<'a>) -> impl Iterator<Item = &'a str> {
    let capabilities: Option<&'a Capabilities> = it.context.and_then(|context| context.capabilities.as_ref());
    capabilities.and_then(|it| it.add.as_ref()).into_iter().flatten().map(|name| name.strip_prefix("CAP_").unwrap_or(name))
}

fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

fn volumes(all: &[&Volume]) -> String {
    let names = quoted(all.iter().map(|volume| volume.name.as_str()));
    format!("volume{} {names}", if all.len() == 1 { "" } else { "s" })
}

fn namespaces(spec: &PodSpec, found: &mut Vec<String>) {
    let all = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let set: Vec<String> = all.iter().filter(|(_, it)| *it == Some(true)).map(|(name, _)| format!("{name}=true")).collect();
    if !set.is_empty() {
        found.push(format!("host namespaces ({})", set.join(", ")));
    }
}

fn ports(containers: &[Seen<'_>], found: &mut Vec<String>) {
    let names = of(containers, |it| !it.host_ports.is_empty());
    let ports: BTreeSet<i32> = containers.iter().flat_map(|it| it.host_ports.iter().copied()).collect();
    let list: Vec<String> = ports.iter().map(i32::to_string).collect();
    let (verb, plural) = (if names.len() == 1 { "uses" } else { "use" }, if list.len() == 1 { "" } else { "s" });
    say(found, "hostPort", &names, &format!("{verb} hostPort{plural} {}", list.join(", ")));
}

fn apparmor(meta: &ObjectMeta, spec: &PodSpec, containers: &[Seen<'_>], found: &mut Vec<String>) {
    let mut broken = Vec::new();
    let pod = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    if pod.is_some_and(|profile| profile.type_ == "Unconfined") {
        broken.push("pod must not set AppArmor profile type to \"Unconfined\"".to_owned());
    }
    let open = |it: &Seen<'_>| {
        let profile = it.context.and_then(|context| context.app_armor_profile.as_ref());
        profile.is_some_and(|profile| profile.type_ == "Unconfined")
    };
    let names = of(containers, open);
    if !names.is_empty() {
        broken.push(format!("{} must not set AppArmor profile type to \"Unconfined\"", who(&names)));
    }
    for (name, value) in meta.annotations.iter().flatten().filter(|(name, _)| name.starts_with(APPARMOR)) {
        if !(value.is_empty() || value == "runtime/default" || value.starts_with("localhost/")) {
            broken.push(format!("annotation {name}={value:?}"));
        }
    }
    if !broken.is_empty() {
        found.push(format!("forbidden AppArmor profile{} ({})", if broken.len() == 1 { "" } else { "s" }, broken.join(", ")));
    }
}

fn selinux(spec: &PodSpec, containers: &[Seen<'_>], found: &mut Vec<String>) {
    let pod = spec.security_context.as_ref().and_then(|context| context.se_linux_options.as_ref());
    let options = pod.into_iter().chain(containers.iter().filter_map(|it| it.context?.se_linux_options.as_ref()));
    let wrong = options.into_iter().any(|it| {
        let set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        !SELINUX_TYPES.contains(&it.type_.as_deref().unwrap_or_default()) || set(&it.user) || set(&it.role)
    });
    if wrong {
        found.push("seLinuxOptions (pod or containers set forbidden securityContext.seLinuxOptions)".to_owned());
    }
}

fn pod_seccomp(spec: &PodSpec) -> Option<&str> {
    spec.security_context.as_ref()?.seccomp_profile.as_ref().map(|profile| profile.type_.as_str())
}

fn seccomp<'a>(it: &Seen<'a>) -> Option<&'a str> {
    it.context?.seccomp_profile.as_ref().map(|profile| profile.type_.as_str())
}

fn unconfined(spec: &PodSpec, containers: &[Seen<'_>], found: &mut Vec<String>) {
    let names = of(containers, |it| seccomp(it) == Some("Unconfined"));
    let whom = match (pod_seccomp(spec) == Some("Unconfined"), names.is_empty()) {
        (true, true) => "pod".to_owned(),
        (true, false) => format!("pod and {}", who(&names)),
        (false, false) => who(&names),
        (false, true) => return,
    };
    found.push(format!("seccompProfile ({whom} must not set securityContext.seccompProfile.type to \"Unconfined\")"));
}

fn sysctls(spec: &PodSpec, found: &mut Vec<String>) {
    let set = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    let unsafe_ones: Vec<&str> =
        set.map(|it| it.name.as_str()).filter(|name| !SAFE_SYSCTLS.contains(name) && !NEWER_SYSCTLS.contains(name)).collect();
    if !unsafe_ones.is_empty() {
        found.push(format!("forbidden sysctls ({})", unsafe_ones.join(", ")));
    }
}

fn restricted(spec: &PodSpec, containers: &[Seen<'_>], found: &mut Vec<String>) {
    let escalates = |it: &Seen<'_>| it.context.and_then(|context| context.allow_privilege_escalation) != Some(false);
    let must = "must set securityContext.allowPrivilegeEscalation=false";
    say(found, "allowPrivilegeEscalation != false", &of(containers, escalates), must);
    capabilities(containers, found);
    let wrong: Vec<&Volume> = spec.volumes.iter().flatten().filter(|volume| !is_plain(volume)).collect();
    if !wrong.is_empty() {
        let uses = if wrong.len() == 1 { "uses a restricted volume type" } else { "use restricted volume types" };
        found.push(format!("restricted volume types ({} {uses})", volumes(&wrong)));
    }
    // Root of user namespaces of the pod's own is nobody on the host.
    if spec.host_users != Some(false) {
        root(spec, containers, found);
    }
    confined(spec, containers, found);
}

fn root(spec: &PodSpec, containers: &[Seen<'_>], found: &mut Vec<String>) {
    let pod = spec.security_context.as_ref();
    let pod_non_root = pod.and_then(|context| context.run_as_non_root);
    let rooted = |it: &Seen<'_>| match it.context.and_then(|context| context.run_as_non_root) {
        Some(non_root) => !non_root,
        None => pod_non_root != Some(true),
    };
    let rooted = of(containers, rooted);
    match pod_non_root {
        Some(false) if rooted.is_empty() => {
            found.push("runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)".to_owned())
        }
        _ => said_of_pod_too(found, "runAsNonRoot != true", &rooted, "must set securityContext.runAsNonRoot=true"),
    }
    let pod_root = pod.and_then(|context| context.run_as_user) == Some(0);
    let roots = of(containers, |it| it.context.and_then(|context| context.run_as_user) == Some(0));
    match (pod_root, roots.is_empty()) {
        (true, _) => found.push("runAsUser=0 (pod must not set runAsUser=0)".to_owned()),
        (false, false) => found.push(format!("runAsUser=0 ({} must not set runAsUser=0)", who(&roots))),
        (false, true) => {}
    }
}

/// Each container is under a seccomp profile, and the pod does not say otherwise.
fn confined(spec: &PodSpec, containers: &[Seen<'_>], found: &mut Vec<String>) {
    let good = |kind: Option<&str>| matches!(kind, Some("RuntimeDefault" | "Localhost"));
    let open = of(containers, |it| !good(seccomp(it).or_else(|| pod_seccomp(spec))));
    match pod_seccomp(spec) {
        Some("Unconfined") if open.is_empty() => {
            found.push("seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")".to_owned());
        }
        _ => {
            let must = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
            said_of_pod_too(found, "seccompProfile", &open, must);
        }
    }
}

/// Of what the pod may say for all its containers.
fn said_of_pod_too(found: &mut Vec<String>, check: &str, names: &[&str], must: &str) {
    if !names.is_empty() {
        found.push(format!("{check} (pod or {} {must})", who(names)));
    }
}

fn capabilities(containers: &[Seen<'_>], found: &mut Vec<String>) {
    let keeps = |it: &Seen<'_>| {
        let dropped = it.context.and_then(|context| context.capabilities.as_ref()).and_then(|it| it.drop.as_ref());
        !dropped.into_iter().flatten().any(|name| name == "ALL")
    };
    let keeping = of(containers, keeps);
    let extra: BTreeSet<&str> = containers.iter().flat_map(added).filter(|name| *name != "NET_BIND_SERVICE").collect();
    let adding = of(containers, |it| added(it).any(|name| name != "NET_BIND_SERVICE"));
    let mut broken = Vec::new();
    if !keeping.is_empty() {
        broken.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", who(&keeping)));
    }
    if !adding.is_empty() {
        broken.push(format!("{} must not include {} in securityContext.capabilities.add", who(&adding), quoted(extra)));
    }
    if !broken.is_empty() {
        found.push(format!("unrestricted capabilities ({})", broken.join("; ")));
    }
}

/// Volumes that bring nothing of the host with them.
fn is_plain(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some()
}
