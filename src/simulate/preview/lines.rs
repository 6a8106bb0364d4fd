//! Two texts of many lines against each other, in the unified format of diffutils. PURE.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::ops::Range;

use similar::algorithms::{Capture, Replace, myers};

/// The changed lines with `context` lines around them, a `@@` line before each group.
pub(super) fn unified(before: &str, after: &str, context: usize) -> String {
    let (old, new) = (split(before), split(after));
    // Compared as numbers: the algorithm is compiled once, whatever it compares.
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let (old_numbers, new_numbers) = (intern(&mut numbers, &old), intern(&mut numbers, &new));
    let mut found = Replace::new(Capture::new());
    let Ok(()): Result<(), Infallible> = myers::diff(&mut found, &old_numbers[..], 0..old.len(), &new_numbers[..], 0..new.len());
    let mut text = String::new();
    for group in found.into_inner().into_grouped_ops(context) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let span = |first: Range<usize>, last: Range<usize>| range(first.start..last.end);
        // Writing to a string does not fail.
        let _ = writeln!(text, "@@ -{} +{} @@", span(first.old_range(), last.old_range()), span(first.new_range(), last.new_range()));
        for op in &group {
            if op.tag() == similar::DiffTag::Equal {
                put(&mut text, ' ', &old[op.old_range()]);
            } else {
                put(&mut text, '-', &old[op.old_range()]);
                put(&mut text, '+', &new[op.new_range()]);
            }
        }
    }
    text
}

fn split(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn intern<'t>(numbers: &mut BTreeMap<&'t str, usize>, lines: &[&'t str]) -> Vec<usize> {
    let mut number = |line: &&'t str| {
        let fresh = numbers.len();
        *numbers.entry(line).or_insert(fresh)
    };
    lines.iter().map(&mut number).collect()
}

/// As diffutils writes it: from 1, the length where it is not 1, and an empty one names the line before.
fn range(lines: Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        length => format!("{},{length}", lines.start + 1),
    }
}

fn put(text: &mut String, mark: char, lines: &[&str]) {
    for line in lines {
        text.push(mark);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn as_diffutils_write_it() {
        let numbered = |range: std::ops::Range<u32>| range.map(|line| format!("{line}\n")).collect::<String>();
        let before = numbered(1..21);
        let after = before.replace("4\n", "four\n").replace("15\n", "");
        // The 4 of 14 is no line of its own, but its text changes as well.
        let wanted = "@@ -2,5 +2,5 @@\n 2\n 3\n-4\n+four\n 5\n 6\n@@ -12,6 +12,5 @@\n 12\n 13\n-14\n-15\n+1four\n 16\n 17\n";
        assert_eq!(unified(&before, &after, 2), wanted);
        assert_eq!(unified("a\n", "a\n", 2), "");
        assert_eq!(unified("", "a\n", 2), "@@ -0,0 +1 @@\n+a\n");
        let end = "\\ No newline at end of file\n";
        assert_eq!(unified("a\nb", "a\nc\n", 2), format!("@@ -1,2 +1,2 @@\n a\n-b\n{end}+c\n"));
    }
}
