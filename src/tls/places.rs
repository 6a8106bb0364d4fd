//! Who may hold a connection, and whose is closed when there are too many. PURE.
//!
//! A newcomer always gets in: what it displaces is the oldest connection of the party that has too
//! many. So nobody waits for somebody else's connections to end, however many those are. Who is still
//! shaking hands displaces only its like: a thousand clients of one address that come at once, as
//! after a restart of the server, all get through.

use std::collections::BTreeMap;

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Connections that stay.
    pub total: usize,
    /// Of these, of one party.
    pub each: usize,
    /// Connections that still shake hands, of all parties together.
    pub arriving: usize,
}

/// Connections by party: an address, or the name on a certificate.
#[derive(Debug)]
pub struct Places<P> {
    bound: Bound,
    arriving: Crowd<P>,
    settled: Crowd<P>,
}

/// Connections in the order in which they came.
#[derive(Debug)]
struct Crowd<P> {
    held: BTreeMap<u64, P>,
    counts: BTreeMap<P, usize>,
}

impl<P: Ord + Clone> Crowd<P> {
    const fn new() -> Self {
        Self { held: BTreeMap::new(), counts: BTreeMap::new() }
    }

    fn enter(&mut self, id: u64, party: P) {
        *self.counts.entry(party.clone()).or_insert(0) += 1;
        self.held.insert(id, party);
    }

    fn leave(&mut self, id: u64) -> Option<P> {
        let party = self.held.remove(&id)?;
        if let Some(count) = self.counts.get_mut(&party) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&party);
            }
        }
        Some(party)
    }

    /// Takes out the oldest of this party, or of the largest.
    fn displace(&mut self, party: Option<&P>) -> Option<u64> {
        let largest = || self.counts.iter().max_by_key(|(_, count)| **count).map(|(party, _)| party);
        let party = party.or_else(largest)?;
        let oldest = self.held.iter().find(|(_, held)| *held == party).map(|(id, _)| *id)?;
        self.leave(oldest);
        Some(oldest)
    }
}

impl<P: Ord + Clone> Places<P> {
    pub const fn new(bound: Bound) -> Self {
        Self { bound, arriving: Crowd::new(), settled: Crowd::new() }
    }

    /// A new connection under a number never used before; the one to close for it. Whoever is
    /// displaced has left already.
    pub fn enter(&mut self, id: u64, party: P) -> Option<u64> {
        let full = self.arriving.held.len() >= self.bound.arriving.max(1);
        let displaced = if full { self.arriving.displace(None) } else { None };
        self.arriving.enter(id, party);
        displaced
    }

    /// The connection has shaken hands and stays; the one to close for it.
    pub fn settle(&mut self, id: u64) -> Option<u64> {
        let party = self.arriving.leave(id)?;
        let own = self.settled.counts.get(&party).copied().unwrap_or(0);
        let displaced = if own >= self.bound.each.max(1) {
            self.settled.displace(Some(&party))
        } else if self.settled.held.len() >= self.bound.total.max(1) {
            self.settled.displace(None)
        } else {
            None
        };
        self.settled.enter(id, party);
        displaced
    }

    /// A connection ended. Again is harmless.
    pub fn leave(&mut self, id: u64) {
        if self.arriving.leave(id).is_none() {
            self.settled.leave(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(total: usize, each: usize, arriving: usize) -> Places<&'static str> {
        Places::new(Bound { total, each, arriving })
    }

    /// Comes and stays.
    fn stay(places: &mut Places<&'static str>, id: u64, party: &'static str) -> Option<u64> {
        assert_eq!(places.enter(id, party), None);
        places.settle(id)
    }

    #[test]
    fn a_newcomer_displaces_the_oldest_of_its_own_party() {
        let mut places = places(100, 2, 100);
        assert_eq!(stay(&mut places, 1, "a"), None);
        assert_eq!(stay(&mut places, 2, "b"), None);
        assert_eq!(stay(&mut places, 3, "a"), None);
        assert_eq!(stay(&mut places, 4, "a"), Some(1));
        assert_eq!(stay(&mut places, 5, "b"), None, "others have their own");
    }

    #[test]
    fn when_all_places_are_taken_the_largest_party_gives_way() {
        let mut places = places(4, 3, 100);
        for (id, party) in [(1, "few"), (2, "many"), (3, "many"), (4, "many")] {
            assert_eq!(stay(&mut places, id, party), None);
        }
        assert_eq!(stay(&mut places, 5, "new"), Some(2));
        assert_eq!(stay(&mut places, 6, "other"), Some(3));
    }

    #[test]
    fn a_crowd_that_arrives_at_once_displaces_none_of_its_own() {
        let mut places = places(100, 2, 50);
        for id in 0..50 {
            assert_eq!(places.enter(id, "a"), None);
        }
        assert_eq!(places.enter(50, "b"), Some(0), "the largest party gives way");
        assert_eq!(places.settle(1), None);
        assert_eq!(places.settle(2), None);
        assert_eq!(places.settle(3), Some(1));
        assert_eq!(places.settle(0), None, "it has left");
    }

    #[test]
    fn who_leaves_makes_room_once() {
        let mut places = places(1, 1, 1);
        places.enter(1, "a");
        places.leave(1);
        places.leave(1);
        assert_eq!(stay(&mut places, 2, "b"), None);
        assert_eq!(stay(&mut places, 3, "c"), Some(2));
        places.leave(2);
        assert_eq!(places.enter(4, "c"), None);
        assert_eq!(places.enter(5, "c"), Some(4));
    }
}
