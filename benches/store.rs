//! The store's figures: commits a second, one large transaction, the time to open. Prints them.
//!
//! `cargo bench --bench store [-- DIRECTORY]`: the directory's disk is the one that is measured.

#![allow(clippy::unwrap_used)] // a measurement that fails has no figure

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podbay::clock::SystemClock;
use podbay::model::Object;
use podbay::store::disk::{DiskStore, Options};
use podbay::store::{Store, Transaction, Write};

const WRITERS: usize = 16;
const COMMITS: usize = 200;

fn config(name: &str) -> Object {
    let data = (0..8).map(|index| (format!("key-{index}"), "value ".repeat(20))).collect();
    let metadata = ObjectMeta { name: Some(name.to_owned()), namespace: Some("default".to_owned()), ..ObjectMeta::default() };
    Object::new(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() })
}

fn create(objects: impl IntoIterator<Item = Object>) -> Transaction {
    Transaction { writes: objects.into_iter().map(Write::Create).collect(), ..Transaction::new("bench") }
}

fn main() {
    // `cargo bench` passes `--bench`.
    let directory = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let scratch = match directory {
        Some(directory) => tempfile::tempdir_in(directory).unwrap(),
        None => tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let open = || Arc::new(DiskStore::open(scratch.path().join("store"), Options::default(), Arc::new(SystemClock)).unwrap());
    let store = open();
    let metadata = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
    runtime.block_on(store.commit(create([Object::new(Namespace { metadata, ..Namespace::default() })]))).unwrap();

    for writers in [1, WRITERS] {
        let start = Instant::now();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..writers)
                .map(|writer| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move {
                        for index in 0..COMMITS {
                            store.commit(create([config(&format!("c-{writers}-{writer}-{index}"))])).await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        let rate = (writers * COMMITS) as f64 / start.elapsed().as_secs_f64();
        println!("store: {rate:.0} durable commits a second with {writers} writer(s)");
    }

    let many = create((0..20_000).map(|index| config(&format!("m-{index}"))));
    let start = Instant::now();
    runtime.block_on(store.commit(many)).unwrap();
    println!("store: {:.0} ms for one transaction of 20,000 objects", start.elapsed().as_secs_f64() * 1e3);
    drop(store);

    let second = scratch.path().join("second");
    let open_second = || DiskStore::open(&second, Options::default(), Arc::new(SystemClock)).unwrap();
    let store = open_second();
    let metadata = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
    runtime.block_on(store.commit(create([Object::new(Namespace { metadata, ..Namespace::default() })]))).unwrap();
    runtime.block_on(store.commit(create((0..10_000).map(|index| config(&format!("o-{index}")))))).unwrap();
    println!("store: {} MiB on disk for 10,000 objects of 1 KiB", store.size_bytes() >> 20);
    drop(store);
    let start = Instant::now();
    let store = open_second();
    println!("store: {:.0} ms to open with {} objects", start.elapsed().as_secs_f64() * 1e3, store.snapshot().len());
}
