//! The durable store: the contract, what survives a restart, faults of the disk under it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::database::{DataFile, builder};
use super::{DiskStore, FORMAT, FreeSpace, OpenError, Options};
use crate::clock::SystemClock;
use crate::model::{Key, Kind};
use crate::store::contract::{self, config, create, delete, key, lease, namespace, value_of};
use crate::store::{CommitError, Precondition, Store, TooOld, Transaction, Write};

/// As much space as a test says.
struct Told(AtomicU64);

impl FreeSpace for Told {
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::SeqCst))
    }
}

fn options() -> Options {
    Options { reserve_bytes: 1 << 20, low_bytes: 1 << 20, ..Options::default() }
}

fn open(path: &Path) -> DiskStore {
    DiskStore::open(path, options(), Arc::new(SystemClock)).expect("open")
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_keeps_the_contract() {
    let scratch = tempfile::tempdir().expect("a directory");
    let number = AtomicU64::new(0);
    contract::check(|| {
        let path = scratch.path().join(number.fetch_add(1, Ordering::SeqCst).to_string());
        Arc::new(DiskStore::open(path, options(), Arc::new(SystemClock)).expect("open"))
    })
    .await;
}

#[tokio::test]
async fn a_restart_finds_everything_and_begins_a_new_block() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    store.commit(create([namespace(), config("a", "1"), config("b", "1")])).await.expect("commit");
    store.commit(delete("b")).await.expect("commit");
    let last = store.commit(create([config("c", "2")])).await.expect("commit").revision;
    let object = store.snapshot().get(&key("c")).cloned().expect("c");
    drop(store);

    let store = open(scratch.path());
    let state = store.snapshot();
    assert!(state.revision() > last);
    assert_eq!(state.len(), 3);
    let found = state.get(&key("c")).expect("c");
    assert_eq!((found, found.json(), found.revision()), (&object, object.json(), last));
    assert_eq!(value_of(&store, "b"), None);
    assert!(matches!(store.watch(last), Err(TooOld { .. })));
    assert!(store.watch(state.revision()).is_ok());
    assert!(store.commit(create([config("d", "1")])).await.expect("commit").revision > state.revision());
    assert!(store.size_bytes() > 0);
}

#[tokio::test]
async fn volatile_writes_are_lost_and_take_nothing_with_them() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    store.commit(create([namespace(), config("a", "durable")])).await.expect("commit");
    let seen = store.snapshot().get(&key("a")).cloned().expect("a");
    let change =
        |value: &str| seen.edit::<ConfigMap>(|it| it.data = Some([("value".to_owned(), value.to_owned())].into())).expect("a ConfigMap");
    let update = Transaction::new("test").with(Write::Update(change("volatile"), Precondition::exists()));
    let size = store.size_bytes();
    for beat in 0..200 {
        let write = if beat == 0 {
            Write::Create(lease("n1", "n1"))
        } else {
            Write::Update(lease("n1", &format!("h{beat}")), Precondition::exists())
        };
        store.commit(Transaction { volatile: true, ..Transaction::new("test").with(write) }).await.expect("commit");
    }
    let last = store.commit(Transaction { volatile: true, ..update }).await.expect("commit").revision;
    assert_eq!(value_of(&store, "a").as_deref(), Some("volatile"));
    assert_eq!(store.size_bytes(), size, "nothing is written");
    drop(store);

    let store = open(scratch.path());
    assert_eq!(value_of(&store, "a").as_deref(), Some("durable"));
    assert!(store.snapshot().get(&Key::new(Kind::Lease, "default", "n1")).is_none());
    assert!(store.snapshot().revision() > last, "a volatile revision is not handed out again");
    // A volatile deletion of what is stored is durable: it must not come back.
    store.commit(Transaction { volatile: true, ..delete("a") }).await.expect("commit");
    drop(store);
    assert_eq!(value_of(&open(scratch.path()), "a"), None);
}

#[test]
fn two_servers_cannot_share_it_and_an_older_one_refuses_it() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    let again = || DiskStore::open(scratch.path(), options(), Arc::new(SystemClock)).err().expect("refused");
    assert!(matches!(again(), OpenError::Locked(_)));
    drop(store);
    drop(open(scratch.path()));
    std::fs::write(scratch.path().join("format"), format!("{}\n", FORMAT + 1)).expect("write");
    let before = std::fs::read(scratch.path().join("objects.redb")).expect("read");
    let error = again();
    assert!(matches!(error, OpenError::Newer { found, .. } if found == FORMAT + 1));
    assert!(error.to_string().contains("written by a newer podbay"), "{error}");
    assert_eq!(std::fs::read(scratch.path().join("objects.redb")).expect("read"), before, "and leaves it alone");
    std::fs::write(scratch.path().join("format"), "x").expect("write");
    assert!(matches!(again(), OpenError::Damaged { .. }));
}

#[test]
fn a_store_of_an_older_one_is_refused_by_it_from_then_on() {
    let scratch = tempfile::tempdir().expect("a directory");
    drop(open(scratch.path()));
    let format = || std::fs::read_to_string(scratch.path().join("format")).expect("read");
    assert_eq!(format(), format!("{FORMAT}\n"));
    std::fs::write(scratch.path().join("format"), "1\n").expect("write");
    drop(open(scratch.path()));
    assert_eq!(format(), format!("{FORMAT}\n"));
}

/// The file is one that a server of format 3 wrote, with a source and what `kubectl` had applied.
#[tokio::test]
async fn a_store_of_format_3_is_taken_over_with_all_that_is_in_it() {
    let scratch = tempfile::tempdir().expect("a directory");
    let saved = include_bytes!("../../../tests/corpus/store-format-3.redb.zst");
    std::fs::write(scratch.path().join("objects.redb"), zstd::decode_all(&saved[..]).expect("zstd")).expect("write");
    std::fs::write(scratch.path().join("format"), "3\n").expect("write");
    let look = |store: &DiskStore| {
        let state = store.snapshot();
        let told = |kind: &str, name: &str, pointer: &str| {
            let found = state.iter().find(|object| object.kind().info().name == kind && object.key().name == name);
            found.and_then(|object| object.value().pointer(pointer).cloned()).unwrap_or_else(|| panic!("{kind} {name} {pointer}"))
        };
        assert_eq!(told("Secret", "key", "/data/password"), "bm90IHRvbGQ=");
        assert_eq!(told("ConfigMap", "words", "/data/hello"), "grüß dich");
        assert_eq!(told("Deployment", "web", "/spec/template/spec/containers/0/resources/requests/cpu"), "100m");
        assert_eq!(told("HorizontalPodAutoscaler", "web", "/spec/metrics/0/resource/target/averageUtilization"), 70);
        assert_eq!(told("RuntimeClass", "other", "/handler"), "runc");
        assert_eq!(told("Lamp", "desk", "/spec/watts"), 7);
        assert_eq!(told("Source", "apps", "/spec/directory"), "/tmp/apps");
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        state.iter().for_each(|object| *kinds.entry(object.kind().info().name).or_default() += 1);
        ["Pod", "ReplicaSet", "Deployment", "Job", "Service", "ClusterRole", "Namespace"].map(|kind| kinds.get(kind).copied().unwrap_or(0))
    };
    let store = open(scratch.path());
    assert_eq!(look(&store), [5, 2, 2, 1, 2, 18, 4]);
    assert_eq!(std::fs::read_to_string(scratch.path().join("format")).expect("read"), format!("{FORMAT}\n"));
    let spec = serde_json::json!({"hostPath": {"path": "/srv"}, "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
    let volume = serde_json::json!({"metadata": {"name": "v"}, "spec": spec});
    let volume = crate::model::Object::from_value(Kind::PersistentVolume, volume).expect("a volume");
    store.commit(create([volume])).await.expect("commit");
    drop(store);
    let store = open(scratch.path());
    assert_eq!(look(&store), [5, 2, 2, 1, 2, 18, 4]);
    assert!(store.snapshot().get(&Key::cluster(Kind::PersistentVolume, "v")).is_some());
}

#[test]
fn a_kind_that_is_not_known_is_of_a_newer_one() {
    let scratch = tempfile::tempdir().expect("a directory");
    let refused = |key: &str| {
        drop(open(scratch.path()));
        let file = builder().open(scratch.path().join("objects.redb")).expect("open");
        let writes = file.begin_write().expect("write");
        let objects: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("objects");
        writes.open_table(objects).expect("a table").insert(key, b"{}".as_slice()).expect("insert");
        writes.commit().expect("commit");
        drop(file);
        let error = DiskStore::open(scratch.path(), options(), Arc::new(SystemClock)).err().expect("refused").to_string();
        let file = builder().open(scratch.path().join("objects.redb")).expect("open");
        let writes = file.begin_write().expect("write");
        writes.open_table(objects).expect("a table").remove(key).expect("remove");
        writes.commit().expect("commit");
        error
    };
    let error = refused("Gadget/web/a");
    assert!(error.contains("written by a newer podbay") && error.contains("Gadget/web/a"), "{error}");
    let error = refused("ConfigMap/web/a");
    assert!(error.contains("the object ConfigMap/web/a is damaged"), "{error}");
}

#[tokio::test]
async fn short_of_space_only_deletes_and_status_are_taken() {
    const MIB: u64 = 1 << 20;
    let scratch = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Told(AtomicU64::new(100 * MIB)));
    let reserve = scratch.path().join("reserve");
    let options = Options { reserve_bytes: MIB, low_bytes: 8 * MIB, space: Arc::clone(&told) as Arc<dyn FreeSpace> };
    let store = DiskStore::open(scratch.path(), options, Arc::new(SystemClock)).expect("open");
    store.commit(create([namespace(), config("a", "1"), config("b", "1"), config("c", "1")])).await.expect("commit");
    assert_eq!((store.degraded(), reserve.exists()), (None, true));

    told.0.store(7 * MIB, Ordering::SeqCst);
    let error = store.commit(create([config("d", "1")])).await.expect_err("short");
    assert!(matches!(&error, CommitError::Full(reason) if reason.contains("7 MiB free")), "{error}");
    assert!(store.degraded().is_some() && reserve.exists());
    store.commit(delete("a")).await.expect("deletes pass");
    let home = store.snapshot().get(&Key::cluster(Kind::Namespace, "default")).cloned().expect("a namespace");
    let status = home.edit(|it: &mut Namespace| it.status.get_or_insert_default().phase = Some("Odd".to_owned())).expect("a namespace");
    store.commit(Transaction::new("test").with(Write::UpdateStatus(status, Precondition::exists()))).await.expect("status passes");
    store.commit(Transaction { volatile: true, ..create([lease("n1", "n1")]) }).await.expect("heartbeats pass");
    let instead = |value: &str| create([config("e", value)]).with(delete("c").writes.remove(0));
    assert!(store.commit(instead(&"long".repeat(200))).await.is_err(), "more than goes");
    store.commit(create([config("c", "1")])).await.expect_err("short");
    let change = |value: &str| Transaction::new("test").with(Write::Update(config("c", value), Precondition::exists()));
    store.commit(change(&"long".repeat(200))).await.expect_err("larger");
    store.commit(change("")).await.expect("smaller");

    told.0.store(MIB, Ordering::SeqCst);
    store.commit(delete("b")).await.expect("deletes pass");
    assert!(!reserve.exists(), "the reserve is given up");
    // It resumes by itself, above the bound and with the reserve back.
    told.0.store(10 * MIB, Ordering::SeqCst);
    assert!(store.commit(create([config("d", "1")])).await.is_err());
    told.0.store(12 * MIB, Ordering::SeqCst);
    while store.degraded().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(reserve.exists());
    store.commit(create([config("d", "1")])).await.expect("space again");
}

/// A disk in memory that remembers what a sync has made safe, and fails when told to.
#[derive(Debug, Default)]
struct Disk {
    /// As a reader sees it.
    now: Mutex<Vec<u8>>,
    /// As it would be after the power went, without `loose`.
    safe: Mutex<Vec<u8>>,
    /// Writes since the last sync, in order.
    loose: Mutex<Vec<Loose>>,
    full: AtomicBool,
    failing: AtomicBool,
}

#[derive(Debug, Clone)]
enum Loose {
    Length(u64),
    Write(u64, Vec<u8>),
}

impl Loose {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Loose::Length(length) => image.resize(usize::try_from(*length).expect("small"), 0),
            Loose::Write(offset, data) => {
                let start = usize::try_from(*offset).expect("small");
                let end = start + data.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[start..end].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    fn with(image: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new(image.clone()), safe: Mutex::new(image), ..Self::default() })
    }

    fn change(&self, loose: Loose) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("broken"));
        }
        loose.apply(&mut self.now.lock().expect("lock"));
        self.loose.lock().expect("lock").push(loose);
        Ok(())
    }

    /// What a power cut leaves: what was synced, and any of what was not, a write cut in the middle included.
    fn after_power_cut(&self, random: &mut SmallRng) -> Vec<u8> {
        let mut image = self.safe.lock().expect("lock").clone();
        for loose in self.loose.lock().expect("lock").iter() {
            match loose {
                Loose::Write(offset, data) if random.random_bool(0.2) => {
                    let kept = random.random_range(0..=data.len()) / 512 * 512;
                    Loose::Write(*offset, data[..kept].to_vec()).apply(&mut image);
                }
                loose if random.random_bool(0.5) => loose.apply(&mut image),
                _ => {}
            }
        }
        image
    }
}

#[derive(Debug, Clone)]
struct Handle(Arc<Disk>);

impl redb::StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.now.lock().expect("lock").len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let now = self.0.now.lock().expect("lock");
        let start = usize::try_from(offset).expect("small");
        let found = now.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.change(Loose::Length(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.0.failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("broken"));
        }
        let loose = std::mem::take(&mut *self.0.loose.lock().expect("lock"));
        let mut safe = self.0.safe.lock().expect("lock");
        loose.iter().for_each(|loose| loose.apply(&mut safe));
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.change(Loose::Write(offset, data.to_vec()))
    }
}

impl DataFile for Handle {
    fn open(&self) -> Result<redb::Database, redb::DatabaseError> {
        builder().create_with_backend(self.clone())
    }
    fn bytes(&self) -> u64 {
        self.0.now.lock().expect("lock").len() as u64
    }
}

fn open_on(disk: &Arc<Disk>, scratch: &Path) -> DiskStore {
    let data = Box::new(Handle(Arc::clone(disk)));
    DiskStore::open_file(scratch, data, scratch.join("none"), options(), Arc::new(SystemClock)).expect("open")
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_lets_deletes_pass_once_there_is_a_little() {
    let scratch = tempfile::tempdir().expect("a directory");
    let disk = Disk::with(Vec::new());
    let store = open_on(&disk, scratch.path());
    store.commit(create([namespace(), config("a", "1"), config("b", "1")])).await.expect("commit");
    let before = store.snapshot().revision();
    disk.full.store(true, Ordering::SeqCst);
    for name in ["c", "d"] {
        let error = store.commit(create([config(name, "1")])).await.expect_err("full");
        assert!(matches!(error, CommitError::Full(_)), "{error}");
    }
    assert!(matches!(store.commit(delete("a")).await, Err(CommitError::Full(_))));
    assert_eq!(store.snapshot().revision(), before);
    assert!(store.degraded().is_some());
    disk.full.store(false, Ordering::SeqCst);
    // Nothing is closed for good: deletes first, and everything once the reserve is back.
    store.commit(delete("a")).await.expect("deletes pass");
    while store.degraded().is_some() {
        tokio::task::yield_now().await;
    }
    store.commit(create([config("c", "2")])).await.expect("space again");
    drop(store);
    let store = open_on(&disk, scratch.path());
    assert_eq!((value_of(&store, "a"), value_of(&store, "b"), value_of(&store, "c")), (None, Some("1".into()), Some("2".into())));
}

#[tokio::test]
async fn a_failing_disk_is_an_error_and_not_the_end() {
    let scratch = tempfile::tempdir().expect("a directory");
    let disk = Disk::with(Vec::new());
    let store = open_on(&disk, scratch.path());
    store.commit(create([namespace(), config("a", "1")])).await.expect("commit");
    disk.failing.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = store.commit(create([config("b", "1")])).await.expect_err("broken");
        assert!(matches!(error, CommitError::Io(_)), "{error}");
        assert_eq!(value_of(&store, "b"), None, "what is not durable is not seen");
    }
    disk.failing.store(false, Ordering::SeqCst);
    let done = store.commit(create([config("c", "1")])).await.expect("it works again");
    // Memory and disk agree, whatever became of the failed one.
    let seen: Vec<_> = store.snapshot().iter().map(|object| (object.key().clone(), object.json())).collect();
    drop(store);
    let store = open_on(&disk, scratch.path());
    assert_eq!(store.snapshot().iter().map(|object| (object.key().clone(), object.json())).collect::<Vec<_>>(), seen);
    assert!(store.snapshot().revision() > done.revision);
}

/// Commits until the power goes at a random write, many times over: what was acknowledged is there
/// whole, what was not is there whole or not at all.
#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let seed: u64 = std::env::var("PODBAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PODBAY_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut image = Vec::new();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut highest = 0;
    for round in 0..40 {
        let scratch = tempfile::tempdir().expect("a directory");
        let disk = Disk::with(image);
        let store = open_on(&disk, scratch.path());
        assert!(store.snapshot().revision() >= highest, "round {round}");
        if round == 0 {
            store.commit(create([namespace()])).await.expect("commit");
        }
        for name in known.keys() {
            assert_eq!(value_of(&store, name), known.get(name).cloned(), "round {round}");
        }
        for step in 0..random.random_range(1..12) {
            let size = random.random_range(1..30);
            let names: Vec<String> = (0..size).map(|index| format!("r{round}-{step}-{index}")).collect();
            let value = "v".repeat(random.random_range(1..3000));
            let done = store.commit(create(names.iter().map(|name| config(name, &value)))).await.expect("commit");
            known.extend(names.into_iter().map(|name| (name, value.clone())));
            highest = done.revision;
        }
        // One more, and the power goes somewhere in the middle of it.
        let mut during = disk.after_power_cut(&mut random);
        let store = Arc::new(store);
        let last = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.commit(create((0..20).map(|index| config(&format!("x{round}-{index}"), "last")))).await }
        });
        for _ in 0..random.random_range(0..50) {
            tokio::task::yield_now().await;
            during = disk.after_power_cut(&mut random);
        }
        last.await.expect("no panic").expect("commit");
        image = during;
        let disk = Disk::with(image.clone());
        let scratch = tempfile::tempdir().expect("a directory");
        let store = open_on(&disk, scratch.path());
        let whole = (0..20).filter(|index| value_of(&store, &format!("x{round}-{index}")).is_some()).count();
        assert!(whole == 0 || whole == 20, "round {round}: {whole} of 20 objects of one transaction");
        drop(store);
        image = disk.now.lock().expect("lock").clone();
    }
}
