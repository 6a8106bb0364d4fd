//! A commit becomes objects: fetch, render, plan, accept.
//!
//! - `source`: the trait `fetch(want) -> Tree | Unreachable`; `dir` and `git` implement it
//! - `render` (pure): a tree's files to objects, or every error of the tree
//! - `plan` (pure): desired against live against inventory

pub mod source;
