//! What needs root and a real kernel: one binary, run as root.

mod image;
mod layer;
mod network;
mod registry;
