//! How many of something there are and shall be: Deployments, ReplicaSets and the custom kinds whose definition says
//! where they keep it. PURE.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Map, Value};

use super::custom::{self, Custom, Definitions};
use super::selector::Selector;
use super::{Kind, Object, Typed};

/// What `autoscaling/v1 Scale` says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// `None`: an object of a custom kind that does not say it.
    pub wanted: Option<i64>,
    pub current: i64,
    /// The pods, as a label selector in its text form; empty where it is not known.
    pub selector: String,
}

/// The scale of an object, by the version of its kind that was asked for; `None` where it has none.
pub fn read(kind: Kind, object: &Object, served: &Definitions) -> Option<Scale> {
    let (wanted, current, selector) = match object.typed() {
        Typed::Custom(it) => return of_custom(it, of_kind(kind, served)?),
        Typed::Deployment(it) => {
            let spec = &it.spec;
            (spec.replicas, it.status.as_ref().and_then(|status| status.replicas), &spec.selector)
        }
        Typed::ReplicaSet(it) => {
            let spec = &it.spec;
            (spec.replicas, it.status.as_ref().map(|status| status.replicas), &spec.selector)
        }
        _ => return None,
    };
    let selector = Selector::of(selector).map(|selector| selector.to_string()).unwrap_or_default();
    Some(Scale { wanted: Some(wanted.unwrap_or(1).into()), current: current.unwrap_or(0).into(), selector })
}

/// The scale that a custom kind's definition leads to.
fn of_custom(it: &Custom, scale: &custom::Scale) -> Option<Scale> {
    let at = |path: &[String]| path.iter().skip(1).fold(path.first().and_then(|name| it.content.get(name)), |value, name| value?.get(name));
    let number = |path: &[String]| at(path).and_then(Value::as_i64);
    let selector = scale.selector.as_deref().and_then(at).and_then(Value::as_str).unwrap_or_default();
    Some(Scale { wanted: number(&scale.wanted), current: number(&scale.current).unwrap_or(0), selector: selector.to_owned() })
}

fn of_kind(kind: Kind, served: &Definitions) -> Option<&custom::Scale> {
    served.version(kind)?.scale.as_ref()
}

/// The object at this size; `None` where it has none.
pub fn write(kind: Kind, object: &Object, replicas: i32, served: &Definitions) -> Option<Object> {
    match object.typed() {
        Typed::Deployment(_) => object.edit::<Deployment>(|it| it.spec.replicas = Some(replicas)),
        Typed::ReplicaSet(_) => object.edit::<ReplicaSet>(|it| it.spec.replicas = Some(replicas)),
        Typed::Custom(it) => {
            let mut scaled = it.clone();
            put(&mut scaled.content, &of_kind(kind, served)?.wanted, replicas.into());
            Some(Object::from_typed(Typed::Custom(scaled)))
        }
        _ => None,
    }
}

/// The field that says how many there shall be, from the object's root.
pub fn field(kind: Kind, served: &Definitions) -> Vec<&str> {
    match of_kind(kind, served) {
        Some(scale) => scale.wanted.iter().map(String::as_str).collect(),
        None => vec!["spec", "replicas"],
    }
}

/// Sets a field, and makes the objects on the way to it.
fn put(fields: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => drop(fields.insert(name.clone(), value)),
        [name, rest @ ..] => {
            let below = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}
