//! All targets in one program for libFuzzer: `PODBAY_FUZZ_TARGET` names the one that runs. With `PODBAY_FUZZ_SEEDS` it
//! writes each target's seeds below that directory instead.
#![no_main]
#![allow(dead_code, reason = "the tests use the rest")]

#[path = "../../real/layer.rs"]
mod layer;
#[path = "../seeds.rs"]
mod seeds;
#[path = "../targets.rs"]
mod targets;

use std::path::Path;
use std::sync::OnceLock;

use targets::{TARGETS, Target};

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fn begin() {
    if let Some(directory) = std::env::var_os("PODBAY_FUZZ_SEEDS") {
        for target in &TARGETS {
            let directory = Path::new(&directory).join(target.name);
            std::fs::create_dir_all(&directory).expect("make the directory of the seeds");
            for (index, seed) in seeds::of(target.name).iter().enumerate() {
                std::fs::write(directory.join(format!("seed-{index}")), seed).expect("write a seed");
            }
            println!("{}", target.name);
        }
        std::process::exit(0);
    }
    let name = std::env::var("PODBAY_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    CHOSEN.get_or_init(|| found.unwrap_or_else(|| panic!("PODBAY_FUZZ_TARGET is {name:?}, which is no target")));
}

libfuzzer_sys::fuzz_target!(init: begin(), |data: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        (target.run)(data);
    }
});
