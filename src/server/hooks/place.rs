//! Where a webhook listens: a URL, or the pods of a Service. PURE.

use http::Uri;
use k8s_openapi::api::admissionregistration::v1::ServiceReference;
use k8s_openapi::api::core::v1::Service;

use super::super::behind::ready;
use crate::model::webhook::Webhook;
use crate::model::{Key, Kind, Object};
use crate::store::snapshot::Snapshot;

/// Seconds, where the webhook says nothing.
const TIMEOUT: i32 = 10;
const HTTPS: u16 = 443;

/// A webhook's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As messages have it.
    pub url: String,
    /// `HOST:PORT` each: one that takes a connection is asked.
    pub addresses: Vec<String>,
    /// Whom its certificate must name.
    pub name: String,
    /// The `Host` header.
    pub host: String,
    pub path: String,
}

/// Seconds until an answer must be there.
pub fn patience(hook: &Webhook) -> u64 {
    hook.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(TIMEOUT as u64)
}

/// Finds it.
///
/// # Errors
/// A Service that is not there, has no such port, or nothing behind it.
pub fn place(hook: &Webhook, state: &Snapshot) -> Result<Place, String> {
    let query = format!("timeout={}s", patience(hook));
    match (&hook.client_config.url, &hook.client_config.service) {
        (Some(url), _) => of_url(url, &query),
        (None, Some(service)) => of_service(service, &query, state),
        (None, None) => Err("webhook configuration must have either service or URL".to_owned()),
    }
}

fn of_url(url: &str, query: &str) -> Result<Place, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let authority = uri.authority().ok_or_else(|| format!("{url:?} names no host"))?;
    let host = authority.host();
    let path = if uri.path().is_empty() { "/" } else { uri.path() };
    Ok(Place {
        url: format!("https://{authority}{path}?{query}"),
        addresses: vec![format!("{host}:{}", authority.port_u16().unwrap_or(HTTPS))],
        name: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        host: authority.to_string(),
        path: format!("{path}?{query}"),
    })
}

fn of_service(wanted: &ServiceReference, query: &str, state: &Snapshot) -> Result<Place, String> {
    let (namespace, name) = (wanted.namespace.as_str(), wanted.name.as_str());
    let port = wanted.port.unwrap_or(i32::from(HTTPS));
    let service = state.get(&Key::new(Kind::Service, namespace, name)).and_then(Object::get::<Service>);
    let spec = service.and_then(|service| service.spec.as_ref()).ok_or_else(|| format!("service {name:?} not found"))?;
    let of_port = spec.ports.iter().flatten().find(|it| it.port == port);
    let of_port = of_port.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = of_port.name.as_deref().unwrap_or_default();
    let addresses: Vec<String> = ready(state, namespace, name, port_name).iter().map(|it| format!("{}:{}", it.address, it.port)).collect();
    if addresses.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    let host = format!("{name}.{namespace}.svc");
    let path = wanted.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    Ok(Place {
        url: format!("https://{host}:{port}{path}?{query}"),
        addresses,
        host: format!("{host}:{port}"),
        name: host,
        path: format!("{path}?{query}"),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
    use serde_json::{Value, json};

    use super::*;

    fn state(objects: &[(Kind, Value)]) -> Snapshot {
        let mut state = Snapshot::default();
        for (kind, value) in objects {
            state.insert(Object::from_value(*kind, value.clone()).expect("an object"));
        }
        state
    }

    fn hook(client: Value) -> Webhook {
        let client_config: WebhookClientConfig = serde_json::from_value(client).expect("a client");
        Webhook { client_config, timeout_seconds: Some(7), ..Webhook::default() }
    }

    #[test]
    fn a_url_is_taken_as_it_is() {
        for (url, address, name, path) in [
            ("https://hook.example.com", "hook.example.com:443", "hook.example.com", "/?timeout=7s"),
            ("https://127.0.0.1:9443/a/b", "127.0.0.1:9443", "127.0.0.1", "/a/b?timeout=7s"),
            ("https://[::1]:9443/a", "[::1]:9443", "::1", "/a?timeout=7s"),
        ] {
            let place = place(&hook(json!({"url": url})), &Snapshot::default()).expect(url);
            assert_eq!((place.addresses, place.name.as_str(), place.path.as_str()), (vec![address.to_owned()], name, path), "{url}");
        }
    }

    #[test]
    fn a_service_is_where_its_ready_pods_are() {
        let slice = |name: &str, of: &str, endpoints: Value| {
            let metadata = json!({"name": name, "namespace": "web", "labels": {"kubernetes.io/service-name": of}});
            (
                Kind::EndpointSlice,
                json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints,
                    "ports": [{"name": "metrics", "port": 9100}, {"name": "https", "port": 8443}]}),
            )
        };
        let mut objects = vec![(
            Kind::Service,
            json!({"metadata": {"name": "hook", "namespace": "web"},
                "spec": {"ports": [{"name": "metrics", "port": 9100}, {"name": "https", "port": 443, "targetPort": 8443}]}}),
        )];
        let client = |more: Value| {
            let mut service = json!({"name": "hook", "namespace": "web"});
            json_patch::merge(&mut service, &more);
            hook(json!({ "service": service }))
        };
        let told = |wanted: Value, objects: &[(Kind, Value)]| place(&client(wanted), &state(objects));
        assert_eq!(told(json!({"name": "other"}), &objects).unwrap_err(), "service \"other\" not found");
        assert_eq!(told(json!({"port": 80}), &objects).unwrap_err(), "no service port 80 found for service \"hook\"");
        objects.push(slice("others", "else", json!([{"addresses": ["10.0.0.9"]}])));
        objects.push(slice("gone", "hook", json!([{"addresses": ["10.0.0.8"], "conditions": {"ready": false}}])));
        assert_eq!(told(json!({}), &objects).unwrap_err(), "no endpoints available for service \"hook\"");
        let both = json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.2"]}]);
        objects.push(slice("here", "hook", both));
        let place = told(json!({"path": "/judge"}), &objects).expect("a place");
        assert_eq!(
            place,
            Place {
                url: "https://hook.web.svc:443/judge?timeout=7s".to_owned(),
                addresses: vec!["10.0.0.1:8443".to_owned(), "10.0.0.2:8443".to_owned()],
                name: "hook.web.svc".to_owned(),
                host: "hook.web.svc:443".to_owned(),
                path: "/judge?timeout=7s".to_owned(),
            }
        );
    }
}
