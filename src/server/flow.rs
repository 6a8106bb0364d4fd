//! Which requests are carried out at once and which wait: seats in the manner of Kubernetes' priority and fairness. Nodes,
//! administrators, everybody else and strangers have seats of their own, and of these nobody has more than half, so that one who
//! asks much keeps neither the nodes from telling what runs nor the others from asking.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
use super::request::{Query, Target, Verb};
use super::{Identity, ServerState};

/// Seats of nodes, administrators, others, strangers; each sums up to what two cores can have under way.
const SEATS: [u32; 4] = [200, 100, 100, 20];
/// Users are dealt out to so many shares by a hash of their names; two in one share this half between them.
const SHARES: usize = 32;
/// Requests of a class that may wait; more are refused at once.
const QUEUE: usize = 500;
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
    shares: Vec<Arc<Semaphore>>,
    waiting: AtomicUsize,
    half: u32,
}

/// A request under way. Leaving it gives the seats back.
pub struct Seat {
    _share: OwnedSemaphorePermit,
    _seats: OwnedSemaphorePermit,
}

impl Default for Flow {
    fn default() -> Self {
        Self { classes: SEATS.map(Class::new) }
    }
}

impl Class {
    fn new(seats: u32) -> Self {
        let semaphore = |count: u32| Arc::new(Semaphore::new(count as usize));
        let half = seats / 2;
        Self { seats: semaphore(seats), shares: (0..SHARES).map(|_| semaphore(half)).collect(), waiting: AtomicUsize::new(0), half }
    }

    /// `None`: too many wait already, or it waited too long.
    async fn seat(&self, user: &str, width: u32) -> Option<Seat> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let _waiting = Waiting(&self.waiting);
        let width = width.min(self.half);
        let wait = async {
            let share = Arc::clone(&self.shares[share(user)]).acquire_many_owned(width).await.ok()?;
            let seats = Arc::clone(&self.seats).acquire_many_owned(width).await.ok()?;
            Some(Seat { _share: share, _seats: seats })
        };
        tokio::time::timeout(PATIENCE, wait).await.ok().flatten()
    }
}

/// Counts one that waits, also when its client goes away meanwhile.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn share(user: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARES as u64).unwrap_or(0)
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
        _ => (3, ""),
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

fn width_of(request: &Request<Body>, state: &ServerState) -> u32 {
    let (Some(target), Ok(query)) = (Target::parse(request.uri().path()), Query::parse(request.uri())) else { return 1 };
    let Some(verb) = Verb::of(request.method(), &target, &query) else { return 1 };
    let limit = query.get("limit").and_then(|text| text.parse().ok());
    // No more are counted than make a difference.
    let stored = state.store.snapshot().list(target.kind).take(OBJECTS_A_SEAT * WIDEST as usize).count();
    width(verb, limit, stored)
}

/// Lets the request through when there is a seat for it, or answers 429. A watch, a log that is followed or a session gives its
/// seat back once it has begun.
pub async fn flow(State(state): State<Arc<ServerState>>, request: Request<Body>, next: Next) -> Response {
    if EXEMPT.iter().any(|path| request.uri().path().starts_with(path)) {
        return next.run(request).await;
    }
    let (index, user) = class(caller(request.extensions()));
    let seat = state.flow.classes[index].seat(user, width_of(&request, &state)).await;
    if seat.is_none() {
        return busy();
    }
    next.run(request).await
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
        let class = Class::new(4);
        let others = ["a", "b", "c", "d", "e"];
        let other = *others.iter().find(|user| share(user) != share("noisy")).expect("a user of another share");
        let held: Vec<Seat> = [class.seat("noisy", 1).await, class.seat("noisy", 1).await].into_iter().flatten().collect();
        assert_eq!(held.len(), 2);
        assert!(class.seat("noisy", 1).now_or_never().is_none(), "a third one waits");
        let quiet = class.seat(other, 1).now_or_never().flatten();
        assert!(quiet.is_some());
        drop(held);
        assert!(class.seat("noisy", 1).now_or_never().flatten().is_some());
        assert_eq!(class.waiting.load(Ordering::Relaxed), 0, "who went away waits no longer");
    }

    #[tokio::test]
    async fn classes_do_not_wait_for_each_other() {
        let flow = Flow::default();
        let _held = flow.classes[1].seat("admin", u32::MAX).await.expect("a seat");
        assert!(flow.classes[1].seat("admin", 1).now_or_never().is_none());
        assert!(flow.classes[0].seat("system:node:a", 1).now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn who_finds_too_many_waiting_is_refused_at_once() {
        let class = Class::new(2);
        let _held = class.seat("a", 1).await.expect("a seat");
        let mut waiting: Vec<_> = (0..QUEUE).map(|_| Box::pin(class.seat("a", 1))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(class.seat("a", 1).now_or_never().is_some_and(|seat| seat.is_none()));
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
