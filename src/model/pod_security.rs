//! The levels of Kubernetes' Pod Security Standards, as the labels of a namespace name them. PURE.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::rule::{Errors, Path};

/// Before `enforce`, `warn`, `audit` and their `-version`s.
pub const LABEL: &str = "pod-security.kubernetes.io/";
/// Sysctls that belong to the pod alone, as both the Pod Security Standards and the kubelet have them.
pub const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
const MODES: [&str; 3] = ["enforce", "warn", "audit"];

/// How much a pod may ask of its host. Each level forbids what the one before it does, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn of(word: &str) -> Option<Self> {
        [Self::Privileged, Self::Baseline, Self::Restricted].into_iter().find(|level| level.word() == word)
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// The labels name levels and versions that there are: a slip must not leave a namespace open.
pub(super) fn validate(meta: &ObjectMeta, errors: &mut Errors) {
    let Some(labels) = &meta.labels else { return };
    let metadata = Path::root("metadata");
    let path = metadata.child("labels");
    for mode in MODES {
        let (level, version) = (format!("{LABEL}{mode}"), format!("{LABEL}{mode}-version"));
        if let Some(word) = labels.get(&level).filter(|word| Level::of(word).is_none()) {
            errors.invalid(&path.key(&level), word, "must be one of privileged, baseline, restricted");
        }
        if let Some(word) = labels.get(&version).filter(|word| !is_version(word)) {
            errors.invalid(&path.key(&version), word, "must be \"latest\" or \"v1.x\"");
        }
    }
}

fn is_version(word: &str) -> bool {
    let minor = word.strip_prefix("v1.").unwrap_or_default();
    word == "latest" || (!minor.is_empty() && minor.len() <= 4 && minor.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::model::{Kind, Object, validate};

    #[test]
    fn a_namespace_with_a_slip_in_its_level_is_refused() {
        let said = |labels| {
            let namespace = Object::from_value(Kind::Namespace, json!({"metadata": {"name": "a", "labels": labels}})).expect("a namespace");
            validate::validate(namespace.typed()).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let good = json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn-version": "v1.30"});
        assert_eq!(said(good), [""; 0]);
        let slips = json!({"pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/audit-version": "1.30"});
        let said = said(slips);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("must be one of privileged, baseline, restricted"), "{said:?}");
    }
}
