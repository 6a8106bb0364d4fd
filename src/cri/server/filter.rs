//! What lists keep: every part of a filter that is set must fit. PURE.

use crate::cri::CriError;
use crate::cri::types::{ContainerStatus, PodSandbox};
use crate::cri::wire::sandbox::has_labels;
use crate::cri::wire::status::{container_state, sandbox_state};
use crate::cri::wire::{ContainerFilter, ContainerStatsFilter, PodSandboxFilter, PodSandboxStatsFilter};

/// Ids are long and random: as people do, callers may leave off their end.
const LONG: usize = 32;
/// No id is shorter than that.
const SHORT: usize = 4;

/// Whether `wanted` means this id. Nothing means everything.
pub fn means(wanted: &str, id: &str) -> bool {
    wanted.is_empty() || wanted == id || (id.len() >= LONG && wanted.len() >= SHORT && id.starts_with(wanted))
}

/// The one id that is meant.
///
/// # Errors
/// When several may be meant.
pub fn find<'a>(wanted: &str, ids: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>, CriError> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut meant: Vec<&str> = ids.filter(|id| means(wanted, id)).collect();
    if meant.contains(&wanted) {
        meant.retain(|id| *id == wanted);
    }
    if meant.len() > 1 {
        return Err(CriError::Invalid(format!("{wanted:?} is the beginning of several ids")));
    }
    Ok(meant.pop())
}

pub fn sandbox(filter: &Option<PodSandboxFilter>, sandbox: &PodSandbox) -> bool {
    let Some(filter) = filter else { return true };
    let state = filter.state.as_ref().is_none_or(|wanted| wanted.state() == sandbox_state(sandbox.state));
    means(&filter.id, &sandbox.id) && state && has_labels(&sandbox.labels, &filter.label_selector)
}

pub fn container(filter: &Option<ContainerFilter>, container: &ContainerStatus) -> bool {
    let Some(filter) = filter else { return true };
    let state = filter.state.as_ref().is_none_or(|wanted| wanted.state() == container_state(container.state));
    let ids = means(&filter.id, &container.id) && means(&filter.pod_sandbox_id, &container.sandbox_id);
    ids && state && has_labels(&container.labels, &filter.label_selector)
}

pub fn container_stats(filter: &Option<ContainerStatsFilter>, container: &ContainerStatus) -> bool {
    let Some(filter) = filter else { return true };
    let ids = means(&filter.id, &container.id) && means(&filter.pod_sandbox_id, &container.sandbox_id);
    ids && has_labels(&container.labels, &filter.label_selector)
}

pub fn sandbox_stats(filter: &Option<PodSandboxStatsFilter>, sandbox: &PodSandbox) -> bool {
    let Some(filter) = filter else { return true };
    means(&filter.id, &sandbox.id) && has_labels(&sandbox.labels, &filter.label_selector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ids_may_be_cut_short() {
        let (one, two) = ("a".repeat(32), format!("aaaab{}", "c".repeat(27)));
        let ids = || [one.as_str(), two.as_str(), "c1", "c12"].into_iter();
        let found = |wanted: &str| find(wanted, ids()).unwrap();
        assert_eq!(found("aaaab"), Some(two.as_str()));
        assert!(matches!(find("aaaa", ids()), Err(CriError::Invalid(_))), "it could be two");
        assert_eq!(found("aaa"), None, "that is too short to be sure");
        assert_eq!((found("c1"), found("c")), (Some("c1"), None), "short ids are names");
        assert_eq!((found(""), found(&one)), (None, Some(one.as_str())));
    }
}
