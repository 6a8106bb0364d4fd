//! The only source of `now`.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use crate::model::Timestamp;

/// Wall-clock time. Pure code never sees a clock, only the time it read.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;

    /// A time that nobody sets: what the wall clock said when this process first asked, and what has passed since. For
    /// how long something has lasted by this process' own reckoning; another process' steady time is another one.
    fn steady(&self) -> Timestamp {
        self.now()
    }
}

/// The host's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

/// Where [`SystemClock::steady`] began to count: on both clocks.
static BEGINNING: LazyLock<(Timestamp, Instant)> = LazyLock::new(|| (Timestamp::now(), Instant::now()));

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn steady(&self) -> Timestamp {
        let (began, instant) = *BEGINNING;
        began.checked_add(instant.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct VirtualClock(Mutex<Times>);

#[derive(Debug, Clone, Copy)]
struct Times {
    wall: Timestamp,
    steady: Timestamp,
}

impl VirtualClock {
    pub fn new(start: Timestamp) -> Self {
        Self(Mutex::new(Times { wall: start, steady: start }))
    }

    /// Time passes until `to`, never backwards.
    pub fn advance_to(&self, to: Timestamp) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = to.max(times.wall).duration_since(times.wall);
        *times = Times { wall: to.max(times.wall), steady: times.steady.checked_add(passed).unwrap_or(Timestamp::MAX) };
    }

    /// Somebody sets the wall clock, forwards or backwards: no time passes.
    pub fn set(&self, to: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wall = to;
    }

    fn times(&self) -> Times {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.times().wall
    }

    fn steady(&self) -> Timestamp {
        self.times().steady
    }
}
