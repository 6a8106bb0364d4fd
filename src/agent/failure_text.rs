//! What a runtime says of a failure, in words that are the same at each try. PURE.
//!
//! It names what it had made by what is another one each time: an id, a process, a link. With these in it no event would
//! ever count, and the pod's status would change without news.

use crate::network::plan::LINK_PREFIX;

/// From so many hexadecimal digits on a word is an id: the engine's have 32 (a UUID without hyphens), those of containerd
/// and CRI-O 64.
const SHORTEST_ID: usize = 32;
/// Where a UUID (RFC 9562, section 4) has its hyphens, and how long it is.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
const UUID_LENGTH: usize = 36;
/// A pod's link by the engine and by the CNI plugins (`veth` and eight digits).
const LINKS: [&str; 2] = [LINK_PREFIX, "veth"];
const SHORTEST_LINK: usize = 8;

/// The text without what differs from try to try. The pod's UID stays, and so do digests of contents.
pub fn steady(text: &str, uid: &str) -> String {
    let mut said = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let length = if is_uuid(rest) { UUID_LENGTH } else { end.max(first.len_utf8()) };
        let (word, after) = rest.split_at(length);
        let shown = if word == uid { word } else { stand_in(word, &said).unwrap_or(word) };
        said.push_str(shown);
        rest = after;
    }
    said
}

/// What is said in place of a word, after what was said before it.
fn stand_in(word: &str, said: &str) -> Option<&'static str> {
    if is_uuid(word) || (word.len() >= SHORTEST_ID && is_hex(word) && !said.ends_with("sha256:")) {
        return Some("ID");
    }
    if said.ends_with("/proc/") && word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("PID");
    }
    let number = LINKS.iter().find_map(|prefix| word.strip_prefix(prefix));
    number.filter(|number| number.len() >= SHORTEST_LINK && is_hex(number)).map(|_| "LINK")
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(is_digit)
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Whether the text begins with one.
fn is_uuid(text: &str) -> bool {
    let bytes = text.as_bytes();
    let fits = |(at, byte): (usize, &u8)| if HYPHENS.contains(&at) { *byte == b'-' } else { is_digit(*byte) };
    let ends = !bytes.get(UUID_LENGTH).is_some_and(u8::is_ascii_alphanumeric);
    ends && bytes.get(..UUID_LENGTH).is_some_and(|head| head.iter().enumerate().all(fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "0c4c7d52-4b2a-4b60-8b53-2d3a4bb5a6f1";

    #[test]
    fn what_differs_at_each_try_is_left_out() {
        let (short, long) = ("0123456789abcdef".repeat(2), "0123456789abcdef".repeat(4));
        let link = crate::network::plan::host_link("a");
        for (text, steady_text) in [
            (format!("make the directory /run/podbay/{short}/shm: no space left"), "make the directory /run/podbay/ID/shm: no space left"),
            (
                format!("write /cgroup/pod{UID}/shim-{short}/memory.max"),
                "write /cgroup/pod0c4c7d52-4b2a-4b60-8b53-2d3a4bb5a6f1/shim-ID/memory.max",
            ),
            (
                format!("sandbox \"{long}\": netns /run/netns/cni-{UID}x, cni-9{}", &UID[1..]),
                "sandbox \"ID\": netns /run/netns/cni-0c4c7d52-4b2a-4b60-8b53-2d3a4bb5a6f1x, cni-ID",
            ),
            (format!("pull pause@sha256:{long}"), &format!("pull pause@sha256:{long}")),
            ("open /proc/4711/ns/net: 4711".to_owned(), "open /proc/PID/ns/net: 4711"),
            (format!("make link {link}: veth0a1b2c3d, veth0, {link}x"), &format!("make link LINK: LINK, veth0, {link}x")),
            ("host port 8088/TCP is taken; Größe 1234567890123456".to_owned(), "host port 8088/TCP is taken; Größe 1234567890123456"),
        ] {
            assert_eq!(steady(&text, UID), steady_text);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_steady_once(text in "([a-f0-9]{30,40}|veth[0-9a-f]{6,9}|/proc/|[ -~é]|-){0,12}") {
            let once = steady(&text, UID);
            prop_assert_eq!(steady(&once, UID), once);
        }
    }
}
