//! What was asked of the API and what came of it, counted for `/metrics` under Kubernetes' names and with its meanings
//! (`k8s.io/apiserver`: `pkg/endpoints/metrics/metrics.go`, `pkg/util/flowcontrol/metrics/metrics.go`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, Request, StatusCode, header};

use super::ServerState;
use super::proxy::relay;
use super::proxy::streams::Stream;
use super::request::{APPLY, Query, Target, Verb};
use crate::model::Kind;
use crate::model::custom::Definitions;

/// Seconds up to which answers are told apart: a few of Kubernetes' own.
const BOUNDS: [f64; 7] = [0.005, 0.025, 0.1, 0.4, 1.0, 5.0, 30.0];
/// Rows, each a verb on a resource. What comes when there are more is counted without its resource.
const MOST: usize = 1000;
/// What is told by name; whoever makes up others is counted without.
const SUBRESOURCES: [&str; 13] = [
    "approval",
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "log",
    "portforward",
    "proxy",
    "resize",
    "scale",
    "status",
    "token",
];

/// All counts of a running server.
#[derive(Default)]
pub struct Tally {
    rows: Mutex<BTreeMap<Asked, Row>>,
    /// Requests that are carried out: those that read, those that write.
    under_way: [Arc<AtomicUsize>; 2],
    watches: Arc<AtomicUsize>,
}

/// What a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    verb: &'static str,
    /// Absent for paths of no resource.
    kind: Option<Kind>,
    subresource: &'static str,
}

#[derive(Default)]
struct Row {
    codes: BTreeMap<u16, u64>,
    /// Of those with an end: how many took no longer than each of [`BOUNDS`], all, and their time together.
    within: [u64; BOUNDS.len()],
    timed: u64,
    time: Duration,
}

/// One more for as long as this lives.
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts what becomes of each request.
pub async fn tally(State(state): State<Arc<ServerState>>, request: Request<Body>, next: Next) -> Response {
    let (asked, ends) = Asked::of(&request, state.store.snapshot().definitions());
    let began = Instant::now();
    let response = next.run(request).await;
    state.tally.note(asked, response.status(), ends.then(|| began.elapsed()));
    response
}

impl Asked {
    /// And whether it ends by itself: a watch, a log and a session go on for as long as somebody likes.
    fn of(request: &Request<Body>, served: &Definitions) -> (Self, bool) {
        let Some(target) = Target::parse(request.uri().path(), served) else {
            return (Self { verb: of_method(request.method()), kind: None, subresource: "" }, true);
        };
        let subresource = target.subresource.as_deref().unwrap_or_default();
        let subresource = SUBRESOURCES.into_iter().find(|known| *known == subresource).unwrap_or_default();
        let stream = Stream::of(&target);
        let verb = match (stream, Query::parse(request.uri()).ok().and_then(|query| Verb::of(request.method(), &target, &query))) {
            (Some(Stream::Exec | Stream::Attach | Stream::PortForward), _) => "CONNECT",
            _ if relay::is_for(&target) => "CONNECT",
            (_, Some(Verb::List)) => "LIST",
            (_, Some(Verb::Watch)) => "WATCH",
            (_, Some(Verb::DeleteCollection)) => "DELETECOLLECTION",
            (_, Some(Verb::Patch)) if request.headers().get(header::CONTENT_TYPE).is_some_and(|it| it == APPLY) => "APPLY",
            _ => of_method(request.method()),
        };
        (Self { verb, kind: Some(target.kind), subresource }, verb != "WATCH" && verb != "CONNECT" && stream.is_none())
    }
}

fn of_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Codes that nobody has a name for are those of their hundred: what is proxied may answer with any.
fn told(code: StatusCode) -> u16 {
    if code.canonical_reason().is_some() { code.as_u16() } else { code.as_u16() / 100 * 100 }
}

impl Tally {
    /// A request that is carried out from now on.
    pub fn begin(&self, method: &Method) -> Counted {
        Counted::new(&self.under_way[usize::from(!matches!(*method, Method::GET | Method::HEAD))])
    }

    /// A watch that is open from now on.
    pub fn watch(&self) -> Counted {
        Counted::new(&self.watches)
    }

    fn note(&self, asked: Asked, code: StatusCode, took: Option<Duration>) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = rows.len() < MOST || rows.contains_key(&asked);
        let row = rows.entry(if is_known { asked } else { Asked { kind: None, subresource: "", ..asked } }).or_default();
        *row.codes.entry(told(code)).or_default() += 1;
        if let Some(took) = took {
            let seconds = took.as_secs_f64();
            BOUNDS.iter().zip(&mut row.within).filter(|(bound, _)| seconds <= **bound).for_each(|(_, count)| *count += 1);
            (row.timed, row.time) = (row.timed + 1, row.time + took);
        }
    }

    /// In Prometheus' text format.
    pub fn text(&self) -> String {
        let (mut codes, mut times) = (String::new(), String::new());
        for (asked, row) in self.rows.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let Asked { verb, kind, subresource } = asked;
            let (group, version, resource) = kind.map(|kind| kind.info()).map_or(("", "", ""), |it| (it.group, it.version, it.plural));
            let labels =
                format!("verb=\"{verb}\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",subresource=\"{subresource}\"");
            // Writing to a String cannot fail.
            for (code, count) in &row.codes {
                let _ = writeln!(codes, "apiserver_request_total{{{labels},code=\"{code}\"}} {count}");
            }
            if row.timed == 0 {
                continue;
            }
            let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(row.within.iter().chain([&row.timed])) {
                let _ = writeln!(times, "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(times, "apiserver_request_duration_seconds_sum{{{labels}}} {}", row.time.as_secs_f64());
            let _ = writeln!(times, "apiserver_request_duration_seconds_count{{{labels}}} {}", row.timed);
        }
        let [reads, writes] = [0, 1].map(|index: usize| self.under_way[index].load(Ordering::Relaxed));
        let open = self.watches.load(Ordering::Relaxed);
        format!(
            "# HELP apiserver_request_total Requests answered, by what they asked and the code of the answer.\n\
             # TYPE apiserver_request_total counter\n{codes}\
             # HELP apiserver_request_duration_seconds Time to the answers of requests that end by themselves.\n\
             # TYPE apiserver_request_duration_seconds histogram\n{times}\
             # HELP apiserver_current_inflight_requests Requests that are being carried out.\n\
             # TYPE apiserver_current_inflight_requests gauge\n\
             apiserver_current_inflight_requests{{request_kind=\"mutating\"}} {writes}\n\
             apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {reads}\n\
             # HELP apiserver_longrunning_requests Watches that are open.\n\
             # TYPE apiserver_longrunning_requests gauge\n\
             apiserver_longrunning_requests{{verb=\"WATCH\"}} {open}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, uri: &str, content_type: &str) -> (Asked, bool) {
        let request = Request::builder().method(method).uri(uri).header("content-type", content_type).body(Body::empty()).unwrap();
        Asked::of(&request, &Definitions::default())
    }

    #[test]
    fn a_request_is_counted_by_what_it_asks() {
        let pods = "/api/v1/namespaces/a/pods";
        for (method, uri, content_type, verb, kind, subresource, ends) in [
            ("GET", pods.to_owned(), "", "LIST", Some(Kind::Pod), "", true),
            ("GET", format!("{pods}?watch=1"), "", "WATCH", Some(Kind::Pod), "", false),
            ("GET", format!("{pods}/p"), "", "GET", Some(Kind::Pod), "", true),
            ("POST", pods.to_owned(), "", "POST", Some(Kind::Pod), "", true),
            ("PATCH", format!("{pods}/p/status"), "", "PATCH", Some(Kind::Pod), "status", true),
            ("PATCH", format!("{pods}/p"), APPLY, "APPLY", Some(Kind::Pod), "", true),
            ("DELETE", pods.to_owned(), "", "DELETECOLLECTION", Some(Kind::Pod), "", true),
            ("GET", format!("{pods}/p/log"), "", "GET", Some(Kind::Pod), "log", false),
            ("POST", format!("{pods}/p/exec"), "", "CONNECT", Some(Kind::Pod), "exec", false),
            ("GET", format!("{pods}/p/proxy/x"), "", "CONNECT", Some(Kind::Pod), "proxy", false),
            ("GET", format!("{pods}/p/made-up"), "", "GET", Some(Kind::Pod), "", true),
            ("GET", "/readyz".to_owned(), "", "GET", None, "", true),
            ("BREW", "/apis/x/v1/ys".to_owned(), "", "other", None, "", true),
        ] {
            assert_eq!(asked(method, &uri, content_type), (Asked { verb, kind, subresource }, ends), "{method} {uri}");
        }
    }

    #[test]
    fn counts_are_told_as_prometheus_reads_them() {
        let tally = Tally::default();
        let list = Asked { verb: "LIST", kind: Some(Kind::Deployment), subresource: "" };
        for (code, milliseconds) in [(200, 3), (200, 300), (429, 60_000), (799, 1)] {
            tally.note(list, StatusCode::from_u16(code).unwrap(), Some(Duration::from_millis(milliseconds)));
        }
        tally.note(Asked { verb: "WATCH", ..list }, StatusCode::OK, None);
        let held = (tally.begin(&Method::GET), tally.begin(&Method::PUT), tally.watch());
        drop((tally.begin(&Method::PUT), tally.watch()));
        let labels = "group=\"apps\",version=\"v1\",resource=\"deployments\",subresource=\"\"";
        let text = tally.text();
        for line in [
            format!("apiserver_request_total{{verb=\"LIST\",{labels},code=\"200\"}} 2"),
            format!("apiserver_request_total{{verb=\"LIST\",{labels},code=\"429\"}} 1"),
            format!("apiserver_request_total{{verb=\"LIST\",{labels},code=\"700\"}} 1"),
            format!("apiserver_request_total{{verb=\"WATCH\",{labels},code=\"200\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{verb=\"LIST\",{labels},le=\"0.005\"}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{verb=\"LIST\",{labels},le=\"0.4\"}} 3"),
            format!("apiserver_request_duration_seconds_bucket{{verb=\"LIST\",{labels},le=\"30\"}} 3"),
            format!("apiserver_request_duration_seconds_bucket{{verb=\"LIST\",{labels},le=\"+Inf\"}} 4"),
            format!("apiserver_request_duration_seconds_sum{{verb=\"LIST\",{labels}}} 60.304"),
            format!("apiserver_request_duration_seconds_count{{verb=\"LIST\",{labels}}} 4"),
            "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1".to_owned(),
            "apiserver_current_inflight_requests{request_kind=\"mutating\"} 1".to_owned(),
            "apiserver_longrunning_requests{verb=\"WATCH\"} 1".to_owned(),
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
        }
        assert!(!text.contains("duration_seconds_count{verb=\"WATCH\""), "{text}");
        drop(held);
        assert!(tally.text().contains("apiserver_longrunning_requests{verb=\"WATCH\"} 0\n"));
    }

    #[test]
    fn rows_have_an_end() {
        let tally = Tally::default();
        let numbers = (0..MOST + 50).map(|number| &*Box::leak(number.to_string().into_boxed_str()));
        numbers.for_each(|verb| tally.note(Asked { verb, kind: Some(Kind::Pod), subresource: "" }, StatusCode::OK, None));
        tally.note(Asked { verb: "0", kind: Some(Kind::Pod), subresource: "" }, StatusCode::OK, None);
        let text = tally.text();
        assert!(text.contains("verb=\"0\",group=\"\",version=\"v1\",resource=\"pods\",subresource=\"\",code=\"200\"} 2\n"));
        assert!(text.contains("verb=\"1049\",group=\"\",version=\"\",resource=\"\",subresource=\"\",code=\"200\"} 1\n"));
    }
}
