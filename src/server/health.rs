//! `/healthz`, `/livez` and `/readyz`: whether the server works, check by check, as kube-apiserver tells it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, StatusCode, Uri, header};

use super::ServerState;
use super::fault::Fault;
use super::request::Query;

/// One thing that must be well: its name, and what is wrong.
type Check = (&'static str, Option<String>);

/// What each endpoint looks at. Alive is who answers; ready is who takes every write.
fn checks(endpoint: &str, state: &ServerState) -> Option<Vec<Check>> {
    let mut checks = vec![("ping", None), ("log", None)];
    match endpoint {
        "healthz" | "livez" => {}
        "readyz" => checks.push(("store", state.store.degraded())),
        _ => return None,
    }
    Some(checks)
}

/// `/livez` and its like: all checks.
pub async fn all(State(state): State<Arc<ServerState>>, uri: Uri) -> Response {
    let endpoint = uri.path().trim_matches('/');
    let (Some(checks), Ok(query)) = (checks(endpoint, &state), Query::parse(&uri)) else { return Fault::no_such_path().into_response() };
    let excluded: Vec<&str> = query.all("exclude").collect();
    told(endpoint, &checks, &excluded, query.all("verbose").next().is_some())
}

/// `/livez/ping`: one check.
pub async fn one(State(state): State<Arc<ServerState>>, Path(name): Path<String>, uri: Uri) -> Response {
    let endpoint = uri.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    let found = checks(endpoint, &state).and_then(|checks| checks.into_iter().find(|(known, _)| *known == name));
    match found {
        None => Fault::no_such_path().into_response(),
        Some((_, None)) => plain(StatusCode::OK, "ok".to_owned()),
        Some((_, Some(why))) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

fn told(endpoint: &str, checks: &[Check], excluded: &[&str], verbose: bool) -> Response {
    let mut text = String::new();
    let mut failed = false;
    for (name, wrong) in checks {
        match wrong {
            _ if excluded.contains(name) => text.push_str(&format!("[+]{name} excluded: ok\n")),
            None => text.push_str(&format!("[+]{name} ok\n")),
            Some(why) => {
                failed = true;
                text.push_str(&format!("[-]{name} failed: {why}\n"));
            }
        }
    }
    let unknown: Vec<String> =
        excluded.iter().filter(|name| checks.iter().all(|(known, _)| known != *name)).map(|it| format!("{it:?}")).collect();
    if !unknown.is_empty() {
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(", ")));
    }
    match (failed, verbose) {
        (true, _) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{text}{endpoint} check failed\n")),
        (false, true) => plain(StatusCode::OK, format!("{text}{endpoint} check passed\n")),
        (false, false) => plain(StatusCode::OK, "ok".to_owned()),
    }
}

fn plain(status: StatusCode, text: String) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (HeaderName::from_static("x-content-type-options"), "nosniff")];
    (status, headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn checks_are_told_as_kube_apiserver_tells_them() {
        let checks = [("ping", None), ("store", Some("the disk is full".to_owned()))];
        let failed = "[+]ping ok\n[-]store failed: the disk is full\nreadyz check failed\n";
        assert_eq!(text(told("readyz", &checks, &[], false)).await, (503, failed.to_owned()));
        let passed = "[+]ping ok\n[+]store excluded: ok\nreadyz check passed\n";
        assert_eq!(text(told("readyz", &checks, &["store"], true)).await, (200, passed.to_owned()));
        assert_eq!(text(told("readyz", &checks, &["store"], false)).await, (200, "ok".to_owned()));
        let (_, warned) = text(told("livez", &checks[..1], &["x"], true)).await;
        assert_eq!(warned, "[+]ping ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\nlivez check passed\n");
    }
}
