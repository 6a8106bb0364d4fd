//! Which requests are carried out at once and which wait: seats in the manner of Kubernetes' priority and fairness. Nodes,
//! administrators, everybody else and strangers have seats of their own, and of these no user has more than half, so that one who
//! asks much keeps neither the nodes from telling what runs nor the others from asking.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Request, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fault::Fault;
use super::gate::Actor;
use super::identity::ANONYMOUS;
use super::proxy::streams::Stream;
use super::request::{Query, Target, Verb};
use super::{Identity, ServerState, proxy};

/// Seats of nodes, administrators, others, strangers; each sums up to what two cores can have under way.
const SEATS: [u32; 4] = [200, 100, 100, 50];
/// What `/metrics` calls them.
const NAMES: [&str; 4] = ["node", "administrator", "user", "anonymous"];
/// Strangers have no names by which one could be told from another: there is no half for each.
const STRANGERS: usize = 3;
/// Requests of one user that may wait; more are refused at once.
const QUEUE: usize = 200;
/// How long one waits: a quarter of what clients commonly wait themselves.
const PATIENCE: Duration = Duration::from_secs(15);
/// Objects a list may have for each further seat it takes, and the most it takes.
const OBJECTS_A_SEAT: usize = 500;
const WIDEST: u32 = 10;
/// Whether the server lives is told however busy it is.
const EXEMPT: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// The seats of all classes.
pub struct Flow {
    classes: [Class; 4],
}

struct Class {
    seats: Arc<Semaphore>,
    /// Requests that were refused: too many waited, or it waited too long.
    refused: [AtomicUsize; 2],
    /// What one user may have of them.
    share: u32,
    patience: Duration,
    /// Those who have a seat or wait for one.
    users: Mutex<HashMap<String, Arc<User>>>,
}

struct User {
    seats: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A request under way. Dropping it gives the seats back.
struct Seat<'a> {
    _of_user: OwnedSemaphorePermit,
    _of_class: OwnedSemaphorePermit,
    _presence: Presence<'a>,
}

/// A user is known for as long as there is one of these.
struct Presence<'a> {
    class: &'a Class,
    name: String,
    user: Arc<User>,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        let mut users = self.class.users.lock().unwrap_or_else(PoisonError::into_inner);
        // The table's and this one.
        if Arc::strong_count(&self.user) <= 2 {
            users.remove(&self.name);
        }
    }
}

/// Counts one that waits, also when its client goes away meanwhile.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Flow {
    fn default() -> Self {
        let share = |index: usize| if index == STRANGERS { SEATS[index] } else { SEATS[index] / 2 };
        Self { classes: std::array::from_fn(|index| Class::new(SEATS[index], share(index))) }
    }
}

impl Class {
    fn new(seats: u32, share: u32) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(seats as usize)),
            refused: Default::default(),
            share,
            patience: PATIENCE,
            users: Mutex::default(),
        }
    }

    fn presence(&self, name: &str) -> Presence<'_> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(User { seats: Arc::new(Semaphore::new(self.share as usize)), waiting: AtomicUsize::new(0) });
        let user = Arc::clone(users.entry(name.to_owned()).or_insert_with(new));
        Presence { class: self, name: name.to_owned(), user }
    }

    /// `None`: too many of this user wait already, or it waited too long.
    async fn seat(&self, name: &str, width: u32) -> Option<Seat<'_>> {
        let presence = self.presence(name);
        let width = width.min(self.share);
        let user = Arc::clone(&presence.user);
        if user.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            user.waiting.fetch_sub(1, Ordering::Relaxed);
            self.refused[0].fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let _waiting = Waiting(&user.waiting);
        let wait = async {
            let of_user = Arc::clone(&user.seats).acquire_many_owned(width).await.ok()?;
            let of_class = Arc::clone(&self.seats).acquire_many_owned(width).await.ok()?;
            Some(Seat { _of_user: of_user, _of_class: of_class, _presence: presence })
        };
        let seat = tokio::time::timeout(self.patience, wait).await.ok().flatten();
        if seat.is_none() {
            self.refused[1].fetch_add(1, Ordering::Relaxed);
        }
        seat
    }

    fn waiting(&self) -> usize {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.values().map(|user| user.waiting.load(Ordering::Relaxed)).sum()
    }
}

impl Flow {
    /// In Prometheus' text format, by the names of Kubernetes' priority and fairness: a class is a priority level.
    pub fn text(&self) -> String {
        let (mut refused, mut waiting, mut seats, mut taken) = (String::new(), String::new(), String::new(), String::new());
        for ((class, name), all) in self.classes.iter().zip(NAMES).zip(SEATS) {
            let label = format!("priority_level=\"{name}\"");
            // Writing to a String cannot fail.
            for (reason, count) in ["queue-full", "time-out"].iter().zip(&class.refused) {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(refused, "apiserver_flowcontrol_rejected_requests_total{{{label},reason=\"{reason}\"}} {count}");
            }
            let free = class.seats.available_permits();
            let _ = writeln!(waiting, "apiserver_flowcontrol_current_inqueue_requests{{{label}}} {}", class.waiting());
            let _ = writeln!(seats, "apiserver_flowcontrol_nominal_limit_seats{{{label}}} {all}");
            let _ = writeln!(taken, "apiserver_flowcontrol_current_executing_seats{{{label}}} {}", (all as usize).saturating_sub(free));
        }
        format!(
            "# HELP apiserver_flowcontrol_rejected_requests_total Requests answered with 429.\n\
             # TYPE apiserver_flowcontrol_rejected_requests_total counter\n{refused}\
             # HELP apiserver_flowcontrol_current_inqueue_requests Requests that wait for seats.\n\
             # TYPE apiserver_flowcontrol_current_inqueue_requests gauge\n{waiting}\
             # HELP apiserver_flowcontrol_nominal_limit_seats Seats there are.\n\
             # TYPE apiserver_flowcontrol_nominal_limit_seats gauge\n{seats}\
             # HELP apiserver_flowcontrol_current_executing_seats Seats that are taken.\n\
             # TYPE apiserver_flowcontrol_current_executing_seats gauge\n{taken}"
        )
    }
}

/// Who asks: not whom they act as.
fn caller(extensions: &http::Extensions) -> Option<&Identity> {
    extensions.get::<Actor>().map(|actor| &actor.0).or_else(|| extensions.get::<Identity>())
}

/// The index of the caller's class, and its name.
fn class(identity: Option<&Identity>) -> (usize, &str) {
    match identity {
        Some(identity) if identity.node_name().is_some() => (0, &identity.user),
        Some(identity) if identity.is_admin() => (1, &identity.user),
        Some(identity) if identity.user != ANONYMOUS => (2, &identity.user),
        _ => (STRANGERS, ""),
    }
}

/// Seats that a request takes. `stored`: how many objects of its kind there are.
fn width(verb: Verb, limit: Option<usize>, stored: usize) -> u32 {
    match verb {
        Verb::List | Verb::DeleteCollection => {
            let objects = limit.filter(|limit| *limit > 0).map_or(stored, |limit| limit.min(stored));
            u32::try_from(1 + objects / OBJECTS_A_SEAT).unwrap_or(WIDEST).min(WIDEST)
        }
        _ => 1,
    }
}

/// `None`: it takes none. A session, a log or what is proxied waits for its other end for as long as it likes.
fn width_of(request: &Request<Body>, state: &ServerState) -> Option<u32> {
    let snapshot = state.store.snapshot();
    let target = Target::parse(request.uri().path(), snapshot.definitions());
    if target.as_ref().is_some_and(|target| Stream::of(target).is_some() || proxy::relay::is_for(target)) {
        return None;
    }
    let (Some(target), Ok(query)) = (target, Query::parse(request.uri())) else { return Some(1) };
    match Verb::of(request.method(), &target, &query) {
        Some(verb @ (Verb::List | Verb::DeleteCollection)) => {
            let limit = query.get("limit").and_then(|text| text.parse().ok());
            // No more are counted than make a difference.
            let stored = snapshot.list(target.kind).take(OBJECTS_A_SEAT * WIDEST as usize).count();
            Some(width(verb, limit, stored))
        }
        _ => Some(1),
    }
}

/// Lets the request through when there is a seat for it, or answers 429. A watch gives its seat back once it has begun.
pub async fn flow(State(state): State<Arc<ServerState>>, request: Request<Body>, next: Next) -> Response {
    let is_exempt = EXEMPT.iter().any(|path| request.uri().path().starts_with(path));
    let Some(width) = width_of(&request, &state).filter(|_| !is_exempt) else { return next.run(request).await };
    let (index, user) = class(caller(request.extensions()));
    let (class, user) = (&state.flow.classes[index], user.to_owned());
    match class.seat(&user, width).await {
        Some(_seat) => {
            let _counted = state.tally.begin(request.method());
            next.run(request).await
        }
        None => busy(),
    }
}

fn busy() -> Response {
    let mut fault = Fault::new(429, "TooManyRequests", "too many requests, please try again later");
    fault.details = serde_json::json!({"retryAfterSeconds": 1});
    let mut response = fault.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_user_has_half_of_the_seats_and_a_class_all_of_them() {
        let class = Class::new(4, 2);
        let held = [class.seat("noisy", 1).await, class.seat("noisy", 1).await];
        assert!(class.seat("noisy", 1).now_or_never().is_none(), "a third one waits");
        assert!(class.seat("quiet", 1).now_or_never().flatten().is_some());
        drop(held);
        assert!(class.seat("noisy", 1).now_or_never().flatten().is_some());
        assert!(class.users.lock().expect("a table").is_empty(), "who has gone is forgotten");
    }

    #[tokio::test]
    async fn classes_do_not_wait_for_each_other() {
        let flow = Flow::default();
        let _held = flow.classes[1].seat("admin", u32::MAX).await.expect("a seat");
        assert!(flow.classes[1].seat("admin", 1).now_or_never().is_none());
        assert!(flow.classes[0].seat("system:node:a", 1).now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn who_has_too_many_waiting_is_refused_at_once_and_nobody_else() {
        let class = Class::new(4, 2);
        let _held = class.seat("noisy", 2).await.expect("a seat");
        let mut waiting: Vec<_> = (0..QUEUE).map(|_| Box::pin(class.seat("noisy", 1))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(class.seat("noisy", 1).now_or_never().is_some_and(|seat| seat.is_none()));
        assert!(class.seat("quiet", 1).now_or_never().flatten().is_some());
        assert_eq!((class.waiting(), class.refused[0].load(Ordering::Relaxed)), (QUEUE, 1));
    }

    #[tokio::test]
    async fn who_waited_and_who_was_refused_is_told() {
        let mut flow = Flow::default();
        flow.classes[2].patience = Duration::ZERO;
        let _all = flow.classes[2].seat("jane", u32::MAX).await.expect("a seat");
        assert!(flow.classes[2].seat("jane", 1).await.is_none(), "its patience ends");
        let held = flow.classes[1].seat("admin", u32::MAX).await.expect("a seat");
        let mut waits = Box::pin(flow.classes[1].seat("admin", 1));
        assert!(waits.as_mut().now_or_never().is_none());
        let text = flow.text();
        for line in [
            "apiserver_flowcontrol_rejected_requests_total{priority_level=\"user\",reason=\"queue-full\"} 0",
            "apiserver_flowcontrol_rejected_requests_total{priority_level=\"user\",reason=\"time-out\"} 1",
            "apiserver_flowcontrol_rejected_requests_total{priority_level=\"administrator\",reason=\"time-out\"} 0",
            "apiserver_flowcontrol_current_inqueue_requests{priority_level=\"administrator\"} 1",
            "apiserver_flowcontrol_current_inqueue_requests{priority_level=\"user\"} 0",
            "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"administrator\"} 100",
            "apiserver_flowcontrol_current_executing_seats{priority_level=\"administrator\"} 50",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
        }
        drop((waits, held));
        assert!(flow.text().contains("executing_seats{priority_level=\"administrator\"} 0\n"));
    }

    #[test]
    fn long_lists_take_more_seats() {
        for (verb, limit, stored, seats) in [
            (Verb::Get, None, 100_000, 1),
            (Verb::List, None, 499, 1),
            (Verb::List, None, 2_000, 5),
            (Verb::List, Some(500), 2_000, 2),
            (Verb::List, Some(0), 100_000, WIDEST),
            (Verb::Watch, None, 100_000, 1),
        ] {
            assert_eq!(width(verb, limit, stored), seats, "{verb:?} {limit:?} {stored}");
        }
    }
}
