//! The parts of an output that differ from run to run, all of them: times, ages, UIDs, versions, plan ids,
//! addresses of pods, where the session's directory is, and events, which are told in their own time.

/// The output with those parts replaced by words in capitals, columns kept.
pub fn filtered(text: &str, directory: &str) -> String {
    let shown: String = text.lines().take_while(|line| line.trim() != "Events:").map(|line| format!("{line}\n")).collect();
    replaced(&shown.replace(directory, "DIR"))
}

fn replaced(text: &str) -> String {
    let mut out = String::new();
    let (mut previous, mut rest) = ("", text);
    while !rest.is_empty() {
        let blank = rest.len() - rest.trim_start().len();
        out.push_str(&rest[..blank]);
        rest = &rest[blank..];
        let (word, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        let core = word.trim_matches(|c: char| matches!(c, '"' | ',' | ':' | ';' | '(' | ')' | '.'));
        let Some(name) = variable(core, previous) else {
            out.push_str(word);
            (previous, rest) = (word, after);
            continue;
        };
        out.push_str(&word.replacen(core, name, 1));
        // Where a column follows, it keeps its place.
        let gap = after.len() - after.trim_start_matches(' ').len();
        rest = after;
        if gap >= 3 && !after[gap..].starts_with('\n') {
            out.push_str(&" ".repeat((core.len() + gap).saturating_sub(name.len()).max(1)));
            rest = &after[gap..];
        }
        previous = word;
    }
    out
}

fn variable(word: &str, previous: &str) -> Option<&'static str> {
    let hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    // A revision stands behind "at": it is the same in every run.
    if (hex(word, 64) && previous != "at") || (hex(word, 12) && matches!(previous, "is" | "plan")) {
        return Some("PLAN");
    }
    if previous == "resourceVersion:" {
        return Some("VERSION");
    }
    let is_uid = |word: &str| {
        let parts: Vec<&str> = word.split('-').collect();
        matches!(parts[..], [a, b, c, d, e] if hex(a, 8) && [b, c, d].iter().all(|part| hex(part, 4)) && hex(e, 12))
    };
    if is_uid(word) {
        return Some("UID");
    }
    if word.strip_prefix("pvc-").is_some_and(is_uid) {
        return Some("pvc-UID");
    }
    if word.contains('T') && word.parse::<jiff::Timestamp>().is_ok() {
        return Some("TIME");
    }
    // A session is shorter than two minutes: older ages do not occur, and `100m` of a processor stays.
    let seconds = word.strip_suffix('s').is_some_and(|number| number.len() <= 3 && number.parse::<u8>().is_ok());
    if seconds {
        return Some("AGE");
    }
    word.starts_with("10.80.").then_some("ADDRESS")
}

#[test]
fn only_what_varies_is_replaced() {
    let table = "NAME   READY   AGE\nweb    1/1     12s   n1\n";
    assert_eq!(filtered(table, "/tmp/x"), "NAME   READY   AGE\nweb    1/1     AGE   n1\n");
    let id = "ab".repeat(32);
    assert_eq!(filtered(&format!("shop at {id}\nplan {id}\n"), "/tmp/x"), format!("shop at {id}\nplan PLAN\n"));
    assert_eq!(filtered("/tmp/x/shop: since 2026-01-01T00:00:00Z.\n", "/tmp/x"), "DIR/shop: since TIME.\n");
    assert_eq!(filtered("Pod a\n  waits\n  Events:\n    Warning\n", "/tmp/x"), "Pod a\n  waits\n");
    assert_eq!(filtered("cpu: 100m -> 250m\n", "/tmp/x"), "cpu: 100m -> 250m\n");
}
