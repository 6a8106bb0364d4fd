//! CustomResourceDefinition: names, versions, columns, subresources. PURE.

use std::collections::BTreeSet;

use super::{IMMUTABLE, SPEC, names, one_of};
use crate::model::custom::{CustomResourceDefinition, DefinitionNames, DefinitionVersion, JsonPath, Subresources, structural};
use crate::model::rule::{Errors, Path};

/// Fields of one version that lists may select by.
const SELECTABLE: usize = 8;
/// Versions of one kind.
const VERSIONS: usize = 100;
/// Who may use Kubernetes' own groups.
const APPROVED: &str = "api-approved.kubernetes.io";

pub(super) fn definition(it: &CustomResourceDefinition, errors: &mut Errors) {
    let spec = &it.spec;
    let name = it.metadata.name.as_deref().unwrap_or_default();
    if name != format!("{}.{}", spec.names.plural, spec.group) {
        errors.invalid(&Path::root("metadata.name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    group(it, errors);
    let scope = SPEC.child("scope");
    match spec.scope.as_str() {
        "" => errors.required(&scope, ""),
        scope_name => one_of(Some(scope_name), &["Cluster", "Namespaced"], &scope, errors),
    }
    kind_names(&spec.names, &SPEC.child("names"), errors);
    versions(&spec.versions, errors);
    let stored = Path::root("status.storedVersions");
    for (index, version) in it.status.iter().flat_map(|status| &status.stored_versions).enumerate() {
        if !spec.versions.iter().any(|it| it.name == *version) {
            errors.invalid(&stored.index(index), version, "must appear in spec.versions");
        }
    }
}

fn group(it: &CustomResourceDefinition, errors: &mut Errors) {
    let (group, at) = (it.spec.group.as_str(), SPEC.child("group"));
    if group.is_empty() {
        return errors.required(&at, "");
    }
    errors.all(&at, group, names::dns_subdomain(group));
    if !group.contains('.') {
        errors.invalid(&at, group, "should be a domain with at least one dot");
    }
    let protected = |suffix: &str| group == suffix || group.ends_with(&format!(".{suffix}"));
    let approved = it.metadata.annotations.as_ref().is_some_and(|all| all.get(APPROVED).is_some_and(|it| !it.is_empty()));
    if (protected("k8s.io") || protected("kubernetes.io")) && !approved {
        let detail = format!("protected groups must have approval annotation \"{APPROVED}\"");
        errors.required(&Path::root("metadata.annotations").key(APPROVED), &detail);
    }
}

fn kind_names(all: &DefinitionNames, path: &Path<'_>, errors: &mut Errors) {
    for (field, name) in [("plural", &all.plural), ("singular", &all.singular), ("kind", &all.kind), ("listKind", &all.list_kind)] {
        let at = path.child(field);
        if name.is_empty() {
            errors.required(&at, "");
        } else {
            errors.all(&at, name, names::dns_1035_label(&name.to_lowercase()));
        }
    }
    for (field, words) in [("shortNames", &all.short_names), ("categories", &all.categories)] {
        let at = path.child(field);
        words.iter().enumerate().for_each(|(index, word)| errors.all(&at.index(index), word, names::dns_1035_label(word)));
    }
    if !all.kind.is_empty() && all.kind == all.list_kind {
        errors.invalid(&path.child("listKind"), &all.list_kind, "kind and listKind may not be the same");
    }
}

fn versions(all: &[DefinitionVersion], errors: &mut Errors) {
    let path = SPEC.child("versions");
    if all.len() > VERSIONS {
        return errors.too_many(&path, all.len(), VERSIONS);
    }
    let (mut seen, mut budget) = (BTreeSet::new(), structural::BUDGET);
    for (index, version) in all.iter().enumerate() {
        let at = path.index(index);
        errors.all(&at.child("name"), &version.name, names::dns_1035_label(&version.name));
        if !seen.insert(&version.name) {
            errors.invalid(&path, &version.name, "must contain unique version names");
        }
        let schema = at.child("schema.openAPIV3Schema");
        match version.schema.as_ref().and_then(|schema| schema.open_api.as_ref()) {
            Some(written) => structural::check(written, &mut budget, &schema, errors),
            None => errors.required(&schema, "schemas are required"),
        }
        if let Some(subresources) = &version.subresources {
            self::subresources(subresources, &at.child("subresources"), errors);
        }
        if let Some(words) = version.deprecation_warning.as_ref() {
            deprecation(version, words, &at.child("deprecationWarning"), errors);
        }
        columns(version, &at, errors);
    }
    if all.is_empty() {
        errors.required(&path, "must have at least one version");
    } else if all.iter().filter(|version| version.storage).count() != 1 {
        let names: Vec<&str> = all.iter().map(|version| version.name.as_str()).collect();
        errors.invalid(&path, &names, "must have exactly one version marked as storage version");
    }
}

/// It is said in the head of an answer.
fn deprecation(version: &DefinitionVersion, words: &str, at: &Path<'_>, errors: &mut Errors) {
    if version.deprecated != Some(true) {
        errors.invalid(at, words, "can only be set for deprecated versions");
    }
    if words.is_empty() || words.len() > 256 || words.chars().any(char::is_control) {
        errors.invalid(at, words, "must be 1 to 256 bytes of printable text");
    }
}

fn subresources(it: &Subresources, path: &Path<'_>, errors: &mut Errors) {
    let Some(scale) = &it.scale else { return };
    let at = path.child("scale");
    let below = |text: &str, parts: &[&str]| {
        let fields = JsonPath::parse(text);
        fields.as_ref().and_then(JsonPath::fields).is_some_and(|fields| fields.len() > 1 && parts.contains(&fields[0]))
    };
    for (field, text, parts) in
        [("specReplicasPath", &scale.spec_replicas_path, &["spec"][..]), ("statusReplicasPath", &scale.status_replicas_path, &["status"])]
    {
        if text.is_empty() {
            errors.required(&at.child(field), "");
        } else if !below(text, parts) {
            errors.invalid(&at.child(field), text, &format!("should be a json path under .{}", parts[0]));
        }
    }
    let selector = scale.label_selector_path.as_ref().filter(|text| !text.is_empty());
    if let Some(text) = selector.filter(|text| !below(text, &["spec", "status"])) {
        errors.invalid(&at.child("labelSelectorPath"), text, "should be a json path under either .spec or .status");
    }
}

fn columns(version: &DefinitionVersion, path: &Path<'_>, errors: &mut Errors) {
    let all = path.child("additionalPrinterColumns");
    for (index, column) in version.additional_printer_columns.iter().enumerate() {
        let at = all.index(index);
        for (field, text) in [("name", &column.name), ("type", &column.type_), ("jsonPath", &column.json_path)] {
            if text.is_empty() {
                errors.required(&at.child(field), "");
            }
        }
        one_of(Some(&column.type_), &["boolean", "date", "integer", "number", "string"], &at.child("type"), errors);
        // A path that leads nowhere leaves its column empty.
        if !column.json_path.is_empty() && !column.json_path.starts_with('.') {
            errors.invalid(&at.child("jsonPath"), &column.json_path, "must be a simple json path starting with .");
        }
    }
    let all = path.child("selectableFields");
    if version.selectable_fields.len() > SELECTABLE {
        errors.too_many(&all, version.selectable_fields.len(), SELECTABLE);
    }
    for (index, field) in version.selectable_fields.iter().enumerate() {
        let path = JsonPath::parse(&field.json_path);
        if path.as_ref().and_then(JsonPath::fields).is_none_or(|fields| fields.first() == Some(&"metadata")) {
            errors.invalid(&all.index(index).child("jsonPath"), &field.json_path, "must be a simple path of fields, outside of metadata");
        }
    }
}

/// What objects of the kind rely on.
pub(super) fn update(new: &CustomResourceDefinition, old: &CustomResourceDefinition, errors: &mut Errors) {
    let names = SPEC.child("names");
    let (now, then) = (&new.spec, &old.spec);
    let mut fields = vec![(SPEC.child("group"), &now.group, &then.group), (names.child("plural"), &now.names.plural, &then.names.plural)];
    if old.is_established() {
        fields.push((SPEC.child("scope"), &now.scope, &then.scope));
        fields.push((names.child("kind"), &now.names.kind, &then.names.kind));
    }
    for (at, now, then) in fields {
        if now != then {
            errors.invalid(&at, now, IMMUTABLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::{Kind, Object, Typed, defaults, validate};

    fn typed(value: Value) -> Typed {
        let mut typed = Object::from_value(Kind::CustomResourceDefinition, value).unwrap().typed().clone();
        defaults::apply(&mut typed);
        typed
    }

    fn good() -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crontabs.stable.example.com"},
            "spec": {"group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    fn broken(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut value = good();
        change(&mut value);
        validate::validate(&typed(value)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_rules_of_a_definition() {
        assert_eq!(broken(|_| {}), [""; 0]);
        type Change = fn(&mut Value);
        let table: &[(Change, &str)] = &[
            (|it| it["metadata"]["name"] = json!("x"), "metadata.name: Invalid value: \"x\": must be spec.names.plural"),
            (|it| it["spec"]["scope"] = json!(""), "spec.scope: Required value"),
            (
                |it| it["spec"]["scope"] = json!("All"),
                "spec.scope: Unsupported value: \"All\": supported values: \"Cluster\", \"Namespaced\"",
            ),
            (|it| it["spec"]["names"]["listKind"] = json!("CronTab"), "spec.names.listKind: Invalid value: \"CronTab\": kind and listKind"),
            (|it| it["spec"]["names"]["shortNames"] = json!(["C T"]), "spec.names.shortNames[0]: Invalid value"),
            (|it| it["spec"]["versions"] = json!([]), "spec.versions: Required value"),
            (
                |it| it["spec"]["versions"][0]["storage"] = json!(false),
                "spec.versions: Invalid value: [\"v1\"]: must have exactly one version",
            ),
            (
                |it| it["spec"]["versions"][0]["schema"] = json!(null),
                "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
            ),
            (
                |it| it["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["type"] = json!("array"),
                "spec.versions[0].schema.openAPIV3Schema.type: Invalid value: \"array\": must be object at the root",
            ),
            (
                |it| {
                    it["spec"]["versions"][0]["subresources"] =
                        json!({"scale": {"specReplicasPath": ".status.a", "statusReplicasPath": ".status.a"}})
                },
                "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.a\": should be a json path under .spec",
            ),
            (
                |it| it["spec"]["versions"][0]["additionalPrinterColumns"] = json!([{"name": "a", "type": "text", "jsonPath": ".a"}]),
                "spec.versions[0].additionalPrinterColumns[0].type: Unsupported value: \"text\"",
            ),
            (
                |it| it["spec"]["versions"][0]["additionalPrinterColumns"] = json!([{"name": "a", "type": "date", "jsonPath": "a"}]),
                "spec.versions[0].additionalPrinterColumns[0].jsonPath: Invalid value: \"a\": must be a simple json path starting with .",
            ),
            (
                |it| it["spec"]["versions"][0]["deprecationWarning"] = json!("a\nb"),
                "spec.versions[0].deprecationWarning: Invalid value: \"a\\nb\": can only be set for deprecated versions",
            ),
            (
                |it| it["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".metadata.name"}]),
                "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".metadata.name\": must be a simple path",
            ),
            (|it| it["status"] = json!({"storedVersions": ["v0"]}), "status.storedVersions[0]: Invalid value: \"v0\": must appear"),
        ];
        for (change, words) in table {
            let found = broken(change);
            assert!(found.iter().any(|it| it.starts_with(words)), "{words}: {found:?}");
        }
        let protected = broken(|it| {
            it["metadata"]["name"] = json!("crontabs.x.k8s.io");
            it["spec"]["group"] = json!("x.k8s.io");
        });
        assert!(protected[0].contains("protected groups must have approval annotation"), "{protected:?}");
    }

    #[test]
    fn scope_and_kind_stay_once_they_are_served() {
        let mut new = good();
        new["spec"]["scope"] = json!("Cluster");
        new["spec"]["names"]["kind"] = json!("Other");
        let errors = validate::validate_update(&typed(new.clone()), &typed(good()));
        assert_eq!(errors, []);
        let mut established = good();
        established["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        let paths: Vec<String> = validate::validate_update(&typed(new), &typed(established)).into_iter().map(|it| it.path).collect();
        assert_eq!(paths, ["spec.scope", "spec.names.kind"]);
    }
}
