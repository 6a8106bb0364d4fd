//! Kinds that are objects themselves: what a CustomResourceDefinition makes. PURE.
//!
//! - `resource`: the CustomResourceDefinition, typed; `structural`: the rules its schemas obey
//! - `kind`: the names of such kinds, interned; `object`: one object of theirs
//! - `definition`: what all CustomResourceDefinitions together come to
//! - `schema`: a schema, read; `prune`, `default`, `validate`, `format`: the walks over objects
//! - `budget`: what all of these may cost; `pattern`: regular expressions
//! - `rules`: `x-kubernetes-validations`, and their language, `cel`; `conditions`: on requests, in the same
//! - `path`: JSON paths of columns, scales and selectable fields

mod budget;
mod cel;
pub mod conditions;
pub mod default;
mod definition;
mod format;
mod kind;
mod object;
mod path;
mod pattern;
pub mod prune;
mod resource;
pub mod rules;
mod schema;
pub mod structural;
pub mod validate;

pub use definition::{Definition, Definitions, Scale, Version, age};
pub use kind::{CustomKind, Names};
pub use object::Custom;
pub use path::JsonPath;
pub use resource::{
    CustomResourceDefinition, DefinitionCondition, DefinitionNames, DefinitionSpec, DefinitionStatus, DefinitionVersion, PrinterColumn,
    ScalePaths, SelectableField, Subresources, VersionSchema,
};
pub use schema::{ListType, Schema};
