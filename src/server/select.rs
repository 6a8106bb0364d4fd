//! Label and field selectors of lists and watches. PURE.

use super::fault::Fault;
use super::request::Query;
use crate::model::custom::Definitions;
use crate::model::selector::{FieldSelector, Requirement, Selector, Test};
use crate::model::{Kind, Object};

/// Which objects of a kind are wanted.
#[derive(Clone, Debug)]
pub struct Selection {
    labels: Selector,
    fields: Option<FieldSelector>,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// Text that is no selector, or a field that cannot be selected by.
    pub fn parse(served: &Definitions, kind: Kind, query: &Query) -> Result<Self, Fault> {
        let wrong = |error: crate::model::selector::SelectorError| Fault::bad_request(error.to_string());
        // `.spec.color` is selected by as `spec.color`.
        let selectable = served.version(kind).map_or(&[][..], |version| &version.selectable);
        let more: Vec<&str> = selectable.iter().map(|(path, _)| path.trim_start_matches('.')).collect();
        let labels = query.get("labelSelector").map(Selector::parse).transpose().map_err(wrong)?;
        let fields = query.get("fieldSelector").map(|text| FieldSelector::parse(kind, text, &more)).transpose().map_err(wrong)?;
        Ok(Self { labels: labels.unwrap_or_else(Selector::everything), fields })
    }

    /// The value a field must be equal to, if one is demanded.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.as_ref()?.exact(name)
    }

    /// The value a label must have, if one is demanded.
    pub fn label(&self, name: &str) -> Option<&str> {
        // All requirements hold together.
        self.labels.requirements().iter().find_map(|Requirement { key, test }| match test {
            Test::In(values) if key == name && values.len() == 1 => values.first().map(String::as_str),
            _ => None,
        })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.as_ref().is_none_or(FieldSelector::is_everything)
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.labels.matches(object.labels()) && self.fields.as_ref().is_none_or(|fields| fields.matches(object))
    }
}
