//! Who may hold a connection, and whose is closed when there are too many. PURE.
//!
//! A newcomer always gets in: what it displaces is the oldest connection of the party that has too
//! many. So nobody waits for somebody else's connections to end, however many those are.

use std::collections::BTreeMap;

/// Connections by party: an address, or the name on a certificate.
#[derive(Debug)]
pub struct Places<P> {
    total: usize,
    each: usize,
    held: BTreeMap<u64, Held<P>>,
    counts: BTreeMap<P, usize>,
}

#[derive(Debug)]
struct Held<P> {
    party: P,
    /// It has had its chance to show a certificate: the first to go.
    settled: bool,
}

impl<P: Ord + Clone> Places<P> {
    /// `total` connections, of one party at most `each`.
    pub fn new(total: usize, each: usize) -> Self {
        Self { total: total.max(1), each: each.max(1), held: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// A new connection under a number never used before; the one to close for it. Whoever is
    /// displaced has left already.
    pub fn enter(&mut self, id: u64, party: P) -> Option<u64> {
        let own = self.counts.get(&party).copied().unwrap_or(0);
        let crowd = if own >= self.each {
            Some(party.clone())
        } else if self.held.len() >= self.total {
            self.counts.iter().max_by_key(|(_, count)| **count).map(|(party, _)| party.clone())
        } else {
            None
        };
        let displaced = crowd.and_then(|crowd| self.first_of(&crowd));
        if let Some(displaced) = displaced {
            self.leave(displaced);
        }
        *self.counts.entry(party.clone()).or_insert(0) += 1;
        self.held.insert(id, Held { party, settled: false });
        displaced
    }

    fn first_of(&self, party: &P) -> Option<u64> {
        let of_party = self.held.iter().filter(|(_, held)| held.party == *party);
        of_party.min_by_key(|(id, held)| (!held.settled, **id)).map(|(id, _)| *id)
    }

    /// The connection came without a certificate.
    pub fn settle(&mut self, id: u64) {
        if let Some(held) = self.held.get_mut(&id) {
            held.settled = true;
        }
    }

    /// A connection ended. Again is harmless.
    pub fn leave(&mut self, id: u64) {
        let Some(held) = self.held.remove(&id) else { return };
        if let Some(count) = self.counts.get_mut(&held.party) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&held.party);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_displaces_the_oldest_of_its_own_party() {
        let mut places = Places::new(100, 2);
        assert_eq!(places.enter(1, "a"), None);
        assert_eq!(places.enter(2, "b"), None);
        assert_eq!(places.enter(3, "a"), None);
        assert_eq!(places.enter(4, "a"), Some(1));
        assert_eq!(places.enter(5, "b"), None, "others have their own");
    }

    #[test]
    fn when_all_places_are_taken_the_largest_party_gives_way() {
        let mut places = Places::new(4, 3);
        for (id, party) in [(1, "few"), (2, "many"), (3, "many"), (4, "many")] {
            assert_eq!(places.enter(id, party), None);
        }
        assert_eq!(places.enter(5, "new"), Some(2));
        assert_eq!(places.enter(6, "other"), Some(3));
    }

    #[test]
    fn who_has_shown_no_certificate_goes_before_who_is_still_shaking_hands() {
        let mut places = Places::new(100, 2);
        places.enter(1, "a");
        places.enter(2, "a");
        places.settle(2);
        assert_eq!(places.enter(3, "a"), Some(2));
    }

    #[test]
    fn who_leaves_makes_room_once() {
        let mut places = Places::new(1, 1);
        places.enter(1, "a");
        places.leave(1);
        places.leave(1);
        assert_eq!(places.enter(2, "b"), None);
        assert_eq!(places.enter(3, "c"), Some(2));
        places.leave(2);
        assert_eq!(places.enter(4, "c"), Some(3));
    }
}
