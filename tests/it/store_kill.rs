//! Kills a process with SIGKILL in the middle of its commits, dozens of times, and looks for every
//! transaction it had acknowledged.
//!
//! The child is this test binary run again with the name of the one test and a variable set. It
//! says on its standard output what was acknowledged; the parent believes nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podbay::clock::SystemClock;
use podbay::model::{Key, Kind, Object};
use podbay::store::disk::{DiskStore, Options};
use podbay::store::{Precondition, Store, Transaction, Write};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const VARIABLE: &str = "PODBAY_STORE_KILL_CHILD";
const TEST: &str = "store_kill::what_was_acknowledged_survives_sigkill";
const ROUNDS: usize = 40;
const COMMITS: usize = 4_000;
const WRITERS: u64 = 8;

fn open(path: &Path) -> DiskStore {
    let options = Options { reserve_bytes: 1 << 20, low_bytes: 1 << 20, ..Options::default() };
    DiskStore::open(path, options, Arc::new(SystemClock)).unwrap()
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some("default".to_owned()), ..ObjectMeta::default() }
}

/// An object that says which transaction it belongs to and how many objects that one has.
fn part(transaction: &str, index: usize, size: usize, padding: usize) -> Object {
    let data = [("transaction", transaction.to_owned()), ("size", size.to_string()), ("padding", "x".repeat(padding))];
    Object::new(ConfigMap {
        metadata: meta(&format!("{transaction}-{index}")),
        data: Some(data.map(|(name, value)| (name.to_owned(), value)).into()),
        ..ConfigMap::default()
    })
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // One write: a line is there or it is not.
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Commits for ever: creates of 1 to 40 objects, deletes of whole transactions, heartbeats.
fn child(path: &Path, seed: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = Arc::new(open(path));
    say(&format!("START {}", store.snapshot().revision()));
    let number = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        if store.snapshot().get(&Key::cluster(Kind::Namespace, "default")).is_none() {
            let metadata = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
            let namespace = Object::new(Namespace { metadata, ..Namespace::default() });
            store.commit(Transaction::new("test").with(Write::Create(namespace))).await.unwrap();
        }
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&store), Arc::clone(&number), seed, writer))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

async fn write(store: Arc<DiskStore>, number: Arc<AtomicU64>, seed: u64, writer: u64) {
    let mut random = SmallRng::seed_from_u64(seed ^ writer);
    let mut mine: Vec<(String, usize)> = Vec::new();
    loop {
        let name = format!("t-{seed:x}-{}", number.fetch_add(1, Ordering::SeqCst));
        if random.random_bool(0.1) {
            let lease = Object::new(Lease { metadata: meta(&name), spec: None });
            let beat = Transaction { volatile: true, ..Transaction::new("test").with(Write::Create(lease)) };
            say(&format!("BEAT {}", store.commit(beat).await.unwrap().revision));
        } else if mine.len() > 3 && random.random_bool(0.4) {
            let (old, size) = mine.swap_remove(random.random_range(0..mine.len()));
            say(&format!("DELETING {old}"));
            let key = |index| Key::new(Kind::ConfigMap, "default", format!("{old}-{index}"));
            let gone = |index| Write::Delete { key: key(index), precondition: Precondition::exists(), grace_seconds: None };
            let transaction = Transaction { writes: (0..size).map(gone).collect(), ..Transaction::new("test") };
            say(&format!("DELETED {old} {}", store.commit(transaction).await.unwrap().revision));
        } else {
            let size = random.random_range(1..=40);
            let padding = random.random_range(0..2_000);
            let writes = (0..size).map(|index| Write::Create(part(&name, index, size, padding))).collect();
            let done = store.commit(Transaction { writes, ..Transaction::new("test") }).await.unwrap();
            say(&format!("CREATED {name} {} {size}", done.revision));
            mine.push((name, size));
        }
    }
}

/// What the parent knows from the children's words.
#[derive(Default)]
struct Known {
    /// Transactions that must be there: revision and size.
    there: BTreeMap<String, (u64, usize)>,
    /// Deletions begun and not acknowledged: there whole, or gone whole.
    open: BTreeSet<String>,
    gone: BTreeSet<String>,
    revisions: BTreeSet<u64>,
    /// No revision of the next child may be at or below it.
    highest: u64,
    acknowledged: usize,
}

impl Known {
    fn hear(&mut self, line: &str, start: &mut u64) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["START", revision] => {
                *start = revision.parse().unwrap();
                assert!(*start >= self.highest, "a start at {revision} after {}", self.highest);
            }
            ["BEAT", revision] => self.revision(revision, *start),
            ["DELETING", name] => drop(self.open.insert(name.to_owned())),
            ["DELETED", name, revision] => {
                self.revision(revision, *start);
                self.open.remove(name);
                self.there.remove(name);
                self.gone.insert(name.to_owned());
            }
            ["CREATED", name, revision, size] => {
                self.revision(revision, *start);
                self.there.insert(name.to_owned(), (revision.parse().unwrap(), size.parse().unwrap()));
            }
            // The test harness has words of its own, and the last line may be cut off.
            _ => {}
        }
    }

    fn revision(&mut self, text: &str, start: u64) {
        let revision: u64 = text.parse().unwrap();
        assert!(revision > start, "revision {revision} in a block that starts at {start}");
        assert!(self.revisions.insert(revision), "revision {revision} twice");
        self.acknowledged += 1;
    }

    /// Compares with what is on disk.
    fn check(&mut self, store: &DiskStore) {
        let state = store.snapshot();
        let mut found: BTreeMap<String, (BTreeSet<u64>, usize, usize)> = BTreeMap::new();
        for object in state.list(Kind::ConfigMap) {
            let data = object.get::<ConfigMap>().unwrap().data.as_ref().unwrap();
            let entry = found.entry(data["transaction"].clone()).or_default();
            entry.0.insert(object.revision());
            entry.1 += 1;
            entry.2 = data["size"].parse().unwrap();
        }
        for (name, (revisions, count, size)) in &found {
            assert!(count == size && revisions.len() == 1, "{name}: {count} of {size} objects, revisions {revisions:?}");
            assert!(!self.gone.contains(name), "{name} was deleted");
        }
        for (name, (revision, size)) in &self.there {
            match found.get(name) {
                Some((revisions, count, _)) => assert!(revisions.contains(revision) && count == size, "{name} is another"),
                None => assert!(self.open.contains(name), "{name}@{revision} was acknowledged and is lost"),
            }
        }
        assert!(state.list(Kind::Lease).next().is_none(), "heartbeats are not kept");
        // From here on, what is there is what was found.
        self.gone.extend(self.there.keys().filter(|name| !found.contains_key(*name)).cloned());
        self.there = found.into_iter().map(|(name, (revisions, count, _))| (name, (*revisions.first().unwrap(), count))).collect();
        self.open.clear();
        self.highest = state.revision().max(self.revisions.last().copied().unwrap_or_default());
    }
}

fn start(path: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, format!("{seed}:{}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    if let Ok(order) = std::env::var(VARIABLE) {
        let (seed, path) = order.split_once(':').unwrap();
        return child(Path::new(path), seed.parse().unwrap());
    }
    let seed: u64 = std::env::var("PODBAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PODBAY_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("store");
    let mut known = Known::default();
    let mut round = 0;
    while round < ROUNDS || known.acknowledged < COMMITS {
        let mut child = start(&path, random.random());
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        let lines = BufReader::new(child.stdout.take().unwrap());
        // Some die while they open the store, most after so many commits and a moment more.
        let after = if random.random_bool(0.15) { 0 } else { random.random_range(1..300) };
        let moment = Duration::from_micros(random.random_range(0..20_000));
        let mut first = 0;
        let mut heard = 0;
        let mut killed = false;
        let begun = Instant::now();
        let mut lines = lines.lines();
        loop {
            if heard >= after && !killed {
                while begun.elapsed() < moment {
                    std::hint::spin_loop();
                }
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
                killed = true;
            }
            let Some(Ok(line)) = lines.next() else { break };
            known.hear(&line, &mut first);
            heard += 1;
        }
        let status = child.wait().unwrap();
        assert!(killed, "the child ended by itself: {status}");
        known.check(&open(&path));
        round += 1;
    }
    println!("{} commits acknowledged, {round} kills, {} transactions there", known.acknowledged, known.there.len());
    assert!(known.revisions.len() == known.acknowledged && !known.there.is_empty());
}
