//! A commit becomes objects: fetch, render, plan, accept.
//!
//! - `source`: the trait `fetch() -> Tree | Unreachable`; `dir` and `git` implement it, `open` picks
//! - `select` (pure): which files of a tree are manifests, and how many there may be
//! - `render` (pure): a tree's files to objects, or every error of the tree
//! - `plan` (pure): desired against live against inventory
//! - `inventory`, `budget`, `health` (pure): what a source holds, what a deletion takes with it, how
//!   an object fares
//! - `act`: the loop of one source
//!
//! Invariants: unreachable is never empty; a bad revision changes nothing; only what the inventory
//! says Podbay created is ever pruned.

pub mod dir;
pub mod git;
pub mod open;
pub mod select;
pub mod source;
