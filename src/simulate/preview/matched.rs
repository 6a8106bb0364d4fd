//! Pods that a preview named, against those that were: what every test of a preview asks. PURE.

use super::PodPreview;

/// Name and node of each (or the reason why it has none).
pub type Placed = Vec<(String, String)>;

/// Gives each foretold pod one that was; what is left over on either side is wrong.
pub fn matched(what: &str, foretold: &[PodPreview], happened: &[(String, String)]) -> Vec<String> {
    let mut left = happened.to_vec();
    let mut wrong = Vec::new();
    // Those with one possible node first: they must not find it taken.
    let (tied, exact): (Vec<&PodPreview>, Vec<&PodPreview>) = foretold.iter().partition(|pod| pod.tied);
    for pod in exact.into_iter().chain(tied) {
        let place = pod.node.as_ref().or(pod.reason.as_ref());
        for _ in 0..pod.count {
            let fits = |(name, at): &(String, String)| is_named(&pod.name, name) && (pod.tied || Some(at) == place);
            match left.iter().position(fits) {
                Some(at) => drop(left.remove(at)),
                None => wrong.push(format!("{} {what} {}: foretold, but it did not", pod.name, place.map_or("", String::as_str))),
            }
        }
    }
    wrong.extend(left.iter().map(|(name, at)| format!("{name} {what} ({at}): not foretold")));
    wrong
}

/// `web/shop-*` names every pod of that Deployment (or of that set), not those of `shop-two`.
fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.strip_prefix(start).is_some_and(|rest| rest.matches('-').count() <= 1),
        None => pattern == name,
    }
}

#[test]
fn a_pod_is_matched_once_and_only_where_it_was_foretold() {
    let pod = |name: &str, node: &str, tied: bool, count: usize| PodPreview {
        name: name.to_owned(),
        node: Some(node.to_owned()),
        tied,
        count,
        ..PodPreview::default()
    };
    let was = |pods: &[(&str, &str)]| -> Placed { pods.iter().map(|(name, node)| ((*name).to_owned(), (*node).to_owned())).collect() };
    let foretold = [pod("web/a-*", "n1", true, 2), pod("web/a-*", "n2", false, 1)];
    assert_eq!(matched("starts", &foretold, &was(&[("web/a-x-1", "n2"), ("web/a-x-2", "n1"), ("web/a-x-3", "n1")])), Vec::<String>::new());
    assert_eq!(matched("starts", &foretold, &was(&[("web/a-x-1", "n1"), ("web/a-x-2", "n1"), ("web/a-x-3", "n1")])).len(), 2);
    assert_eq!(matched("starts", &foretold[1..], &was(&[("web/a-b-x-1", "n2")])).len(), 2, "another owner's");
    assert_eq!(matched("starts", &[], &was(&[("web/a", "n1")])), ["web/a starts (n1): not foretold"]);
}
