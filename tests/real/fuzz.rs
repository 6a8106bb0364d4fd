//! The fuzz targets on the stable toolchain: each over its seeds and some changed ones. `make fuzz` looks longer, and where
//! the code leads.

#[path = "../fuzz/seeds.rs"]
mod seeds;
#[path = "../fuzz/targets.rs"]
mod targets;

use proptest::prelude::*;

/// Of each target; `PROPTEST_CASES` for more.
const CASES: u32 = 300;

/// A change: what, where (as a part of all), with which byte.
type Change = (u8, u16, u8);

fn changed(seed: &[u8], other: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (what, at, value) in changes {
        let at = usize::from(*at) * bytes.len() / (usize::from(u16::MAX) + 1);
        let end = bytes.len().min(at + usize::from(*value) + 1);
        match what % 7 {
            0 => bytes.insert(at, *value),
            1 if at < bytes.len() => bytes[at] = *value,
            2 if at < bytes.len() => bytes[at] ^= 1 << (value % 8),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.extend_from_within(at..end),
            5 => bytes.truncate(at),
            _ => bytes.extend_from_slice(&other[other.len().min(at)..]),
        }
    }
    bytes
}

#[test]
fn no_seed_nor_what_becomes_of_it_breaks_a_target() {
    for target in &targets::TARGETS {
        let seeds = seeds::of(target.name);
        seeds.iter().for_each(|seed| (target.run)(seed));
        let index = any::<prop::sample::Index>;
        let cases = (index(), index(), prop::collection::vec(any::<Change>(), 1..8));
        let mut config = ProptestConfig::default();
        if std::env::var_os("PROPTEST_CASES").is_none() {
            config.cases = CASES;
        }
        let mut runner = prop::test_runner::TestRunner::new(config);
        let outcome = runner.run(&cases, |(seed, other, changes)| {
            (target.run)(&changed(&seeds[seed.index(seeds.len())], &seeds[other.index(seeds.len())], &changes));
            Ok(())
        });
        assert!(outcome.is_ok(), "{}: {}", target.name, outcome.unwrap_err());
    }
}

/// What was found once stays mended: bytes that broke a target.
#[test]
fn what_broke_a_target_once_does_not_again() {
    let found: [(&str, &[u8]); 0] = [];
    for (name, bytes) in found {
        let target = targets::TARGETS.iter().find(|target| target.name == name).expect("a target");
        (target.run)(bytes);
    }
}
