//! The way in for the fuzz targets (`tests/fuzz`): what a stranger sends over SPDY goes, as bytes, to the code that reads
//! it first. Nothing of the product comes this way.

pub use super::dictionary::dictionary;
pub use super::frame::{Decoder, Frame, data, go_away, ping, rst_stream, syn_reply, syn_stream, window_update};
pub use super::headers::{Deflate, Headers, Inflate};
