//! The language of RBAC: what a rule allows, what it covers of another, what a role gathers from others. PURE.
//!
//! Rules only ever add: there is none that takes something away. Semantics: `rbac.authorization.k8s.io/v1 PolicyRule`.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, PolicyRule};

use super::selector::Selector;
use super::{Key, Object};

/// Everything of a list.
pub const ALL: &str = "*";
/// Single rights looked at before a role is called too large to judge.
const RIGHTS: usize = 100_000;
/// Rights that a refusal names.
const NAMED: usize = 20;

/// What somebody wants to do, in the words of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act<'a> {
    pub verb: &'a str,
    pub on: On<'a>,
}

/// What it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On<'a> {
    /// Empty: no subresource, all namespaces or none, no name.
    Resource {
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    Path(&'a str),
}

fn list(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or_default()
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|it| it == ALL || it == word)
}

/// Whether a rule allows this.
pub fn allows(rule: &PolicyRule, act: &Act<'_>) -> bool {
    if !has(&rule.verbs, act.verb) {
        return false;
    }
    match act.on {
        On::Path(path) => list(&rule.non_resource_urls).iter().any(|url| covers_url(url, path)),
        On::Resource { group, resource, subresource, name, .. } => {
            let names = list(&rule.resource_names);
            let named = names.is_empty() || names.iter().any(|it| it == name);
            named && has(list(&rule.api_groups), group) && list(&rule.resources).iter().any(|it| covers_resource(it, resource, subresource))
        }
    }
}

/// `*`, `pods`, `pods/log` or `*/scale`.
fn covers_resource(held: &str, resource: &str, subresource: &str) -> bool {
    match held.split_once('/') {
        _ if held == ALL => true,
        None => subresource.is_empty() && held == resource,
        Some((before, after)) => !subresource.is_empty() && after == subresource && (before == ALL || before == resource),
    }
}

fn covers_url(held: &str, url: &str) -> bool {
    held == url || held.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix))
}

/// One right of a rule: a rule is the product of its lists.
#[derive(Clone, Copy)]
enum Right<'a> {
    Resource { verb: &'a str, group: &'a str, resource: &'a str, name: Option<&'a str> },
    Url { verb: &'a str, url: &'a str },
}

fn rights(rule: &PolicyRule) -> impl Iterator<Item = Right<'_>> {
    let urls = rule.verbs.iter().flat_map(move |verb| list(&rule.non_resource_urls).iter().map(move |url| Right::Url { verb, url }));
    let resources = rule.verbs.iter().flat_map(move |verb| {
        list(&rule.api_groups).iter().flat_map(move |group| {
            list(&rule.resources).iter().flat_map(move |resource| {
                let names = list(&rule.resource_names);
                let any = names.is_empty().then_some(Right::Resource { verb, group, resource, name: None });
                any.into_iter().chain(names.iter().map(move |name| Right::Resource { verb, group, resource, name: Some(name) }))
            })
        })
    });
    urls.chain(resources)
}

fn covers(held: &PolicyRule, right: Right<'_>) -> bool {
    match right {
        Right::Url { verb, url } => has(&held.verbs, verb) && list(&held.non_resource_urls).iter().any(|it| covers_url(it, url)),
        Right::Resource { verb, group, resource, name } => {
            let names = list(&held.resource_names);
            let named = names.is_empty() || name.is_some_and(|name| names.iter().any(|it| it == name));
            let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            named
                && has(&held.verbs, verb)
                && has(list(&held.api_groups), group)
                && list(&held.resources).iter().any(|it| it == resource || covers_resource(it, plural, subresource))
        }
    }
}

/// What of `wanted` nobody who holds `held` has, in words; empty when all of it is held.
///
/// # Errors
/// More single rights than can be looked at.
pub fn missing(held: &[&PolicyRule], wanted: &[PolicyRule]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for (count, right) in wanted.iter().flat_map(rights).enumerate() {
        if count >= RIGHTS {
            return Err(format!("its rules are more than {RIGHTS} single rights"));
        }
        if found.len() < NAMED && !held.iter().any(|rule| covers(rule, right)) {
            found.push(words(right));
        }
    }
    Ok(found)
}

/// As Kubernetes prints a rule.
fn words(right: Right<'_>) -> String {
    match right {
        Right::Url { verb, url } => format!("{{NonResourceURLs:[{url:?}], Verbs:[{verb:?}]}}"),
        Right::Resource { verb, group, resource, name } => {
            let names = name.map(|name| format!(", ResourceNames:[{name:?}]")).unwrap_or_default();
            format!("{{APIGroups:[{group:?}], Resources:[{resource:?}]{names}, Verbs:[{verb:?}]}}")
        }
    }
}

/// The rules of every role that one of the selectors takes, in the order of their names; not of the role itself. Of one that
/// gathers others, theirs: what it says now follows from them, and roles that gather each other would never come to rest.
pub fn gather<'a>(rule: &'a AggregationRule, own: &'a Key, roles: impl Iterator<Item = &'a Object>) -> Vec<PolicyRule> {
    let roles: Vec<&Object> = roles.collect();
    let mut gathered: Vec<PolicyRule> = Vec::new();
    let mut seen = BTreeSet::from([own]);
    let mut open = vec![rule];
    while let Some(rule) = open.pop() {
        // A selector that says nothing that can be read takes nothing.
        let selectors: Vec<Selector> = rule.cluster_role_selectors.iter().flatten().filter_map(|it| Selector::of(it).ok()).collect();
        for object in roles.iter().filter(|object| selectors.iter().any(|it| it.matches(object.labels()))) {
            let Some(role) = object.get::<ClusterRole>().filter(|_| seen.insert(object.key())) else { continue };
            match &role.aggregation_rule {
                Some(rule) => open.push(rule),
                None => role.rules.iter().flatten().for_each(|rule| {
                    if !gathered.contains(rule) {
                        gathered.push(rule.clone());
                    }
                }),
            }
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `VERBS GROUPS RESOURCES [NAMES]`, each separated by commas; `core` is the empty group.
    fn rule(text: &str) -> PolicyRule {
        let words: Vec<Vec<String>> = text.split(' ').map(|part| part.split(',').map(|it| it.replace("core", "")).collect()).collect();
        let at = |index: usize| words.get(index).cloned();
        match text.split_once(" url ") {
            Some((verbs, urls)) => PolicyRule {
                verbs: verbs.split(',').map(str::to_owned).collect(),
                non_resource_urls: Some(urls.split(',').map(str::to_owned).collect()),
                ..PolicyRule::default()
            },
            None => {
                PolicyRule { verbs: words[0].clone(), api_groups: at(1), resources: at(2), resource_names: at(3), ..PolicyRule::default() }
            }
        }
    }

    #[test]
    fn rules_allow_what_they_name() {
        for (text, verb, group, resource, name, expected) in [
            ("get core pods", "get", "", "pods", "a", true),
            ("get core pods", "list", "", "pods", "", false),
            ("get core pods", "get", "apps", "pods", "", false),
            ("get core pods", "get", "", "pods/log", "a", false),
            ("get core pods/log", "get", "", "pods/log", "a", true),
            ("get core pods/log", "get", "", "pods", "a", false),
            ("* * *", "watch", "apps", "deployments/status", "", true),
            ("update apps */scale", "update", "apps", "deployments/scale", "a", true),
            ("update apps */scale", "update", "apps", "deployments", "a", false),
            ("get core secrets a,b", "get", "", "secrets", "b", true),
            ("get core secrets a,b", "get", "", "secrets", "c", false),
            ("list core secrets a,b", "list", "", "secrets", "", false),
            ("get core pods", "*", "", "pods", "", false),
        ] {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let act = Act { verb, on: On::Resource { group, resource, subresource, namespace: "web", name } };
            assert_eq!(allows(&rule(text), &act), expected, "{text}: {verb} {resource} {name}");
        }
        for (text, path, expected) in [
            ("get url /metrics", "/metrics", true),
            ("get url /metrics", "/metrics/a", false),
            ("get url /api,/api/*", "/api/v1", true),
            ("get url /api/*", "/api", false),
            ("get url *", "/anything", true),
            ("post url *", "/anything", false),
        ] {
            assert_eq!(allows(&rule(text), &Act { verb: "get", on: On::Path(path) }), expected, "{text}: {path}");
        }
    }

    #[test]
    fn what_is_not_held_is_named() {
        let missing = |held: &[&str], wanted: &str| {
            let held: Vec<PolicyRule> = held.iter().map(|text| rule(text)).collect();
            missing(&held.iter().collect::<Vec<_>>(), &[rule(wanted)]).unwrap()
        };
        assert!(missing(&["get,list core pods", "get apps *"], "get core,apps pods").is_empty());
        assert!(missing(&["* * *"], "* * *").is_empty());
        assert!(missing(&["get core */log"], "get core pods/log").is_empty());
        assert!(missing(&["get core secrets"], "get core secrets a").is_empty());
        assert!(missing(&["get url /api/*"], "get url /api/v1/*").is_empty());
        assert_eq!(missing(&["get core secrets a"], "get core secrets"), [r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#]);
        assert_eq!(missing(&["get core pods"], "get,list core pods"), [r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#]);
        assert_eq!(missing(&["get core pods,services"], "get core *").len(), 1);
        assert_eq!(missing(&["get core pods/log"], "get core */log").len(), 1);
        assert_eq!(missing(&["get url /api"], "get url *"), [r#"{NonResourceURLs:["*"], Verbs:["get"]}"#]);
    }

    #[test]
    fn a_role_of_countless_rights_is_not_counted() {
        let many: Vec<String> = (0..1000).map(|index| index.to_string()).collect();
        let wide = PolicyRule { verbs: many.clone(), api_groups: Some(many.clone()), resources: Some(many), ..PolicyRule::default() };
        assert!(super::missing(&[], &[wide]).is_err());
    }
}
