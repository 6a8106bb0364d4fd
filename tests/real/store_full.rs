//! A full disk under the store: a small ext4 filesystem on a loop device.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podbay::clock::SystemClock;
use podbay::model::{Key, Kind, Object};
use podbay::store::disk::{DiskStore, OpenError, Options};
use podbay::store::{CommitError, Precondition, Store, Transaction, Write};
use tokio::runtime::Runtime;

use crate::small_disk::SmallDisk;

const MIB: u64 = 1 << 20;
/// Long enough for a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

fn try_open(path: &Path) -> Result<DiskStore, OpenError> {
    let options = Options { reserve_bytes: 4 * MIB, low_bytes: 2 * MIB, ..Options::default() };
    DiskStore::open(path.join("store"), options, Arc::new(SystemClock))
}

fn open(path: &Path) -> DiskStore {
    let start = Instant::now();
    loop {
        match try_open(path) {
            // A program that another test has just forked has the lock as well, until its exec.
            Err(OpenError::Locked(_)) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
            opened => return opened.expect("open"),
        }
    }
}

fn config(name: &str, bytes: usize) -> Object {
    let metadata = ObjectMeta { name: Some(name.to_owned()), namespace: Some("default".to_owned()), ..ObjectMeta::default() };
    Object::new(ConfigMap { metadata, data: Some([("data".to_owned(), "x".repeat(bytes))].into()), ..ConfigMap::default() })
}

fn create(object: Object) -> Transaction {
    Transaction::new("test").with(Write::Create(object))
}

fn delete(name: &str) -> Transaction {
    let key = Key::new(Kind::ConfigMap, "default", name);
    Transaction::new("test").with(Write::Delete { key, precondition: Precondition::exists(), grace_seconds: None })
}

fn namespace(runtime: &Runtime, store: &DiskStore) {
    let metadata = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
    runtime.block_on(store.commit(create(Object::new(Namespace { metadata, ..Namespace::default() })))).expect("commit");
}

fn configs(store: &DiskStore) -> BTreeMap<String, usize> {
    let size = |object: &Object| object.get::<ConfigMap>().and_then(|it| Some(it.data.as_ref()?.get("data")?.len()));
    let state = store.snapshot();
    state.list(Kind::ConfigMap).map(|object| (object.key().name.clone(), size(object).expect("a ConfigMap with data"))).collect()
}

/// Waits until the store takes everything again.
fn wait_for_recovery(store: &DiskStore) {
    let begun = Instant::now();
    while let Some(reason) = store.degraded() {
        assert!(begun.elapsed() < PATIENCE, "still degraded: {reason}");
        std::thread::yield_now();
    }
}

#[test]
fn filled_by_its_own_objects_it_refuses_and_recovers_by_deletes_alone() {
    let disk = SmallDisk::new(48 * MIB);
    let runtime = Runtime::new().expect("a runtime");
    let store = open(&disk.mount);
    namespace(&runtime, &store);
    let mut known = BTreeMap::new();
    let refused = (0..1_000).find_map(|index| {
        let name = format!("c-{index}");
        match runtime.block_on(store.commit(create(config(&name, 200_000)))) {
            Ok(_) => {
                known.insert(name, 200_000);
                None
            }
            Err(error) => Some(error),
        }
    });
    assert!(matches!(refused, Some(CommitError::Full(_))), "{refused:?}");
    assert!(store.degraded().is_some() && known.len() > 20, "{}", known.len());
    assert_eq!(configs(&store), known);

    let names: Vec<String> = known.keys().cloned().collect();
    for name in &names[..names.len() * 3 / 4] {
        runtime.block_on(store.commit(delete(name))).expect("deletes pass on a full disk");
        known.remove(name);
    }
    // The space comes back to the disk, and the store with it.
    wait_for_recovery(&store);
    runtime.block_on(store.commit(create(config("again", 1_000)))).expect("space again");
    known.insert("again".to_owned(), 1_000);
    drop(store);
    assert_eq!(configs(&open(&disk.mount)), known);
}

#[test]
fn filled_by_another_program_it_loses_nothing_and_resumes_by_itself() {
    let disk = SmallDisk::new(32 * MIB);
    let runtime = Runtime::new().expect("a runtime");
    let mut known = BTreeMap::new();
    let store = open(&disk.mount);
    namespace(&runtime, &store);
    for round in 0..6 {
        for index in 0..5 {
            let name = format!("a-{round}-{index}");
            runtime.block_on(store.commit(create(config(&name, 50_000)))).expect("space");
            known.insert(name, 50_000);
        }
        // Down to nothing at all, or to so little that the next write hits the end.
        disk.leave([0, 8 << 10, 64 << 10, 300 << 10][round % 4]);
        let error = runtime.block_on(store.commit(create(config("no", 500_000)))).expect_err("full");
        assert!(matches!(error, CommitError::Full(_)), "{error}");
        let name = format!("a-{round}-0");
        // The other program stopped: what the reserve held is there for deletes.
        match runtime.block_on(store.commit(delete(&name))) {
            Ok(_) => drop(known.remove(&name)),
            Err(error) => panic!("deletes pass by the reserve: {error}"),
        }
        assert_eq!(configs(&store), known);
        disk.give_back();
        wait_for_recovery(&store);
        assert!(disk.mount.join("store/reserve").exists());
    }
    drop(store);
    assert_eq!(configs(&open(&disk.mount)), known);
}

/// With any amount of space left, whatever write it is that fails: what was acknowledged is there.
#[test]
fn every_write_may_fail() {
    let disk = SmallDisk::new(32 * MIB);
    let runtime = Runtime::new().expect("a runtime");
    let mut refusals = 0;
    for left in (0..40).map(|step| step * (16 << 10)) {
        let _ = std::fs::remove_dir_all(disk.mount.join("store"));
        disk.leave(left);
        let mut known = BTreeMap::new();
        match try_open(&disk.mount) {
            Ok(store) => {
                for index in 0..8 {
                    let name = format!("b-{index}");
                    let metadata = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
                    let mut transaction = create(config(&name, 20_000));
                    if index == 0 {
                        transaction.writes.insert(0, Write::Create(Object::new(Namespace { metadata, ..Namespace::default() })));
                    }
                    match runtime.block_on(store.commit(transaction)) {
                        Ok(_) => drop(known.insert(name, 20_000)),
                        Err(CommitError::Full(_)) => refusals += 1,
                        Err(error) => panic!("with {left} bytes left: {error}"),
                    }
                }
                assert_eq!(configs(&store), known, "with {left} bytes left");
            }
            Err(OpenError::Full(_)) => refusals += 1,
            Err(error) => panic!("with {left} bytes left: {error}"),
        }
        disk.give_back();
        assert_eq!(configs(&open(&disk.mount)), known, "with {left} bytes left");
    }
    assert!(refusals > 0);
}

#[test]
fn a_store_on_a_full_disk_opens_by_its_reserve() {
    let disk = SmallDisk::new(32 * MIB);
    let runtime = Runtime::new().expect("a runtime");
    let store = open(&disk.mount);
    namespace(&runtime, &store);
    runtime.block_on(store.commit(create(config("a", 300_000)))).expect("commit");
    drop(store);
    disk.leave(0);
    let store = open(&disk.mount);
    assert_eq!(configs(&store).len(), 1);
    assert!(store.degraded().is_some());
    runtime.block_on(store.commit(delete("a"))).expect("deletes pass");
    disk.give_back();
    wait_for_recovery(&store);
}
