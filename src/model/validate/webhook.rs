//! Webhooks (`pkg/apis/admissionregistration/validation` of Kubernetes). PURE.

use std::collections::BTreeSet;

use http::Uri;
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, RuleWithOperations, ServiceReference, WebhookClientConfig};

use super::{metadata, names, one_of};
use crate::model::custom::conditions;
use crate::model::rule::{Errors, Path};
use crate::model::webhook::{REVIEW_VERSION, Webhook, authorities};

/// Of one webhook.
const CONDITIONS: usize = 64;

pub(super) fn webhooks(all: &[Webhook], errors: &mut Errors) {
    let path = Path::root("webhooks");
    let mut seen = BTreeSet::new();
    for (index, hook) in all.iter().enumerate() {
        let at = path.index(index);
        webhook(hook, &at, errors);
        if !hook.name.is_empty() && !seen.insert(&hook.name) {
            errors.duplicate(&at.child("name"), &hook.name);
        }
    }
}

fn webhook(hook: &Webhook, path: &Path<'_>, errors: &mut Errors) {
    name(&hook.name, &path.child("name"), errors);
    versions(&hook.admission_review_versions, &path.child("admissionReviewVersions"), errors);
    for (index, it) in hook.rules.iter().flatten().enumerate() {
        rule(it, &path.child("rules").index(index), errors);
    }
    one_of(hook.failure_policy.as_deref(), &["Fail", "Ignore"], &path.child("failurePolicy"), errors);
    one_of(hook.match_policy.as_deref(), &["Equivalent", "Exact"], &path.child("matchPolicy"), errors);
    one_of(hook.reinvocation_policy.as_deref(), &["IfNeeded", "Never"], &path.child("reinvocationPolicy"), errors);
    let effects = path.child("sideEffects");
    match hook.side_effects.as_str() {
        "" => errors.required(&effects, "must specify one of None, NoneOnDryRun"),
        given => one_of(Some(given), &["None", "NoneOnDryRun"], &effects, errors),
    }
    if let Some(seconds) = hook.timeout_seconds.filter(|seconds| !(1..=30).contains(seconds)) {
        errors.invalid(&path.child("timeoutSeconds"), &seconds, "the timeout value must be between 1 and 30 seconds");
    }
    for (field, selector) in [("namespaceSelector", &hook.namespace_selector), ("objectSelector", &hook.object_selector)] {
        if let Some(selector) = selector {
            metadata::selector(selector, &path.child(field), errors);
        }
    }
    client(&hook.client_config, &path.child("clientConfig"), errors);
    match_conditions(hook.match_conditions.as_deref().unwrap_or_default(), &path.child("matchConditions"), errors);
}

/// A domain of three parts at least: whose webhook it is can be seen.
fn name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    errors.all(path, name, names::dns_subdomain(name));
    if name.split('.').count() < 3 {
        errors.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
}

fn versions(versions: &[String], path: &Path<'_>, errors: &mut Errors) {
    if versions.is_empty() {
        return errors.required(path, "must specify one of v1");
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let at = path.index(index);
        errors.all(&at, version, names::dns_1035_label(version));
        if !seen.insert(version) {
            errors.invalid(&at, version, "duplicate version");
        }
    }
    if !versions.iter().any(|version| version == REVIEW_VERSION) {
        errors.invalid(path, versions, "must include at least one of v1");
    }
}

fn rule(rule: &RuleWithOperations, path: &Path<'_>, errors: &mut Errors) {
    let lists = [
        ("operations", &rule.operations, "if '*' is present, must not specify other operations"),
        ("apiGroups", &rule.api_groups, "if '*' is present, must not specify other API groups"),
        ("apiVersions", &rule.api_versions, "if '*' is present, must not specify other API versions"),
    ];
    for (field, list, alone) in lists {
        let (list, at) = (list.as_deref().unwrap_or_default(), path.child(field));
        if list.is_empty() {
            errors.required(&at, "");
        }
        if list.len() > 1 && list.iter().any(|it| it == "*") {
            errors.invalid(&at, list, alone);
        }
        for (index, it) in list.iter().enumerate() {
            match field {
                "operations" => one_of(Some(it), &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"], &at.index(index), errors),
                "apiVersions" if it.is_empty() => errors.required(&at.index(index), ""),
                _ => {}
            }
        }
    }
    resources(rule.resources.as_deref().unwrap_or_default(), &path.child("resources"), errors);
    one_of(rule.scope.as_deref(), &["*", "Cluster", "Namespaced"], &path.child("scope"), errors);
}

/// Nothing is said twice: what a wildcard covers is not named beside it.
fn resources(resources: &[String], path: &Path<'_>, errors: &mut Errors) {
    if resources.is_empty() {
        errors.required(path, "");
    }
    let all: BTreeSet<&str> = resources.iter().map(String::as_str).collect();
    for (index, resource) in resources.iter().enumerate() {
        let at = path.index(index);
        if resource.is_empty() {
            errors.required(&at, "");
            continue;
        }
        match resource.split_once('/') {
            Some((_, sub)) if sub != "*" && all.contains(format!("*/{sub}").as_str()) && !resource.starts_with("*/") => {
                errors.invalid(&at, resource, &format!("if '*/{sub}' is present, must not specify {resource}"));
            }
            Some((of, sub)) if sub != "*" && all.contains(format!("{of}/*").as_str()) => {
                errors.invalid(&at, resource, &format!("if '{of}/*' is present, must not specify {resource}"));
            }
            _ => {}
        }
    }
    if all.contains("*/*") && resources.len() > 1 {
        errors.invalid(path, resources, "if '*/*' is present, must not specify other resources");
    }
    if all.contains("*") && resources.iter().any(|it| it != "*" && !it.contains('/')) {
        errors.invalid(path, resources, "if '*' is present, must not specify other resources without subresources");
    }
}

fn client(config: &WebhookClientConfig, path: &Path<'_>, errors: &mut Errors) {
    match (&config.url, &config.service) {
        (Some(url), None) => self::url(url, &path.child("url"), errors),
        (None, Some(it)) => service(it, &path.child("service"), errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
    let bundle = config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
    // Blank is what generators write for somebody else to fill.
    if !bundle.iter().all(u8::is_ascii_whitespace) && authorities(bundle).is_none() {
        errors.invalid(&path.child("caBundle"), "<caBundle>", "unable to load root certificates: unable to parse bytes as PEM block");
    }
}

fn url(text: &str, path: &Path<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[:port]/path";
    // `Uri` takes what it does not know as a part of the path's end.
    let (text_only, fragment) = text.split_once('#').map_or((text, None), |(before, after)| (before, Some(after)));
    let url: Uri = match text_only.parse() {
        Ok(url) => url,
        Err(error) => return errors.required(path, &format!("url must be a valid URL: {error}{FORM}")),
    };
    if url.scheme_str() != Some("https") {
        errors.invalid(path, url.scheme_str().unwrap_or_default(), &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    if url.host().unwrap_or_default().is_empty() {
        errors.invalid(path, url.host().unwrap_or_default(), &format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = authority.rsplit_once('@') {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if let Some(fragment) = fragment {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if let Some(query) = url.query() {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn service(it: &ServiceReference, path: &Path<'_>, errors: &mut Errors) {
    if it.name.is_empty() {
        errors.required(&path.child("name"), "service name is required");
    }
    if it.namespace.is_empty() {
        errors.required(&path.child("namespace"), "service namespace is required");
    }
    if let Some(port) = it.port.filter(|port| !(1..=65535).contains(port)) {
        errors.invalid(&path.child("port"), &port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let Some(given) = it.path.as_deref() else { return };
    let at = path.child("path");
    match given.strip_prefix('/') {
        None => errors.invalid(&at, given, "must start with a '/'"),
        Some("") => {}
        Some(rest) => {
            for (index, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
                let wrong = names::dns_subdomain(segment);
                match (segment, wrong.first()) {
                    ("", _) => errors.invalid(&at, given, &format!("segment[{index}] may not be empty")),
                    (_, Some(why)) => errors.invalid(&at, given, &format!("segment[{index}]: {why}")),
                    (_, None) => {}
                }
            }
        }
    }
}

fn match_conditions(all: &[MatchCondition], path: &Path<'_>, errors: &mut Errors) {
    if all.len() > CONDITIONS {
        errors.too_many(path, all.len(), CONDITIONS);
    }
    let mut seen = BTreeSet::new();
    for (index, condition) in all.iter().enumerate() {
        let (at, text) = (path.index(index), condition.expression.trim());
        if condition.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.all(&at.child("name"), &condition.name, names::qualified_name(&condition.name));
            if !seen.insert(&condition.name) {
                errors.duplicate(&at.child("name"), &condition.name);
            }
        }
        if text.is_empty() {
            errors.required(&at.child("expression"), "");
        } else if let Err(why) = conditions::check(text) {
            errors.invalid(&at.child("expression"), text, &format!("compilation failed: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::{Kind, Object, defaults, validate};

    fn configuration(kind: Kind, hooks: Value) -> Object {
        let value = json!({"metadata": {"name": "a"}, "webhooks": hooks});
        let mut typed = Object::from_value(kind, value).expect("of its kind").typed().clone();
        defaults::apply(&mut typed);
        Object::from_typed(typed)
    }

    fn hook() -> Value {
        json!({"name": "a.hooks.example.com", "clientConfig": {"service": {"name": "hook", "namespace": "web"}},
            "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]})
    }

    fn broken(hooks: Value) -> Vec<String> {
        let object = configuration(Kind::MutatingWebhookConfiguration, hooks);
        validate::validate(object.typed()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_said_is_kubernetes_default() {
        for kind in [Kind::MutatingWebhookConfiguration, Kind::ValidatingWebhookConfiguration] {
            let object = configuration(kind, json!([hook()]));
            let mut wanted = hook();
            let reinvoked = if kind == Kind::MutatingWebhookConfiguration { json!("Never") } else { Value::Null };
            let defaults = json!({"failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                "timeoutSeconds": 10, "reinvocationPolicy": reinvoked, "clientConfig": {"service": {"port": 443}}});
            json_patch::merge(&mut wanted, &defaults);
            wanted["rules"][0]["scope"] = json!("*");
            assert_eq!(object.value()["webhooks"][0], wanted, "{kind}");
            assert_eq!(validate::validate(object.typed()), [], "{kind}");
        }
        assert_eq!(broken(Value::Null), [""; 0]);
    }

    #[test]
    fn each_rule_is_kubernetes_own() {
        let url = |url: &str| json!({"clientConfig": {"service": null, "url": url}});
        let resources =
            |resources: Value| json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}]});
        let of_rule = |field: &str, value: Value| {
            let mut rule = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
            rule[field] = value;
            json!({"rules": [rule]})
        };
        let condition = |text: &str| json!({"matchConditions": [{"name": "it", "expression": text}]});
        let form = "; desired format: https://host[:port]/path";
        for (change, wanted) in [
            (json!({"name": "short.example"}), "name: Invalid value: \"short.example\": should be a domain with at least three segments separated by dots".to_owned()),
            (json!({"admissionReviewVersions": []}), "admissionReviewVersions: Required value: must specify one of v1".to_owned()),
            (json!({"admissionReviewVersions": ["v1beta1"]}), "admissionReviewVersions: Invalid value: [\"v1beta1\"]: must include at least one of v1".to_owned()),
            (json!({"admissionReviewVersions": ["v1", "v1"]}), "admissionReviewVersions[1]: Invalid value: \"v1\": duplicate version".to_owned()),
            (json!({"sideEffects": null}), "sideEffects: Required value: must specify one of None, NoneOnDryRun".to_owned()),
            (json!({"sideEffects": "Some"}), "sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"".to_owned()),
            (json!({"timeoutSeconds": 31}), "timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds".to_owned()),
            (json!({"failurePolicy": "Maybe"}), "failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\"".to_owned()),
            (json!({"matchPolicy": "Maybe"}), "matchPolicy: Unsupported value: \"Maybe\": supported values: \"Equivalent\", \"Exact\"".to_owned()),
            (json!({"reinvocationPolicy": "Maybe"}), "reinvocationPolicy: Unsupported value: \"Maybe\": supported values: \"IfNeeded\", \"Never\"".to_owned()),
            (json!({"objectSelector": {"matchLabels": {"a": "-"}}}), "objectSelector.matchLabels: Invalid value: \"-\": a valid label must be".to_owned()),
            (json!({"clientConfig": {"service": null}}), "clientConfig: Required value: exactly one of url or service is required".to_owned()),
            (json!({"clientConfig": {"url": "https://a.example"}}), "clientConfig: Required value: exactly one of url or service is required".to_owned()),
            (url("http://a.example/x"), format!("clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme{form}")),
            (url("https://me:pw@a.example/x"), "clientConfig.url: Invalid value: \"me:pw\": user information is not permitted in the URL".to_owned()),
            (url("https://a.example/x?y=z"), "clientConfig.url: Invalid value: \"y=z\": query parameters are not permitted in the URL".to_owned()),
            (url("https://a.example/x#y"), "clientConfig.url: Invalid value: \"y\": fragments are not permitted in the URL".to_owned()),
            (json!({"clientConfig": {"caBundle": "bm90IHBlbQ=="}}), "clientConfig.caBundle: Invalid value: \"<caBundle>\": unable to load root certificates: unable to parse bytes as PEM block".to_owned()),
            (json!({"clientConfig": {"service": {"name": ""}}}), "clientConfig.service.name: Required value: service name is required".to_owned()),
            (json!({"clientConfig": {"service": {"port": 0}}}), "clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive".to_owned()),
            (json!({"clientConfig": {"service": {"path": "x"}}}), "clientConfig.service.path: Invalid value: \"x\": must start with a '/'".to_owned()),
            (json!({"clientConfig": {"service": {"path": "/a//b"}}}), "clientConfig.service.path: Invalid value: \"/a//b\": segment[1] may not be empty".to_owned()),
            (of_rule("operations", json!([])), "rules[0].operations: Required value".to_owned()),
            (of_rule("operations", json!(["READ"])), "rules[0].operations[0]: Unsupported value: \"READ\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"".to_owned()),
            (of_rule("operations", json!(["*", "CREATE"])), "rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations".to_owned()),
            (of_rule("apiGroups", json!(["*", ""])), "rules[0].apiGroups: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other API groups".to_owned()),
            (of_rule("apiVersions", json!([""])), "rules[0].apiVersions[0]: Required value".to_owned()),
            (of_rule("scope", json!("World")), "rules[0].scope: Unsupported value: \"World\": supported values: \"*\", \"Cluster\", \"Namespaced\"".to_owned()),
            (resources(json!([])), "rules[0].resources: Required value".to_owned()),
            (resources(json!(["*/*", "pods"])), "rules[0].resources: Invalid value: [\"*/*\",\"pods\"]: if '*/*' is present, must not specify other resources".to_owned()),
            (resources(json!(["*", "pods"])), "rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources".to_owned()),
            (resources(json!(["pods/*", "pods/status"])), "rules[0].resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status".to_owned()),
            (resources(json!(["*/status", "pods/status"])), "rules[0].resources[1]: Invalid value: \"pods/status\": if '*/status' is present, must not specify pods/status".to_owned()),
            (condition("object.x =="), "matchConditions[0].expression: Invalid value: \"object.x ==\": compilation failed: ".to_owned()),
            (condition(" "), "matchConditions[0].expression: Required value".to_owned()),
        ] {
            let mut changed = hook();
            json_patch::merge(&mut changed, &change);
            let got = broken(json!([changed]));
            assert!(got.len() == 1 && got[0].starts_with(&format!("webhooks[0].{wanted}")), "{change}: {got:?}");
        }
        assert_eq!(broken(json!([hook(), hook()])), ["webhooks[1].name: Duplicate value: \"a.hooks.example.com\""]);
        let twice = json!([{"name": "it", "expression": "true"}, {"name": "it", "expression": "true"}]);
        let mut changed = hook();
        changed["matchConditions"] = twice;
        assert_eq!(broken(json!([changed])), ["webhooks[0].matchConditions[1].name: Duplicate value: \"it\""]);
    }

    #[test]
    fn what_is_fine_is_not_refused() {
        for change in [
            json!({"clientConfig": {"service": null, "url": "https://hook.example.com:9443/a/b"}}),
            // What generators leave to be filled by somebody else.
            json!({"clientConfig": {"caBundle": "Cg=="}}),
            json!({"clientConfig": {"service": {"path": "/"}}}),
            json!({"clientConfig": {"service": {"path": "/mutate-v1-pod/"}}}),
            json!({"admissionReviewVersions": ["v1", "v1beta1"]}),
            json!({"rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["", "apps"], "apiVersions": ["*"], "resources": ["*", "*/status", "pods/exec"]}]}),
            json!({"matchConditions": [{"name": "example.com/no-nodes", "expression": "!('system:nodes' in request.userInfo.groups)"}]}),
        ] {
            let mut changed = hook();
            json_patch::merge(&mut changed, &change);
            assert_eq!(broken(json!([changed])), [""; 0], "{change}");
        }
    }
}
