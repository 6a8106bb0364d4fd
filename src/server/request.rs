//! What a request asks for, read from its method, path, query and headers. PURE.

use http::{HeaderMap, Method, Uri, header};

use super::fault::Fault;
use super::hooks::Notes;
use super::identity::Identity;
use super::options::{FieldValidation, WriteOptions};
use crate::model::custom::Definitions;
use crate::model::{Key, Kind};

/// The subresource that has paths of its own below it.
pub const PROXY: &str = "proxy";

/// The resource a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub kind: Kind,
    /// Empty: all namespaces, or a cluster-scoped kind.
    pub namespace: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Target {
    /// Reads `/api/v1/…` and `/apis/GROUP/VERSION/…`.
    pub fn parse(path: &str, served: &Definitions) -> Option<Self> {
        let segments: Vec<Vec<u8>> = path.split('/').filter(|segment| !segment.is_empty()).map(bytes).collect::<Option<_>>()?;
        let words: Vec<&str> = segments.iter().map_while(|segment| std::str::from_utf8(segment).ok()).collect();
        // What is behind that word is the other end's, which need not be text.
        let is_whole = |it: &Self| words.len() == segments.len() || it.subresource.as_deref() == Some(PROXY);
        Self::of(&words, served).filter(is_whole)
    }

    fn of(words: &[&str], served: &Definitions) -> Option<Self> {
        let (group, version, rest) = match words {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, sub @ ("status" | "finalize")] if group.is_empty() => {
                return Some(Self::new(Kind::Namespace, "", Some(namespace), Some(sub)));
            }
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(*name), None),
            [plural, name, sub] | [plural, name, sub @ PROXY, ..] => (plural, Some(*name), Some(*sub)),
            _ => return None,
        };
        let kind = served.kind_of_resource(group, version, plural)?;
        let info = kind.info();
        let well_scoped = if info.namespaced { name.is_none() || !namespace.is_empty() } else { namespace.is_empty() };
        well_scoped.then(|| Self::new(kind, namespace, name, subresource))
    }

    fn new(kind: Kind, namespace: &str, name: Option<&str>, subresource: Option<&str>) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.map(str::to_owned), subresource: subresource.map(str::to_owned) }
    }

    /// The key of the one object it names.
    pub fn key(&self) -> Option<Key> {
        self.name.as_ref().map(|name| Key::new(self.kind, self.namespace.clone(), name.clone()))
    }
}

/// Undoes percent-encoding, of what is text.
pub(super) fn unescape(segment: &str) -> Option<String> {
    String::from_utf8(bytes(segment)?).ok()
}

/// Undoes percent-encoding. Hexadecimal digits alone follow the sign (RFC 3986, 2.1).
fn bytes(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let code = tail.get(..2).filter(|code| code.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(bytes)
}

/// Kubernetes' verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }

    const ALL: [Self; 8] =
        [Self::Get, Self::List, Self::Watch, Self::Create, Self::Update, Self::Patch, Self::Delete, Self::DeleteCollection];

    /// The verb of this [`Verb::word`].
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.word() == word)
    }

    pub fn of(method: &Method, target: &Target, query: &Query) -> Option<Self> {
        let named = target.name.is_some();
        Some(match *method {
            Method::GET | Method::HEAD if !named && query.flag("watch") => Verb::Watch,
            Method::GET | Method::HEAD if named => Verb::Get,
            Method::GET | Method::HEAD => Verb::List,
            Method::POST if !named || target.subresource.is_some() => Verb::Create,
            Method::PUT if named => Verb::Update,
            Method::PATCH if named => Verb::Patch,
            Method::DELETE if named => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ => return None,
        })
    }

    pub fn writes(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// Query parameters, in their order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// A query that is not `application/x-www-form-urlencoded`.
    pub fn parse(uri: &Uri) -> Result<Self, Fault> {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|pairs| Self(pairs.0))
            .map_err(|error| Fault::bad_request(format!("the query: {error}")))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Kubernetes reads every value but `0` and `false` as true.
    pub fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(key, value)| key == name && !matches!(value.as_str(), "0" | "false" | "False" | "FALSE" | "f" | "F"))
    }

    /// A number.
    ///
    /// # Errors
    /// Text that is none.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Fault> {
        self.get(name)
            .map(|text| text.parse().map_err(|_| Fault::bad_request(format!("invalid value {text:?} for the parameter {name}"))))
            .transpose()
    }
}

/// In which form the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Object,
    /// `meta.k8s.io/v1 Table`, kubectl's own columns.
    Table,
    /// `PartialObjectMetadata` and its list.
    Metadata,
    /// Aggregated discovery.
    Discovery,
}

impl Form {
    /// The first form of `Accept` that is served.
    ///
    /// # Errors
    /// 406 when there is none.
    pub fn negotiate(headers: &HeaderMap) -> Result<Self, Fault> {
        let accept = accepted(headers);
        if accept.is_empty() {
            return Ok(Form::Object);
        }
        accept.split(',').find_map(Self::of).ok_or_else(|| Fault::not_acceptable(&accept))
    }

    /// Whether the first form of `Accept` that is served is wanted in YAML.
    pub fn is_wanted_in_yaml(headers: &HeaderMap) -> bool {
        let accept = accepted(headers);
        let first = accept.split(',').find(|range| Self::of(range).is_some());
        first.and_then(|range| range.split(';').next()).is_some_and(|media| media.trim() == YAML)
    }

    fn of(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next()?;
        let params: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let param = |name: &str| params.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        if !matches!(media, "application/json" | YAML | "*/*" | "application/*" | "text/plain" | "text/*") {
            return None;
        }
        match (param("as"), param("g"), param("v")) {
            (None, ..) => Some(Form::Object),
            (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Some(Form::Table),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => Some(Form::Metadata),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Some(Form::Discovery),
            _ => None,
        }
    }
}

/// `Accept`, whole; empty where it says nothing.
fn accepted(headers: &HeaderMap) -> String {
    let all = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    all.filter(|value| !value.trim().is_empty()).collect::<Vec<_>>().join(",")
}

/// The other form in which objects are shown.
pub const YAML: &str = "application/yaml";

/// The content type of server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";

/// One request to the object API.
#[derive(Clone, Debug)]
pub struct Call {
    pub identity: Identity,
    pub target: Target,
    pub verb: Verb,
    pub query: Query,
    pub form: Form,
    pub content_type: String,
    /// `fieldManager`, else the start of the user agent, as Kubernetes does.
    pub manager: String,
    pub field_validation: FieldValidation,
    pub dry_run: bool,
    /// What webhooks tell on its way.
    pub notes: Notes,
}

impl Call {
    /// # Errors
    /// Parameters or headers that mean nothing here.
    pub fn read(identity: Identity, target: Target, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, Fault> {
        let query = Query::parse(uri)?;
        let verb = Verb::of(method, &target, &query).ok_or_else(Fault::method_not_allowed)?;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let agent = text(header::USER_AGENT).split('/').next().unwrap_or_default().trim();
        let manager = query.get("fieldManager").unwrap_or(if agent.is_empty() { "unknown" } else { agent }).to_owned();
        let options = match verb.writes() {
            true => WriteOptions::read(verb, &query, content_type == APPLY)?,
            false => WriteOptions { dry_run: false, field_validation: FieldValidation::Warn },
        };
        // Logs, exec and the like negotiate their own formats.
        let streams = matches!(target.subresource.as_deref(), Some("log" | "exec" | "attach" | "portforward"));
        let form = if streams { Form::Object } else { Form::negotiate(headers)? };
        if verb == Verb::Watch && Form::is_wanted_in_yaml(headers) {
            // Kubernetes' serializer of it has no frames for streams.
            return Err(Fault::not_acceptable(YAML));
        }
        let WriteOptions { dry_run, field_validation } = options;
        Ok(Self { identity, target, verb, query, form, content_type, manager, field_validation, dry_run, notes: Notes::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_target() {
        let table = [
            ("/api/v1/pods", Some((Kind::Pod, "", None, None))),
            ("/api/v1/namespaces/web/pods", Some((Kind::Pod, "web", None, None))),
            ("/api/v1/namespaces/web/pods/a/log", Some((Kind::Pod, "web", Some("a"), Some("log")))),
            ("/api/v1/namespaces/web", Some((Kind::Namespace, "", Some("web"), None))),
            ("/api/v1/namespaces", Some((Kind::Namespace, "", None, None))),
            ("/api/v1/namespaces/web/status", Some((Kind::Namespace, "", Some("web"), Some("status")))),
            ("/apis/apps/v1/namespaces/web/deployments/a", Some((Kind::Deployment, "web", Some("a"), None))),
            ("/apis/podbay.dev/v1/sources/s%61", Some((Kind::Source, "", Some("sa"), None))),
            ("/api/v1/namespaces/web/pods/a/proxy/%ff/x", Some((Kind::Pod, "web", Some("a"), Some("proxy")))),
            ("/api/v1/nodes/n/pro%78y/a%C3/%A4", Some((Kind::Node, "", Some("n"), Some("proxy")))),
            ("/api/v1/nodes/n/proxy/%f", None),
            ("/api/v1/nodes/n/proxy/%+f", None),
            ("/api/v1/nodes/%ff/proxy", None),
            ("/api/v1/nodes/proxy/%ff", None),
            ("/api/v1/nodes/n/%ff/proxy", None),
            ("/api/v1/nodes/n/status/%ff", None),
            ("/api/v1/nodes/%ff", None),
            ("/api/v1/namespaces/web/status/%ff", None),
            ("/api/v1/pods/a", None),
            ("/api/v1/namespaces/web/nodes", None),
            ("/apis/apps/v1/namespaces/web/pods", None),
            ("/api/v2/pods", None),
        ];
        for (path, wanted) in table {
            let wanted = wanted.map(|(kind, namespace, name, sub)| Target::new(kind, namespace, name, sub));
            assert_eq!(Target::parse(path, &Definitions::default()), wanted, "{path}");
        }
    }

    #[test]
    fn accept_finds_the_first_form_that_is_served() {
        let table = [
            ("", Some(Form::Object)),
            ("application/json", Some(Form::Object)),
            ("application/vnd.kubernetes.protobuf, application/json", Some(Form::Object)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(Form::Table)),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some(Form::Metadata)),
            ("application/vnd.kubernetes.protobuf", None),
        ];
        for (accept, wanted) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(Form::negotiate(&headers).ok(), wanted, "{accept}");
        }
    }
}
