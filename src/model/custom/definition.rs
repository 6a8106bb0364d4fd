//! What a CustomResourceDefinition comes to: its versions, ready to be asked, and all of them
//! together. PURE.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::path::JsonPath;
use super::resource::{CustomResourceDefinition, DefinitionVersion, PrinterColumn, ScalePaths};
use super::{CustomKind, Names, Schema, prune};
use crate::model::ownership::Shapes;
use crate::model::schema::{self, Finding};
use crate::model::{Kind, KindInfo};

/// One kind that is served.
#[derive(Debug)]
pub struct Definition {
    /// The name of the object that defines it: `widgets.example.com`.
    pub name: String,
    pub list_kind: String,
    /// The newest first, as clients prefer them.
    pub versions: Vec<Version>,
    storage: usize,
    /// It is being deleted: nothing new of the kind is taken.
    pub is_deleting: bool,
    /// Of what is wanted: it changes with it.
    pub hash: String,
}

/// One version of a kind.
#[derive(Debug)]
pub struct Version {
    /// The kind as this version names it.
    pub kind: Kind,
    pub served: bool,
    pub schema: Schema,
    /// Whether anything in it has a rule of `x-kubernetes-validations`.
    pub has_rules: bool,
    /// The schema as it was written, for OpenAPI.
    pub written: Value,
    /// A fault of a column's path leaves the column empty.
    pub columns: Vec<(PrinterColumn, Option<JsonPath>)>,
    pub scale: Option<Scale>,
    /// Fields a list may select by, as they are written: `.spec.color`.
    pub selectable: Vec<(String, JsonPath)>,
    /// What is told to whoever uses it.
    pub warning: Option<String>,
}

/// Where an object keeps its size.
#[derive(Debug)]
pub struct Scale {
    pub wanted: Vec<String>,
    pub current: Vec<String>,
    pub selector: Option<Vec<String>>,
}

impl Scale {
    /// Reads the paths; `None` where one leads through more than fields.
    pub fn read(paths: &ScalePaths) -> Option<Self> {
        let fields =
            |text: &str| -> Option<Vec<String>> { Some(JsonPath::parse(text)?.fields()?.into_iter().map(str::to_owned).collect()) };
        let selector = match &paths.label_selector_path {
            Some(path) if !path.is_empty() => Some(fields(path)?),
            _ => None,
        };
        Some(Self { wanted: fields(&paths.spec_replicas_path)?, current: fields(&paths.status_replicas_path)?, selector })
    }
}

impl Definition {
    /// What an object defines, whether it is established yet or not. `None` where it defines nothing:
    /// no version stores, or there are too many kinds.
    pub fn of(object: &CustomResourceDefinition) -> Option<Self> {
        let mut versions = object.spec.versions.iter().map(|version| Version::of(object, version)).collect::<Option<Vec<_>>>()?;
        versions.sort_by(|a, b| age(b.kind.info().version).cmp(&age(a.kind.info().version)));
        let storage = &object.storage()?.name;
        let meta = &object.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(Self {
            name: text(&meta.name),
            list_kind: object.names().list_kind.clone(),
            storage: versions.iter().position(|version| version.kind.info().version == storage)?,
            is_deleting: meta.deletion_timestamp.is_some(),
            hash: hex::encode(&Sha256::digest(serde_json::to_vec(&object.spec).ok()?)[..8]),
            versions,
        })
    }

    /// The version objects are kept in.
    pub fn storage(&self) -> &Version {
        &self.versions[self.storage]
    }

    /// The version of this name, served or stored.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.kind.info().version == name)
    }

    fn served(&self) -> impl Iterator<Item = &Version> {
        self.versions.iter().filter(|version| version.served)
    }
}

impl Version {
    fn of(object: &CustomResourceDefinition, version: &DefinitionVersion) -> Option<Self> {
        let names = object.names();
        let subresources = version.subresources.clone().unwrap_or_default();
        let kind = CustomKind::intern(&Names {
            group: object.spec.group.clone(),
            version: version.name.clone(),
            kind: names.kind.clone(),
            plural: names.plural.clone(),
            singular: names.singular.clone(),
            short: names.short_names.clone(),
            categories: names.categories.clone(),
            namespaced: object.is_namespaced(),
            has_status: subresources.status.is_some(),
        })?;
        let written = version.schema.as_ref().and_then(|schema| schema.open_api.clone()).unwrap_or(Value::Null);
        let mut schema = Schema::read(&written);
        schema.preserve_unknown |= object.spec.preserve_unknown_fields == Some(true);
        let warning = version
            .deprecation_warning
            .clone()
            .unwrap_or_else(|| format!("{}/{} {} is deprecated", object.spec.group, version.name, names.kind));
        Some(Self {
            kind: Kind::Custom(kind),
            served: version.served,
            has_rules: schema.has_rules(),
            schema,
            written,
            columns: version.additional_printer_columns.iter().map(|it| (it.clone(), JsonPath::parse(&it.json_path))).collect(),
            scale: subresources.scale.as_ref().and_then(Scale::read),
            selectable: version
                .selectable_fields
                .iter()
                .filter_map(|it| Some((it.json_path.clone(), JsonPath::parse(&it.json_path)?)))
                .collect(),
            warning: (version.deprecated == Some(true)).then_some(warning),
        })
    }
}

/// Kubernetes' order of versions: `v10`, `v2`, `v2beta1`, `v1alpha2`, then others by name.
pub fn age(version: &str) -> (u8, u64, u64, std::cmp::Reverse<&str>) {
    let other = (0, 0, 0, std::cmp::Reverse(version));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return other };
    let (stage, minor) = match &rest[digits..] {
        "" => (3, ""),
        stage => match (stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (_, Some(minor)) => (1, minor),
            _ => return other,
        },
    };
    match (minor.parse(), minor.is_empty()) {
        (Ok(minor), _) => (stage, major, minor, std::cmp::Reverse("")),
        (_, true) => (stage, major, 0, std::cmp::Reverse("")),
        _ => other,
    }
}

/// All kinds that are served: the table's, and those that objects define.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// By group and plural.
    all: BTreeMap<(String, String), Arc<Definition>>,
}

impl Definitions {
    /// Takes a definition in place of the one of the same name.
    pub fn put(&mut self, definition: Definition) {
        let info = definition.storage().kind.info();
        self.all.insert((info.group.to_owned(), info.plural.to_owned()), Arc::new(definition));
    }

    /// Takes the definition of this name out: `widgets.example.com`.
    pub fn remove(&mut self, name: &str) {
        if let Some((plural, group)) = name.split_once('.') {
            self.all.remove(&(group.to_owned(), plural.to_owned()));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.all.values()
    }

    /// What defines a custom kind; none for the others.
    pub fn get(&self, kind: Kind) -> Option<&Arc<Definition>> {
        let Kind::Custom(kind) = kind else { return None };
        let found = self.all.get(&(kind.names().group.clone(), kind.names().plural.clone()))?;
        // One that was deleted and made anew may be another kind.
        (found.storage().kind == Kind::Custom(kind)).then_some(found)
    }

    /// What defines the kind of this group and plural.
    pub fn get_named(&self, group: &str, plural: &str) -> Option<&Arc<Definition>> {
        self.all.get(&(group.to_owned(), plural.to_owned()))
    }

    /// The shapes of a kind's values, for field ownership.
    pub fn shapes(&self, kind: Kind) -> Shapes<'_> {
        self.version(kind).map_or_else(|| Shapes::from(kind), |version| Shapes::of_schema(kind, &version.schema))
    }

    /// Everything wrong with the shape of a value: of a custom kind, its metadata and the fields that its
    /// schema does not have; what its fields may hold is checked when it is admitted.
    pub fn check(&self, kind: Kind, value: &Value) -> Vec<Finding> {
        let Some(version) = self.version(kind) else { return schema::check(kind, value) };
        // Metadata is the same everywhere: a kind of little more has it.
        let metadata = serde_json::json!({"metadata": value["metadata"]});
        let mut findings = schema::check(Kind::ServiceAccount, &metadata);
        findings.extend(prune::prune(&version.schema, &mut value.clone()));
        findings
    }

    /// Which kinds there are, and as what: what was read by other definitions is read anew.
    pub fn hash(&self) -> String {
        self.all.values().map(|definition| definition.hash.as_str()).collect()
    }

    /// The version a kind names.
    pub fn version(&self, kind: Kind) -> Option<&Version> {
        self.get(kind)?.version(kind.info().version)
    }

    /// Every kind and version that is served, the table's first.
    pub fn rows(&self) -> impl Iterator<Item = &'static KindInfo> {
        let custom = self.all.values().flat_map(|definition| definition.served()).map(|version| version.kind.info());
        Kind::all().iter().chain(Kind::editions()).chain(custom)
    }

    /// The versions of a kind that are served.
    pub fn versions(&self, kind: Kind) -> Vec<Kind> {
        match self.get(kind) {
            Some(definition) => definition.served().map(|version| version.kind).collect(),
            None => kind.versions().collect(),
        }
    }

    /// Every kind there may be objects of, once.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::all().iter().map(|info| info.kind).chain(self.all.values().map(|definition| definition.storage().kind))
    }

    /// The kind of a manifest's `apiVersion` and `kind`, if it is served.
    pub fn kind_of(&self, api_version: &str, kind: &str) -> Option<Kind> {
        let custom = || {
            let (group, version) = api_version.split_once('/')?;
            let is = |info: &KindInfo| info.group == group && info.version == version && info.name == kind;
            self.all.values().flat_map(|definition| definition.served()).find(|of| is(of.kind.info())).map(|of| of.kind)
        };
        Kind::of(api_version, kind).or_else(custom)
    }

    /// The kind of this name in whatever version, as it is served now.
    pub fn of_any_version(&self, api_version: &str, kind: &str) -> Option<Kind> {
        let custom = || {
            let (group, _) = api_version.split_once('/')?;
            let is = |kind_info: &KindInfo| kind_info.group == group && kind_info.name == kind;
            self.all.values().map(|definition| definition.storage().kind).find(|of| is(of.info()))
        };
        Kind::of(api_version, kind).or_else(custom)
    }

    /// The kind of a REST path's group, version and plural.
    pub fn kind_of_resource(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let custom = || {
            let found = self.all.get(&(group.to_owned(), plural.to_owned()))?.version(version)?;
            found.served.then_some(found.kind)
        };
        Kind::of_resource(group, version, plural).or_else(custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> CustomResourceDefinition {
        let version = |name: &str, storage: bool, served: bool| {
            json!({"name": name, "served": served, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object"}}})
        };
        let mut object: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": "crontabs.stable.example.com"},
            "spec": {"group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
                "versions": [version("v1beta1", true, true), version("v1", false, true), version("v1alpha1", false, false)]},
        }))
        .unwrap();
        object.spec.set_defaults();
        object
    }

    #[test]
    fn versions_are_in_kubernetes_order() {
        let mut versions = ["foo10", "v1", "v11alpha2", "v10", "v3beta1", "foo1", "v10beta3", "v2", "v12alpha1", "v11beta2"];
        versions.sort_by(|a, b| age(b).cmp(&age(a)));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]);
    }

    #[test]
    fn a_defined_kind_is_found_by_each_of_its_names() {
        let mut all = Definitions::default();
        assert_eq!(all.kind_of("stable.example.com/v1", "CronTab"), None);
        all.put(Definition::of(&definition()).unwrap());
        let kind = all.kind_of("stable.example.com/v1", "CronTab").unwrap();
        assert_eq!(kind.info().version, "v1");
        assert_eq!(all.kind_of_resource("stable.example.com", "v1beta1", "crontabs"), Some(kind));
        assert_eq!(all.kind_of_resource("stable.example.com", "v1alpha1", "crontabs"), None);
        assert_eq!(all.kind_of("apps/v1", "Deployment"), Some(Kind::Deployment));
        assert_eq!(all.of_any_version("stable.example.com/v7", "CronTab"), Some(kind));
        assert_eq!(all.get(kind).unwrap().storage().kind.info().version, "v1beta1");
        assert_eq!(all.version(kind).unwrap().kind.info().singular, "crontab");
        assert_eq!(all.rows().count(), Kind::all().len() + Kind::editions().len() + 2);
        assert_eq!(all.kinds().count(), Kind::all().len() + 1);
        all.remove("crontabs.stable.example.com");
        assert!(all.is_empty());
    }
}
