//! A bound on the values of a text, before anything is built from it. PURE.

use super::NODES;

/// Where a text of JSON, or of TOML, comes to more than [`NODES`] names and values; none where it
/// does not. Counts what separates them outside of texts and comments.
pub(super) fn crowded(text: &str, toml: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut nodes) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_text(bytes, at, toml),
            b'\'' if toml => at = end_of_text(bytes, at, toml),
            b'#' if toml => at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at),
            b',' | b'[' | b'{' => nodes += 1,
            b':' if !toml => nodes += 1,
            b'=' | b'.' if toml => nodes += 1,
            _ => {}
        }
        if nodes > NODES {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// The last byte of the text in quotes that begins here.
fn end_of_text(bytes: &[u8], start: usize, toml: bool) -> usize {
    let quote = bytes[start];
    let long = toml && bytes[start..].starts_with(&[quote; 3]);
    let mut at = start + if long { 3 } else { 1 };
    while let Some(&byte) = bytes.get(at) {
        if byte == b'\\' && quote == b'"' {
            at += 1;
        } else if long && bytes[at..].starts_with(&[quote; 3]) {
            return at + 2;
        } else if !long && (byte == quote || (toml && byte == b'\n')) {
            return at;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::{NODES, crowded};

    #[test]
    fn values_are_counted_outside_of_texts() {
        let many = ",".repeat(NODES + 1);
        assert_eq!(crowded(&many, false), Some(NODES));
        assert_eq!(crowded(&format!("\"\\\"{many}\""), false), None);
        for quiet in [format!("'{many}'"), format!("\"\"\"\n\"{many}\"\"\""), format!("'''\n'{many}'''"), format!("# {many}\n")] {
            assert_eq!(crowded(&format!("a = {quiet}"), true), None);
            assert!(crowded(&format!("a = {quiet}\nb = [{many}]"), true).is_some());
        }
    }
}
