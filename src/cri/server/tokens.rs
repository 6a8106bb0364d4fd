//! What a caller may have at the streaming server, once and for a short time. PURE.

use std::collections::BTreeMap;
use std::time::Duration;

/// From the answer on the socket until its caller comes.
const LIFE: Duration = Duration::from_secs(60);
/// Callers that were answered and have not come.
const LIMIT: usize = 1000;

/// Tokens that were given out. Times are measured from any one moment.
#[derive(Debug)]
pub struct Tokens<T>(BTreeMap<String, (Duration, T)>);

impl<T> Default for Tokens<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Tokens<T> {
    /// Says whether there was room for it. `place` is a path's end: the verb and a token nobody can guess.
    pub fn put(&mut self, place: String, wanted: T, now: Duration) -> bool {
        if self.0.len() >= LIMIT {
            self.0.retain(|_, (until, _)| *until > now);
        }
        let room = self.0.len() < LIMIT;
        if room {
            self.0.insert(place, (now + LIFE, wanted));
        }
        room
    }

    /// What it stands for; never twice.
    pub fn take(&mut self, place: &str, now: Duration) -> Option<T> {
        self.0.remove(place).filter(|(until, _)| *until > now).map(|(_, wanted)| wanted)
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
        assert!(tokens.put("exec/a".into(), "it", at(0)) && tokens.put("exec/b".into(), "it", at(0)));
        assert_eq!(tokens.take("attach/a", at(1)), None);
        assert_eq!(tokens.take("exec/a", at(59)), Some("it"));
        assert_eq!(tokens.take("exec/a", at(59)), None);
        assert_eq!(tokens.take("exec/b", at(60)), None);
    }

    #[test]
    fn tokens_that_nobody_comes_for_are_bounded() {
        let mut tokens = Tokens::default();
        for number in 0..LIMIT {
            assert!(tokens.put(number.to_string(), "it", at(0)));
        }
        assert!(!tokens.put("one more".into(), "it", at(59)));
        assert!(tokens.put("later".into(), "it", at(60)));
        assert_eq!(tokens.0.len(), 1);
    }
}
