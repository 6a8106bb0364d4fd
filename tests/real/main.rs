//! What needs root and a real kernel: one binary, run as root.

mod engine;
mod image;
mod layer;
mod network;
mod registry;
