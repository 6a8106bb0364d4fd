//! `apiextensions.k8s.io/v1 CustomResourceDefinition`, typed as far as its own rules need. PURE.
//!
//! Schemas stay the JSON they are: `structural` says what is wrong with them, `schema` reads them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What makes a custom kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomResourceDefinition {
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default = "kind")]
    pub kind: String,
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: DefinitionSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<DefinitionStatus>,
}

fn api_version() -> String {
    "apiextensions.k8s.io/v1".to_owned()
}
fn kind() -> String {
    "CustomResourceDefinition".to_owned()
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefinitionSpec {
    pub group: String,
    pub names: DefinitionNames,
    /// `Namespaced` or `Cluster`.
    pub scope: String,
    pub versions: Vec<DefinitionVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversion: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_unknown_fields: Option<bool>,
}

/// The names of the kind, wanted or accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefinitionNames {
    pub plural: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub singular: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub short_names: Vec<String>,
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub list_kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

/// One version of the kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefinitionVersion {
    pub name: String,
    pub served: bool,
    /// Objects are kept in this version; exactly one is.
    pub storage: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecation_warning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<VersionSchema>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subresources: Option<Subresources>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_printer_columns: Vec<PrinterColumn>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selectable_fields: Vec<SelectableField>,
}

/// A version's schema, a `JSONSchemaProps`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionSchema {
    #[serde(rename = "openAPIV3Schema", default, skip_serializing_if = "Option::is_none")]
    pub open_api: Option<Value>,
}

/// What of an object has an endpoint of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subresources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScalePaths>,
}

/// Where an object keeps what `autoscaling/v1 Scale` says: simple JSON paths (`.spec.replicas`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalePaths {
    pub spec_replicas_path: String,
    pub status_replicas_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector_path: Option<String>,
}

/// A column of a table of such objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrinterColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub type_: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub format: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Above 0: in wide tables only.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
    pub json_path: String,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// A field that lists may select by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelectableField {
    pub json_path: String,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefinitionStatus {
    pub conditions: Vec<DefinitionCondition>,
    pub accepted_names: DefinitionNames,
    /// Versions in which an object may still be stored.
    pub stored_versions: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefinitionCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    pub reason: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl CustomResourceDefinition {
    /// The finalizer that holds it until its objects are gone.
    pub const FINALIZER: &'static str = "customresourcecleanup.apiextensions.k8s.io";

    /// Whether a condition is `True`.
    pub fn has(&self, condition: &str) -> bool {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|it| it.type_ == condition && it.status == "True")
    }

    /// Its kind is served.
    pub fn is_established(&self) -> bool {
        self.has("Established")
    }

    /// The names it goes by: those that were accepted, once any were.
    pub fn names(&self) -> &DefinitionNames {
        let accepted = self.status.as_ref().map(|status| &status.accepted_names);
        accepted.filter(|names| !names.kind.is_empty()).unwrap_or(&self.spec.names)
    }

    pub fn is_namespaced(&self) -> bool {
        self.spec.scope == "Namespaced"
    }

    /// The version objects are stored in.
    pub fn storage(&self) -> Option<&DefinitionVersion> {
        self.spec.versions.iter().find(|version| version.storage)
    }
}

impl DefinitionSpec {
    /// What is meant where nothing is said.
    pub fn set_defaults(&mut self) {
        let names = &mut self.names;
        if names.singular.is_empty() {
            names.singular = names.kind.to_lowercase();
        }
        if names.list_kind.is_empty() && !names.kind.is_empty() {
            names.list_kind = format!("{}List", names.kind);
        }
        if self.conversion.as_ref().is_none_or(Value::is_null) {
            self.conversion = Some(serde_json::json!({"strategy": "None"}));
        }
        if self.preserve_unknown_fields == Some(false) {
            self.preserve_unknown_fields = None;
        }
    }
}
