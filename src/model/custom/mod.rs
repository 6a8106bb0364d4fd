//! Kinds that are objects themselves: what a CustomResourceDefinition makes. PURE.
//!
//! - `kind`: their names, interned
//! - `object`: one object of theirs

mod kind;
mod object;

pub use kind::{CustomKind, Names};
pub use object::Custom;
