//! What a caller may have at the streaming server, once and for a short time. PURE.

use std::collections::BTreeMap;
use std::time::Duration;

/// From the answer on the socket until its caller comes.
const LIFE: Duration = Duration::from_secs(60);
/// Callers that were answered and have not come.
const LIMIT: usize = 1000;
/// What they want, together: commands may be long.
const LIMIT_BYTES: usize = 32 << 20;

/// Tokens that were given out. Times are measured from any one moment.
#[derive(Debug)]
pub struct Tokens<T>(BTreeMap<String, Given<T>>);

#[derive(Debug)]
struct Given<T> {
    until: Duration,
    bytes: usize,
    wanted: T,
}

impl<T> Default for Tokens<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Tokens<T> {
    /// Says whether there was room for it, which takes so many bytes. `place` is a path's end: the verb and a token nobody
    /// can guess.
    pub fn put(&mut self, place: String, wanted: T, bytes: usize, now: Duration) -> bool {
        self.0.retain(|_, given| given.until > now);
        let held: usize = self.0.values().map(|given| given.bytes).sum();
        let room = self.0.len() < LIMIT && held + bytes <= LIMIT_BYTES;
        if room {
            self.0.insert(place, Given { until: now + LIFE, bytes, wanted });
        }
        room
    }

    /// What it stands for; never twice.
    pub fn take(&mut self, place: &str, now: Duration) -> Option<T> {
        self.0.remove(place).filter(|given| given.until > now).map(|given| given.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let mut tokens = Tokens::default();
        assert!(tokens.put("exec/a".into(), "it", 1, at(0)) && tokens.put("exec/b".into(), "it", 1, at(0)));
        assert_eq!(tokens.take("attach/a", at(1)), None);
        assert_eq!(tokens.take("exec/a", at(59)), Some("it"));
        assert_eq!(tokens.take("exec/a", at(59)), None);
        assert_eq!(tokens.take("exec/b", at(60)), None);
    }

    #[test]
    fn tokens_that_nobody_comes_for_are_bounded() {
        let mut tokens = Tokens::default();
        for number in 0..LIMIT {
            assert!(tokens.put(number.to_string(), "it", 1, at(0)));
        }
        assert!(!tokens.put("one more".into(), "it", 1, at(59)));
        assert!(tokens.put("later".into(), "it", LIMIT_BYTES - 1, at(60)));
        assert_eq!(tokens.0.len(), 1);
        assert!(tokens.put("short".into(), "it", 1, at(60)));
        assert!(!tokens.put("long".into(), "it", 1, at(60)), "there is room for no more bytes");
        assert!(tokens.take("later", at(61)).is_some() && tokens.put("long".into(), "it", LIMIT_BYTES - 1, at(61)));
    }
}
