//! Label selectors and field selectors: typed, and as the API's query strings. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::custom::Custom;
use super::{Kind, Object};

type Labels = BTreeMap<String, String>;

/// Why a text or a `LabelSelector` is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    #[error("\"{0}\" is not a valid label selector operator")]
    Operator(String),
    #[error("values of requirement \"{key}\": {message}")]
    Values { key: String, message: &'static str },
    #[error("field label not supported: {field} (of {kind})")]
    Field { kind: Kind, field: String },
}

/// What one label has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    In(BTreeSet<String>),
    /// Also true where the label is absent.
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    pub key: String,
    pub test: Test,
}

impl Requirement {
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Greater(than) => number().is_some_and(|number| number > *than),
            Test::Less(than) => number().is_some_and(|number| number < *than),
        }
    }
}

/// A conjunction of requirements; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// `spec.selector` of a Service: equality only.
    pub fn of_labels(labels: &Labels) -> Self {
        let requirements =
            labels.iter().map(|(key, value)| Requirement { key: key.clone(), test: Test::In([value.clone()].into()) }).collect();
        Self { requirements }
    }

    /// `spec.selector` of a workload. An empty one matches everything, as in Kubernetes.
    ///
    /// # Errors
    /// An unknown operator, or values where none may be.
    pub fn of(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut all = selector.match_labels.as_ref().map(Self::of_labels).unwrap_or_default();
        for expression in selector.match_expressions.iter().flatten() {
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            let wrong = |message| Err(SelectorError::Values { key: expression.key.clone(), message });
            let test = match expression.operator.as_str() {
                "In" | "NotIn" if values.is_empty() => return wrong("must be specified when `operator` is 'In' or 'NotIn'"),
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    return wrong("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                }
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            all.requirements.push(Requirement { key: expression.key.clone(), test });
        }
        Ok(all)
    }

    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>3`.
    ///
    /// # Errors
    /// Names the requirement that cannot be read.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = split(text).into_iter().map(requirement).collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

/// Splits at commas outside parentheses; empty text has no parts.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    if parts.len() == 1 && parts[0].is_empty() { Vec::new() } else { parts }
}

fn requirement(part: &str) -> Result<Requirement, SelectorError> {
    let syntax = || SelectorError::Syntax(part.to_owned());
    let made = |key: &str, test| {
        if is_label_key(key) { Ok(Requirement { key: key.to_owned(), test }) } else { Err(syntax()) }
    };
    if let Some(key) = part.strip_prefix('!') {
        return made(key.trim(), Test::DoesNotExist);
    }
    if let Some((key, set)) = part.split_once('(') {
        let (key, operator) = key.trim().rsplit_once(char::is_whitespace).ok_or_else(syntax)?;
        let inner = set.strip_suffix(')').ok_or_else(syntax)?;
        let values: BTreeSet<String> = inner.split(',').map(|value| value.trim().to_owned()).collect();
        if !values.iter().all(|value| is_label_value(value)) {
            return Err(syntax());
        }
        return match operator {
            "in" => made(key.trim(), Test::In(values)),
            "notin" => made(key.trim(), Test::NotIn(values)),
            _ => Err(syntax()),
        };
    }
    let value = |text: &str| if is_label_value(text.trim()) { Ok(BTreeSet::from([text.trim().to_owned()])) } else { Err(syntax()) };
    if let Some((key, text)) = part.split_once("!=") {
        return made(key.trim(), Test::NotIn(value(text)?));
    }
    if let Some((key, text)) = part.split_once('=') {
        return made(key.trim(), Test::In(value(text.strip_prefix('=').unwrap_or(text))?));
    }
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| syntax());
    if let Some((key, text)) = part.split_once('>') {
        return made(key.trim(), Test::Greater(number(text)?));
    }
    if let Some((key, text)) = part.split_once('<') {
        return made(key.trim(), Test::Less(number(text)?));
    }
    made(part, Test::Exists)
}

/// A qualified name: optional DNS prefix, `/`, up to 63 characters.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_fits = prefix.is_none_or(|prefix| {
        !prefix.is_empty()
            && prefix.len() <= 253
            && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    });
    prefix_fits && !name.is_empty() && is_label_value(name)
}

/// Up to 63 of letters, digits, `-_.`, alphanumeric at both ends; may be empty.
fn is_label_value(value: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_none_or(|b| b.is_ascii_alphanumeric());
    value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && ends(value.bytes().next())
        && ends(value.bytes().last())
}

/// The API's query form; parses back to the same selector.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, test }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let list = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match test {
                Test::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values))?,
                Test::In(values) => write!(f, "{key} in ({})", list(values))?,
                Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values))?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", list(values))?,
                Test::Exists => write!(f, "{key}")?,
                Test::DoesNotExist => write!(f, "!{key}")?,
                Test::Greater(than) => write!(f, "{key}>{than}")?,
                Test::Less(than) => write!(f, "{key}<{than}")?,
            }
        }
        Ok(())
    }
}

/// `spec.nodeName=n1,status.phase!=Running`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// field, wanted equal (or else unequal), value
    terms: Vec<(String, bool, String)>,
}

impl FieldSelector {
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Reads a query string for a kind; `more`: fields besides those of every object of it.
    ///
    /// # Errors
    /// A term without an operator, or a field this kind cannot be selected by.
    pub fn parse(kind: Kind, text: &str, more: &[&str]) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in unescaped_split(text, ',').into_iter().map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || SelectorError::Syntax(part.to_owned());
            let pieces = unescaped_split(part, '=');
            let (field, equal, value) = match pieces.as_slice() {
                [field, value] => (*field, true, *value),
                [field, "", value] => (*field, true, *value),
                _ => return Err(wrong()),
            };
            let (field, equal) = field.strip_suffix('!').map_or((field, equal), |field| (field, false));
            if pieces.len() == 3 && !equal {
                return Err(wrong());
            }
            let (field, value) = (field.trim(), unescape(value.trim()).ok_or_else(wrong)?);
            let stored = match kind.conversion() {
                Some(conversion) => conversion.selected(field),
                None => Some(field.to_owned()),
            };
            let stored = stored.filter(|stored| fields(kind.stored()).contains(&stored.as_str()) || more.contains(&field));
            terms.push((stored.ok_or_else(|| SelectorError::Field { kind, field: field.to_owned() })?, equal, value));
        }
        Ok(Self { terms })
    }

    /// The value a field must have, if the selector demands one: an index may answer it.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(name, equal, _)| *equal && name == field).map(|(_, _, value)| value.as_str())
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.terms.iter().all(|(field, equal, value)| (field_value(object, field) == *value) == *equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, equal, value)) in self.terms.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{field}{}{value}", if index > 0 { "," } else { "" }, if *equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

/// Splits at a separator that no backslash precedes.
fn unescaped_split(text: &str, separator: char) -> Vec<&str> {
    let (mut pieces, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        if letter == separator && !escaped {
            pieces.push(&text[start..at]);
            start = at + letter.len_utf8();
        }
        escaped = letter == '\\' && !escaped;
    }
    pieces.push(&text[start..]);
    pieces
}

/// Undoes `\\`, `\,` and `\=`; nothing else may follow a backslash.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => plain.push(letters.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// The fields a kind can be selected by: Kubernetes' own list.
pub fn fields(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pod => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        Kind::Event => &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        Kind::Secret => &["metadata.name", "metadata.namespace", "type"],
        Kind::Node => &["metadata.name", "spec.unschedulable"],
        Kind::Namespace => &["metadata.name", "status.phase"],
        Kind::Service => &["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"],
        Kind::Source | Kind::CustomResourceDefinition => &["metadata.name"],
        Kind::CertificateSigningRequest => &["metadata.name", "spec.signerName"],
        Kind::ReplicaSet => &["metadata.name", "metadata.namespace", "status.replicas"],
        Kind::Job => &["metadata.name", "metadata.namespace", "status.successful"],
        _ => &["metadata.name", "metadata.namespace"],
    }
}

/// What a custom object has at a path of fields.
fn custom_field(object: &Custom, field: &str) -> String {
    let mut path = field.split('.');
    let first = path.next().and_then(|name| object.content.get(name));
    match path.fold(first, |value, name| value?.get(name)) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn field_value(object: &Object, field: &str) -> String {
    let some = |text: &Option<String>| text.clone().unwrap_or_default();
    match field {
        "metadata.name" => return object.key().name.clone(),
        "metadata.namespace" => return object.key().namespace.clone(),
        _ => {}
    }
    if let Some(custom) = object.custom() {
        return custom_field(custom, field);
    }
    if let Some(pod) = object.get::<Pod>() {
        return pod_field(pod, field);
    }
    if let Some(event) = object.get::<Event>() {
        let about = &event.involved_object;
        return match field {
            "involvedObject.kind" => some(&about.kind),
            "involvedObject.namespace" => some(&about.namespace),
            "involvedObject.name" => some(&about.name),
            "involvedObject.uid" => some(&about.uid),
            "involvedObject.apiVersion" => some(&about.api_version),
            "involvedObject.resourceVersion" => some(&about.resource_version),
            "involvedObject.fieldPath" => some(&about.field_path),
            "reason" => some(&event.reason),
            "reportingComponent" => some(&event.reporting_component),
            "source" => {
                let component = event.source.as_ref().and_then(|source| source.component.clone()).filter(|name| !name.is_empty());
                component.or_else(|| event.reporting_component.clone()).unwrap_or_default()
            }
            "type" => some(&event.type_),
            _ => String::new(),
        };
    }
    match field {
        "type" => object.get::<Secret>().map(|it| some(&it.type_)).unwrap_or_default(),
        "spec.unschedulable" => {
            object.get::<Node>().and_then(|it| it.spec.as_ref()).and_then(|spec| spec.unschedulable).unwrap_or(false).to_string()
        }
        "status.phase" => object.get::<Namespace>().and_then(|it| it.status.as_ref()).map(|it| some(&it.phase)).unwrap_or_default(),
        "status.successful" => path(&object.value(), "status.succeeded").unwrap_or_else(|| "0".to_owned()),
        other => path(&object.value(), other).unwrap_or_default(),
    }
}

fn pod_field(pod: &Pod, field: &str) -> String {
    let spec = |read: fn(&k8s_openapi::api::core::v1::PodSpec) -> Option<String>| pod.spec.as_ref().and_then(read).unwrap_or_default();
    let status =
        |read: fn(&k8s_openapi::api::core::v1::PodStatus) -> Option<String>| pod.status.as_ref().and_then(read).unwrap_or_default();
    match field {
        "spec.nodeName" => spec(|it| it.node_name.clone()),
        "spec.restartPolicy" => spec(|it| it.restart_policy.clone()),
        "spec.schedulerName" => spec(|it| it.scheduler_name.clone()),
        "spec.serviceAccountName" => spec(|it| it.service_account_name.clone()),
        "spec.hostNetwork" => spec(|it| Some(it.host_network.unwrap_or(false).to_string())),
        "status.phase" => status(|it| it.phase.clone()),
        "status.podIP" => status(|it| it.pod_ip.clone()),
        "status.podIPs" => status(|it| Some(it.pod_ips.iter().flatten().map(|address| address.ip.as_str()).collect::<Vec<_>>().join(","))),
        "status.nominatedNodeName" => status(|it| it.nominated_node_name.clone()),
        _ => String::new(),
    }
}

fn path(value: &Value, path: &str) -> Option<String> {
    match path.split('.').try_fold(value, |at, step| at.get(step))? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn strings_select() {
        let web = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
        for (text, matches) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web, tier=front", true),
            ("app!=web", false),
            ("other!=x", true),
            ("app in (web,db)", true),
            ("app in (db)", false),
            ("app notin (db,cache),tier", true),
            ("gone notin (x)", true),
            ("!gone", true),
            ("!app", false),
            ("gone", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app>1", false),
        ] {
            let selector = Selector::parse(text).expect(text);
            assert_eq!(selector.matches(&web), matches, "{text}");
            assert_eq!(Selector::parse(&selector.to_string()).expect("its print"), selector, "{text}");
        }
    }

    #[test]
    fn broken_strings_are_named() {
        for text in ["=a", "a in b", "a in (b", "a,,b", "a b", "a=b c", "-a=b", "a>x", "!"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn typed_selectors_follow_kubernetes() {
        let expression = |operator: &str, values: &[&str]| LabelSelector {
            match_labels: Some(labels(&[("app", "web")])),
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "tier".to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(|it| (*it).to_owned()).collect()),
            }]),
        };
        assert!(Selector::of(&expression("In", &["front"])).expect("valid").matches(&labels(&[("app", "web"), ("tier", "front")])));
        assert!(Selector::of(&expression("NotIn", &["front"])).expect("valid").matches(&labels(&[("app", "web")])));
        assert!(!Selector::of(&expression("Exists", &[])).expect("valid").matches(&labels(&[("app", "web")])));
        assert!(Selector::of(&expression("In", &[])).is_err());
        assert!(Selector::of(&expression("Exists", &["x"])).is_err());
        assert!(Selector::of(&expression("Near", &["x"])).is_err());
        assert!(Selector::of(&LabelSelector::default()).expect("valid").matches(&labels(&[])));
    }

    #[test]
    fn fields_select() {
        let pod = Object::from_value(
            Kind::Pod,
            json!({"metadata": {"name": "a", "namespace": "web"}, "spec": {"nodeName": "n1", "containers": []}, "status": {"phase": "Running"}}),
        )
        .expect("a pod");
        for (text, matches) in [
            ("", true),
            ("metadata.name=a", true),
            ("spec.nodeName=n1,status.phase!=Running", false),
            ("spec.nodeName==n1,status.phase!=Failed", true),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
            ("status.phase = Running", true),
            (r"status.podIP=\,\=\\", false),
            (r"status.podIP!=\,", true),
        ] {
            assert_eq!(FieldSelector::parse(Kind::Pod, text, &[]).expect(text).matches(&pod), matches, "{text}");
        }
        assert_eq!(FieldSelector::parse(Kind::Pod, "spec.nodeName=n1", &[]).expect("valid").exact("spec.nodeName"), Some("n1"));
        assert!(matches!(FieldSelector::parse(Kind::ConfigMap, "spec.nodeName=n1", &[]), Err(SelectorError::Field { .. })));
        for text in ["nonsense", "status.podIP=a=b", r"status.podIP=\x", "status.podIP!==a"] {
            assert!(matches!(FieldSelector::parse(Kind::Pod, text, &[]), Err(SelectorError::Syntax(_))), "{text}");
        }
        let event = Kind::of("events.k8s.io/v1", "Event").expect("a kind");
        let about = FieldSelector::parse(event, "regarding.name=a,reportingController=b,type=Normal", &[]).expect("valid");
        assert_eq!((about.exact("involvedObject.name"), about.exact("reportingComponent")), (Some("a"), Some("b")));
        assert!(matches!(FieldSelector::parse(event, "involvedObject.name=a", &[]), Err(SelectorError::Field { .. })));
        let escaped = FieldSelector::parse(Kind::Pod, r"status.podIP=\,\=\\", &[]).expect("valid");
        assert_eq!(escaped.exact("status.podIP"), Some(r",=\"));
        assert_eq!(FieldSelector::parse(Kind::Pod, &escaped.to_string(), &[]).expect("its print"), escaped);
        let node = Object::from_value(Kind::Node, json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}})).expect("a node");
        assert!(FieldSelector::parse(Kind::Node, "spec.unschedulable=true", &[]).expect("valid").matches(&node));
        let service = json!({"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "clusterIP": "None"}});
        let service = Object::from_value(Kind::Service, service).expect("a Service");
        for (text, matches) in [("spec.type=ClusterIP", true), ("spec.type!=ClusterIP", false), ("spec.clusterIP=None", true)] {
            assert_eq!(FieldSelector::parse(Kind::Service, text, &[]).expect(text).matches(&service), matches, "{text}");
        }
        let kind = Kind::CertificateSigningRequest;
        let asked = json!({"metadata": {"name": "r"}, "spec": {"request": "", "signerName": "example.com/a"}});
        let asked = Object::from_value(kind, asked).expect("a request");
        for (text, matches) in [("spec.signerName=example.com/a", true), ("spec.signerName=example.com/b", false)] {
            assert_eq!(FieldSelector::parse(kind, text, &[]).expect(text).matches(&asked), matches, "{text}");
        }
    }
}
