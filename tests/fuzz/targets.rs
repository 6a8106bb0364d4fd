//! What each fuzz target does with its bytes: written once, for libFuzzer (`make fuzz`) and for the tests on the stable
//! toolchain (`tests/real/fuzz.rs`). A target panics where something must not be.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use podbay::cri::streaming::door::{self as spdy, Frame, Headers};
use podbay::cri::wire::{self as cri, container, sandbox, status};
use podbay::model::Kind;
use podbay::model::ownership::{self, FieldSet, ManagedFields};
use podbay::model::selector::{FieldSelector, Selector};
use podbay::runtime::image::{Digest, Limits, Platform, Reference, door};
use podbay::runtime::wire::{self, Wire};
use podbay::server::{operations, strict};
use prost::Message;
use serde_json::Value;

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const TARGETS: [Target; 9] = [
    Target { name: "layer", run: layer },
    Target { name: "image_documents", run: image_documents },
    Target { name: "names_and_headers", run: names_and_headers },
    Target { name: "shim_messages", run: shim_messages },
    Target { name: "cri_requests", run: cri_requests },
    Target { name: "cri_answers", run: cri_answers },
    Target { name: "spdy", run: spdy_frames },
    Target { name: "patches", run: patches },
    Target { name: "selectors", run: selectors },
];

/// A layer as it is, and once more with sums that are right: else hardly anything gets behind the first header.
fn layer(data: &[u8]) {
    unpack(data);
    if let Some(mended) = with_sums(data) {
        unpack(&mended);
    }
}

fn unpack(data: &[u8]) {
    // In memory where there is such a place: a target runs thousands of times a second.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("make a directory");
    let (root, outside) = (place.path().join("root"), place.path().join("outside"));
    fs::create_dir(&root).expect("make the root");
    fs::create_dir(&outside).expect("make what is outside");
    fs::write(outside.join("mark"), "untouched").expect("write the mark");
    let limits = Limits { entries: 200, layer_bytes: 1 << 20, archive_bytes: 1 << 20, reserve: 0 };
    if let Ok(bytes) = door::layer(data, &root, &limits) {
        assert!(bytes <= limits.layer_bytes, "{bytes} bytes came out");
    }
    let names = |at: &Path| fs::read_dir(at).expect("list").map(|entry| entry.expect("list").file_name()).collect::<Vec<_>>();
    assert_eq!(names(place.path()).len(), 2, "something came out beside the root: {:?}", names(place.path()));
    assert_eq!(names(&outside), ["mark"]);
    let mark = outside.join("mark");
    let found = fs::metadata(&mark).expect("look at the mark");
    assert_eq!((fs::read(&mark).expect("read the mark").as_slice(), found.nlink()), (&b"untouched"[..], 1));
    harmless(&root);
}

/// Devices but whiteouts, and sockets, never come out of a layer.
fn harmless(directory: &Path) {
    for entry in fs::read_dir(directory).expect("list").flatten() {
        let found = entry.path().symlink_metadata().expect("look at it");
        let kind = found.file_type();
        let whiteout = kind.is_char_device() && found.rdev() == 0;
        assert!(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_fifo() || whiteout, "{:?}", entry.path());
        if kind.is_dir() {
            harmless(&entry.path());
        }
    }
}

/// Headers of a tar with the sums of what they hold now.
fn with_sums(data: &[u8]) -> Option<Vec<u8>> {
    let mut mended = data.to_vec();
    for block in mended.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    (mended != data).then_some(mended)
}

/// Manifests, indexes and configurations.
fn image_documents(data: &[u8]) {
    let host = Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() };
    for (read, most) in [(door::manifest(data, &host), 1000), (door::configuration(data, &host), 500)] {
        assert!(read.is_err() || read.is_ok_and(|count| count <= most), "a list without an end");
    }
}

/// What people and registries write: references, digests, challenges, redirects.
fn names_and_headers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let name = reference.canonical();
        let again: Reference = name.parse().unwrap_or_else(|error| panic!("{name:?} of {text:?} is no name: {error}"));
        assert_eq!(again.canonical(), name, "of {text:?}");
        // It becomes part of an address.
        assert!(reference.path().split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{text:?}");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    door::challenge(text);
    let from = http::Uri::from_static("https://registry.test:5000/v2/app/blobs/x");
    if let Some(to) = door::redirect(&from, text) {
        assert!(matches!(to.scheme_str(), Some("http" | "https")), "{text:?} leads to {to}");
        assert!(to.authority().is_some_and(|authority| !authority.as_str().contains('@')), "{text:?} leads to {to}");
    }
}

/// What comes out of bytes is the same after another time there and back.
fn there_and_back<T: Wire + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(message) = T::from_bytes(data) {
        assert_eq!(T::from_bytes(&message.to_bytes()).as_ref(), Ok(&message));
    }
}

/// Both sides of the shim's socket, and its records.
fn shim_messages(data: &[u8]) {
    there_and_back::<wire::Init>(data);
    there_and_back::<wire::Request>(data);
    there_and_back::<wire::Response>(data);
    there_and_back::<wire::Step>(data);
    if let Some(exit) = std::str::from_utf8(data).ok().and_then(wire::parse_record) {
        assert_eq!(wire::parse_record(&wire::record_text("id", &exit)), Some(exit));
    }
}

/// What a client of our runtime asks.
fn cri_requests(data: &[u8]) {
    if let Ok(request) = cri::RunPodSandboxRequest::decode(data)
        && let Some(Ok(config)) = request.config.map(sandbox::from_wire)
    {
        let parent = &config.cgroup_parent;
        let parts: Vec<&str> = parent.strip_prefix('/').unwrap_or(parent).split('/').collect();
        let is_plain = parts.iter().all(|part| !matches!(*part, "" | "." | ".."));
        assert!(is_plain && parts.last().is_some_and(|own| own.starts_with("pod")), "cgroup {parent:?}");
        sandbox::to_wire(&config);
    }
    if let Ok(request) = cri::CreateContainerRequest::decode(data)
        && let Some(Ok(config)) = request.config.map(container::from_wire)
    {
        assert!(!config.metadata.name.is_empty() && !config.image.is_empty());
        let again = container::from_wire(container::to_wire(&config, cri::NamespaceOption::default()));
        assert_eq!(
            again.as_ref().map(|again| (&again.command, &again.envs, &again.mounts)).ok(),
            Some((&config.command, &config.envs, &config.mounts))
        );
    }
    if let Ok(request) = cri::UpdateContainerResourcesRequest::decode(data) {
        sandbox::change_from_wire(request.linux).ok();
    }
    if let Ok(request) = cri::PullImageRequest::decode(data) {
        request.image.map(container::image_from_wire);
    }
}

/// What another runtime tells our client.
fn cri_answers(data: &[u8]) {
    if let Ok(answer) = cri::PodSandboxStatusResponse::decode(data) {
        answer.status.map(status::sandbox_from_wire);
    }
    if let Ok(answer) = cri::ContainerStatusResponse::decode(data)
        && let Some(found) = answer.status
    {
        let found = status::container_from_wire(found, "sandbox");
        status::container_status(&found);
    }
    if let Ok(answer) = cri::ListContainerStatsResponse::decode(data) {
        answer.stats.into_iter().for_each(|stats| drop(status::container_stats_from_wire(stats, "sandbox")));
    }
    if let Ok(answer) = cri::ListPodSandboxStatsResponse::decode(data) {
        answer.stats.into_iter().for_each(|stats| drop(status::sandbox_stats_from_wire(stats)));
    }
    if let Ok(answer) = cri::ListImagesResponse::decode(data) {
        answer.images.into_iter().for_each(|image| drop(status::image_from_wire(image)));
    }
}

/// What a caller of exec, attach or port-forward sends: the same however its bytes are cut.
fn spdy_frames(data: &[u8]) {
    let whole = hear(&[data]);
    let pieces: Vec<&[u8]> = data.chunks(7).collect();
    assert_eq!(hear(&pieces), whole, "in pieces and as a whole");
}

/// What was heard, pieces of data put together, and what ended it.
type Heard = (Vec<(Frame, Headers)>, Option<&'static str>);

fn hear(pieces: &[&[u8]]) -> Heard {
    let (mut decoder, mut inflate) = (spdy::Decoder::default(), spdy::Inflate::default());
    let mut heard = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            let frame = match decoder.take() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(cause) => return (heard, Some(cause)),
            };
            match headers(&frame, &mut inflate) {
                Ok(headers) => put(&mut heard, frame, headers),
                Err(cause) => return (heard, Some(cause)),
            }
        }
    }
    (heard, None)
}

fn put(heard: &mut Vec<(Frame, Headers)>, frame: Frame, headers: Headers) {
    if let Frame::Data { id, fin, bytes } = &frame
        && let Some((Frame::Data { id: before, fin: ended, bytes: all }, _)) = heard.last_mut()
        && before == id
        && !*ended
    {
        *all = [&all[..], bytes].concat().into();
        *ended = *fin;
        return;
    }
    heard.push((frame, headers));
}

/// The headers of a frame that has some; ours are read as they were written.
fn headers(frame: &Frame, inflate: &mut spdy::Inflate) -> Result<Headers, &'static str> {
    let (Frame::SynStream { block, .. } | Frame::SynReply { block, .. } | Frame::Headers { block, .. }) = frame else {
        return Ok(Headers::new());
    };
    let limit = 16 << 10;
    assert!(block.len() <= limit, "a block of {} bytes", block.len());
    let headers = inflate.read(block)?;
    // What is no text became marks of three bytes.
    let size: usize = headers.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
    assert!(headers.len() <= 64 && size <= 3 * limit, "{} headers of {size} bytes", headers.len());
    if size + 4 <= limit {
        let words: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let again = spdy::Inflate::default().read(&spdy::Deflate::default().write(&words));
        assert_eq!(again.as_ref(), Ok(&headers));
    }
    Ok(headers)
}

/// A line with an object as it is, and a body that is to change it, in each of the ways there are.
fn patches(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let body = &data[end + 1..];
    strict::duplicate_fields(body);
    let (Ok(live), Ok(patch)) = (serde_json::from_slice::<Value>(&data[..end]), serde_json::from_slice::<Value>(body)) else { return };
    let kind = match live["kind"].as_str() {
        Some("Pod") => Kind::Pod,
        Some("Service") => Kind::Service,
        Some("Secret") => Kind::Secret,
        _ => Kind::Deployment,
    };
    if let Ok(operations) = operations::read(body) {
        let _ = operations::carry_out(&operations, &mut live.clone());
    }
    let _ = ownership::strategic_merge(kind, &live, &patch);
    if let Ok(set) = FieldSet::from_json(&patch) {
        assert_eq!(FieldSet::from_json(&set.to_json()).as_ref(), Ok(&set), "a field set reads what it writes");
    }
    if !live.is_object() || !patch.is_object() {
        return;
    }
    let none = ManagedFields::default();
    let applied = ownership::apply(kind, Some(&live), &none, &patch, "one", true).expect("nobody is in the way");
    let owners = ownership::update(kind, Some(&live), &applied.0, &applied.1, "two", "");
    let _ = ownership::apply(kind, Some(&applied.0), &owners, &live, "three", false);
    let _ = ownership::apply(kind, Some(&applied.0), &owners, &Value::Object(serde_json::Map::new()), "one", false);
}

/// What is read as a selector is printed so that it is read as the same one.
fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = Selector::parse(text) {
        assert_eq!(Selector::parse(&selector.to_string()), Ok(selector), "{text:?}");
    }
    for kind in [Kind::Pod, Kind::Event, Kind::Node] {
        if let Ok(selector) = FieldSelector::parse(kind, text, &[]) {
            assert_eq!(FieldSelector::parse(kind, &selector.to_string(), &[]), Ok(selector), "{text:?}");
        }
    }
}
