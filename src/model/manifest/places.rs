//! Where the parts of a manifest stand, packed: they are kept with every object that is wanted. PURE.
//!
//! ```text
//! node  = line, column, shape, part*      whole numbers of seven bits a byte; a line is told from the one above it
//! shape = 0 nothing inside, 1 + 2·n  n items, 2 + 2·n  n fields
//! part  = node of an item | length and bytes of a field's name, node with the place of its key
//! ```

use super::position::{Field, Inside, Position, Spot};

/// The places of an object's fields in its file. Empty where they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Box<[u8]>);

impl Places {
    pub(super) fn of(spot: &Spot) -> Self {
        let mut bytes = Vec::new();
        pack(spot, spot.at, 0, &mut bytes);
        Self(bytes.into_boxed_slice())
    }

    /// The place of the first of these paths that is written; where none is, of the innermost thing written around the first.
    /// `None` where no place is known.
    pub fn find(&self, paths: &[&str]) -> Option<Position> {
        let spot = unpack(&mut &*self.0, 0)?;
        let path = paths.iter().find(|path| spot.has(path)).or(paths.first())?;
        Some(spot.find(path, true))
    }
}

fn pack(spot: &Spot, at: Position, above: u32, bytes: &mut Vec<u8>) {
    // An alias stands below what it repeats.
    let down = i64::from(at.line) - i64::from(above);
    number((down.unsigned_abs() << 1) | u64::from(down < 0), bytes);
    number(u64::from(at.column), bytes);
    match &spot.inside {
        Inside::Nothing => number(0, bytes),
        Inside::Items(items) => {
            number(1 + 2 * items.len() as u64, bytes);
            items.iter().for_each(|item| pack(item, item.at, at.line, bytes));
        }
        Inside::Fields(fields) => {
            number(2 + 2 * fields.len() as u64, bytes);
            for (name, field) in fields {
                number(name.len() as u64, bytes);
                bytes.extend_from_slice(name.as_bytes());
                pack(&field.value, field.key, at.line, bytes);
            }
        }
    }
}

fn number(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn unpack(bytes: &mut &[u8], above: u32) -> Option<Spot> {
    let down = take(bytes)?;
    let by = u32::try_from(down >> 1).ok()?;
    let line = if down & 1 == 0 { above.checked_add(by)? } else { above.checked_sub(by)? };
    let at = Position { line, column: u32::try_from(take(bytes)?).ok()? };
    let shape = take(bytes)?;
    let inside = match (shape, shape % 2) {
        (0, _) => Inside::Nothing,
        (_, 1) => Inside::Items((0..shape / 2).map(|_| unpack(bytes, line)).collect::<Option<_>>()?),
        _ => {
            let field = |_| {
                let length = usize::try_from(take(bytes)?).ok()?;
                let (name, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                let value = unpack(bytes, line)?;
                Some((String::from_utf8(name.to_vec()).ok()?, Field { key: value.at, value }))
            };
            Inside::Fields((0..(shape - 2) / 2).map(field).collect::<Option<_>>()?)
        }
    };
    Some(Spot { at, inside })
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::manifest::parse;

    #[test]
    fn packed_places_are_those_that_were_found() {
        let text =
            "a: &x\n  b:\n  - c: 1\n  - {d: 2, e.f: [3]}\nlong:\n".to_owned() + &"\n".repeat(500) + &" ".repeat(200) + "g: 1\nagain: *x\n";
        let json = r#"{"a": {"b": [{"c": 1}, {"d": 2, "e.f": [3]}]}, "data": {"k.l": ""}}"#;
        for (file, text, paths) in [
            ("a.yaml", text.as_str(), &["", "a", "a.b", "a.b[0]", "a.b[0].c", "a.b[1].e.f", "a.b[1].e.f[0]", "long.g", "again.b[0].c"][..]),
            ("a.json", json, &["", "a.b[1].d", "data[k.l]", "data.k.l"]),
        ] {
            let documents = parse(file, text.as_bytes()).unwrap();
            let [document] = &documents[..] else { panic!("{documents:?}") };
            let places = Places::of(&document.spot);
            for path in paths.iter().copied().chain(["nosuch", "a.b[7].c", "a.nosuch.more"]) {
                assert_eq!(places.find(&[path]), Some(document.spot.find(path, true)), "{path}");
            }
            assert_eq!(places.find(&["a.nosuch", "a.b"]), Some(document.spot.find("a.b", true)));
            assert_eq!(places.find(&["a.nosuch", "b"]), Some(document.spot.find("a", true)));
        }
        assert_eq!(Places::default().find(&["a"]), None);
        assert_eq!(Places(Box::new([0xff; 40])).find(&["a"]), None);
    }
}
