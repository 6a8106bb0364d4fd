//! What is written into the audit log: a `Policy` of `audit.k8s.io/v1`, of which the first rule that fits decides. PURE.

use serde::Deserialize;

use super::super::identity::Identity;
use super::super::request::{Target, Verb};

/// When a request is written down: once it was answered.
pub const STAGE: &str = "ResponseComplete";

/// How much of a request is written. Bodies are never: they may be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Level {
    None,
    Metadata,
}

/// A policy file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde::de::IgnoredAny,
    /// There is one stage: a policy that leaves it out writes nothing.
    #[serde(default)]
    omit_stages: Vec<String>,
    /// No bodies are written.
    #[serde(default, rename = "omitManagedFields")]
    _omit_managed_fields: serde::de::IgnoredAny,
    rules: Vec<Rule>,
}

/// Empty lists fit everything.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default, rename = "omitManagedFields")]
    _omit_managed_fields: serde::de::IgnoredAny,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// Why a policy file is none.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{0}")]
    Yaml(#[from] serde_yaml::Error),
    #[error("a Policy of audit.k8s.io/v1 is wanted, not a {kind} of {api_version}")]
    OtherKind { api_version: String, kind: String },
}

/// Without a file: whatever changes something or reads a Secret, but for what nodes do on their own.
const DEFAULT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - {level: None, userGroups: ['system:nodes']}
  - {level: Metadata, verbs: [create, update, patch, delete, deletecollection]}
  - {level: Metadata, verbs: [post, put, patch, delete], nonResourceURLs: ['/podbay/*']}
  - {level: Metadata, resources: [{resources: [secrets, pods/exec, pods/attach, pods/portforward, '*/proxy']}]}
";

impl Policy {
    /// # Errors
    /// Text that is no such policy; a level of bodies (`Request`, `RequestResponse`) is none that is known.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Self = serde_yaml::from_str(text)?;
        match (policy.api_version.as_str(), policy.kind.as_str()) {
            ("audit.k8s.io/v1", "Policy") => Ok(policy),
            (api_version, kind) => Err(PolicyError::OtherKind { api_version: api_version.to_owned(), kind: kind.to_owned() }),
        }
    }

    /// The level of a request: that of the first rule that fits, or `None`.
    pub fn level(&self, who: &Identity, verb: &str, target: Option<&Target>, path: &str) -> Level {
        let rule = self.rules.iter().find(|rule| rule.fits(who, verb, target, path));
        let left_out = |stages: &[String]| stages.iter().any(|stage| stage == STAGE);
        match rule {
            Some(rule) if !left_out(&rule.omit_stages) && !left_out(&self.omit_stages) => rule.level,
            _ => Level::None,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::parse(DEFAULT).expect("a test reads the text above")
    }
}

impl Rule {
    fn fits(&self, who: &Identity, verb: &str, target: Option<&Target>, path: &str) -> bool {
        let one_of = |list: &[String], word: &str| list.is_empty() || list.iter().any(|it| it == word);
        one_of(&self.users, &who.user)
            && (self.user_groups.is_empty() || self.user_groups.iter().any(|group| who.groups.contains(group)))
            && one_of(&self.verbs, verb)
            && match target {
                Some(target) => self.fits_resource(target, &one_of),
                None => self.fits_path(path),
            }
    }

    fn fits_resource(&self, target: &Target, one_of: &impl Fn(&[String], &str) -> bool) -> bool {
        self.non_resource_urls.is_empty()
            && one_of(&self.namespaces, &target.namespace)
            && (self.resources.is_empty() || self.resources.iter().any(|it| it.fit(target)))
    }

    fn fits_path(&self, path: &str) -> bool {
        let fits = |url: &String| url == path || url.strip_suffix('*').is_some_and(|start| path.starts_with(start));
        let speaks_of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        !speaks_of_resources && (self.non_resource_urls.is_empty() || self.non_resource_urls.iter().any(fits))
    }
}

impl Resources {
    /// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`.
    fn fit(&self, target: &Target) -> bool {
        let info = target.kind.info();
        let subresource = target.subresource.as_deref();
        let named = |pattern: &String| match pattern.split_once('/') {
            Some((plural, sub)) => (plural == "*" || plural == info.plural) && (sub == "*" || Some(sub) == subresource),
            None => pattern == "*" || (pattern == info.plural && subresource.is_none()),
        };
        self.group == info.group
            && (self.resources.is_empty() || self.resources.iter().any(named))
            && (self.resource_names.is_empty() || target.name.as_ref().is_some_and(|name| self.resource_names.contains(name)))
    }
}

/// The verb as the log has it: that of the API, or of a path beside it the method in small letters.
pub fn verb_of(verb: Option<Verb>, method: &http::Method) -> String {
    verb.map_or_else(|| method.as_str().to_ascii_lowercase(), |verb| verb.word().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(policy: &Policy, identity: &Identity, verb: &str, path: &str) -> Level {
        policy.level(identity, verb, Target::parse(path, &crate::model::custom::Definitions::default()).as_ref(), path)
    }

    #[test]
    fn without_a_file_changes_and_secrets_are_written() {
        let policy = Policy::default();
        let (admin, node) = (Identity::admin(), Identity::node("n"));
        for (identity, verb, path, wanted) in [
            (&admin, "create", "/api/v1/namespaces/a/pods", Level::Metadata),
            (&admin, "list", "/api/v1/pods", Level::None),
            (&admin, "get", "/api/v1/namespaces/a/secrets/b", Level::Metadata),
            (&admin, "get", "/api/v1/namespaces/a/pods/b/exec", Level::Metadata),
            (&admin, "get", "/api/v1/namespaces/a/services/http:b:80/proxy/x", Level::Metadata),
            (&admin, "get", "/api/v1/namespaces/a/pods/b/log", Level::None),
            (&admin, "get", "/version", Level::None),
            (&admin, "post", "/podbay/v1/tokens", Level::Metadata),
            (&admin, "get", "/podbay/v1/tokens", Level::None),
            (&node, "update", "/api/v1/nodes/n/status", Level::None),
        ] {
            assert_eq!(level(&policy, identity, verb, path), wanted, "{} {verb} {path}", identity.user);
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::parse(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nmetadata: {name: a}\nrules:\n\
             - {level: None, users: [robot], namespaces: [test]}\n\
             - {level: Metadata, resources: [{group: apps, resources: ['*/scale', deployments], resourceNames: [web]}]}\n\
             - {level: Metadata, nonResourceURLs: ['/metrics*']}\n",
        )
        .expect("a policy");
        let robot = Identity::new("robot", &[]);
        for (path, wanted) in [
            ("/apis/apps/v1/namespaces/test/deployments/web", Level::None),
            ("/apis/apps/v1/namespaces/live/deployments/web", Level::Metadata),
            ("/apis/apps/v1/namespaces/live/deployments/web/scale", Level::Metadata),
            ("/apis/apps/v1/namespaces/live/deployments/other", Level::None),
            ("/apis/apps/v1/namespaces/live/deployments/web/status", Level::None),
            ("/metrics", Level::Metadata),
            ("/version", Level::None),
        ] {
            assert_eq!(level(&policy, &robot, "get", path), wanted, "{path}");
        }
    }

    #[test]
    fn the_only_stage_may_be_left_out() {
        let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
            - {level: Metadata, users: [robot], omitStages: [ResponseComplete], omitManagedFields: true}\n- {level: Metadata}\n";
        let policy = Policy::parse(policy).expect("a policy");
        assert_eq!(level(&policy, &Identity::new("robot", &[]), "get", "/version"), Level::None);
        assert_eq!(level(&policy, &Identity::new("jane", &[]), "get", "/version"), Level::Metadata);
    }

    #[test]
    fn what_is_no_policy_is_told() {
        let wrong = |text: &str| Policy::parse(text).expect_err("no policy").to_string();
        assert!(wrong("apiVersion: v1\nkind: Pod\nrules: []").contains("not a Pod of v1"));
        assert!(wrong("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Request}]").contains("unknown variant `Request`"));
        assert!(wrong("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, verb: [get]}]").contains("unknown field `verb`"));
    }
}
