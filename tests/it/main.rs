//! Tests that need no root: whole parts against what they must do.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod manifest;
mod tidy;
