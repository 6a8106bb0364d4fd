//! The rules of the house, read off the source: what may import what, what pure code may not touch,
//! how long a file and a function may be. Each broken rule is told with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where all code is pure, whether it says so or not.
const PURE_FOLDERS: [&str; 3] = ["src/admit/", "src/model/", "src/simulate/"];
const PURE_FILES: [&str; 4] = ["src/admit.rs", "src/store/snapshot.rs", "src/store/transaction.rs", "src/cri/types.rs"];

/// One source file: its text, and its lines without comments, strings and unit tests.
struct Source {
    /// Relative to the repository: `src/store/mod.rs`.
    path: String,
    text: String,
    code: Vec<String>,
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    folders.iter().for_each(|folder| walk(&root.join(folder), &mut files));
    files.sort();
    let relative = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| Source::new(&relative(path), fs::read_to_string(path).unwrap())).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let code = code_lines(&text);
        Self { path: path.to_owned(), text, code }
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    /// The box it belongs to: the first folder below `src`, or the file itself.
    fn house_box(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap().trim_end_matches(".rs")
    }

    fn is_unit_test(&self) -> bool {
        self.name().ends_with("tests.rs") || self.path.contains("/tests/") || self.path.starts_with("tests/")
    }

    fn is_pure(&self) -> bool {
        let by_place = self.name() == "plan.rs"
            || PURE_FOLDERS.iter().any(|folder| self.path.starts_with(folder))
            || PURE_FILES.contains(&self.path.as_str());
        let says_so = self.text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.trim_end().ends_with("PURE."));
        (by_place || says_so) && !self.is_unit_test()
    }
}

/// The lines of code outside unit tests, without comments and what is in quotes.
fn code_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut text_lines = text.lines().peekable();
    while let Some(line) = text_lines.next() {
        if line == "#[cfg(test)]" {
            // The module below it ends at the next line that is only a brace, or is one line.
            let Some(first) = text_lines.next() else { break };
            let one_line = first.trim_end().ends_with(';') || (first.contains('{') && first.trim_end().ends_with('}'));
            if !one_line {
                text_lines.by_ref().find(|line| *line == "}");
            }
            continue;
        }
        lines.push(strip(line));
    }
    lines
}

fn strip(line: &str) -> String {
    let mut kept = String::new();
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => drop(chars.next()),
            '"' => {
                quoted = !quoted;
                kept.push('"');
            }
            _ if quoted => {}
            '\'' if chars.peek() == Some(&'"') => drop((chars.next(), chars.next())),
            '/' if chars.peek() == Some(&'/') => break,
            _ => kept.push(c),
        }
    }
    kept
}

/// Every path that begins with `crate::`, `use` trees spelled out.
fn crate_paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == '$')) {
            tree(&code[at + "crate::".len()..], Vec::new(), &mut found);
        }
    }
    found
}

/// Reads one `use` tree or path; gives what follows it.
fn tree<'a>(text: &'a str, above: Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = above;
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            let mut inside = group.trim_start();
            while !inside.starts_with('}') && !inside.is_empty() {
                let after = tree(inside, path.clone(), found);
                let after = after.trim_start();
                let after = after.strip_prefix(',').unwrap_or(after).trim_start();
                if after.len() == inside.len() {
                    break;
                }
                inside = after;
            }
            return inside.strip_prefix('}').unwrap_or(inside);
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(rest.len());
        if end > 0 && &rest[..end] != "self" {
            path.push(rest[..end].to_owned());
        }
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(after) if !after.starts_with('<') => rest = after,
            _ => break,
        }
    }
    found.push(path);
    let rest = rest.trim_start();
    match rest.strip_prefix("as ") {
        Some(renamed) => renamed.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
        None => rest,
    }
}

/// The modules of the crate, and where their re-exported names come from.
struct Modules<'a> {
    by_path: BTreeMap<Vec<String>, &'a Source>,
}

impl<'a> Modules<'a> {
    fn new(sources: &'a [Source]) -> Self {
        let by_path = sources
            .iter()
            .filter(|source| source.path.starts_with("src/"))
            .map(|source| {
                let below = source.path.strip_prefix("src/").unwrap().trim_end_matches(".rs").trim_end_matches("/mod");
                (below.split('/').map(str::to_owned).collect(), source)
            })
            .collect();
        Self { by_path }
    }

    /// The file in which the path's item is defined.
    fn resolve(&self, path: &[String]) -> Option<&'a Source> {
        let length = (1..=path.len()).rev().find(|length| self.by_path.contains_key(&path[..*length]))?;
        let module = self.by_path[&path[..length]];
        let Some(item) = path.get(length) else { return Some(module) };
        let code = module.code.join("\n");
        for (at, _) in code.match_indices("pub use ") {
            let mut exported = Vec::new();
            tree(&code[at + "pub use ".len()..], Vec::new(), &mut exported);
            for mut from in exported {
                match from.last() {
                    Some(name) if name == item => {}
                    Some(name) if name == "*" => {
                        from.pop();
                        from.push(item.clone());
                    }
                    _ => continue,
                }
                let absolute = from.first().is_some_and(|first| first == "crate");
                let child: Vec<String> = if absolute { from.split_off(1) } else { path[..length].iter().cloned().chain(from).collect() };
                let defines = |source: &Source| defines(source, item) || source.code.join("\n").contains("pub use ");
                if child[..] != *path
                    && child.len() > 1
                    && self.by_path.get(&child[..child.len() - 1]).is_some_and(|source| defines(source))
                {
                    return self.resolve(&child);
                }
            }
        }
        Some(module)
    }
}

/// Whether the file defines a value of this name: not a trait, which is something done.
fn defines(source: &Source, item: &str) -> bool {
    let words = ["struct", "enum", "type", "const", "fn"].map(|word| format!("pub {word} {item}"));
    source.code.iter().any(|line| {
        words.iter().any(|words| {
            line.trim_start().strip_prefix(words.as_str()).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    })
}

/// What everyone may use: the seams, not what stands behind them.
const SEAMS: &[&str] = &[
    "src/store/mod.rs",
    "src/store/watch.rs",
    "src/driver.rs",
    "src/driver/events.rs",
    "src/driver/queue.rs",
    "src/clock.rs",
    "src/footprint.rs",
    "src/inside.rs",
    "src/config.rs",
    "src/cri/mod.rs",
    "src/cri/streaming/mod.rs",
    "src/network/mod.rs",
    "src/sync/source.rs",
];
/// Seams whose values stand beside their trait.
const VALUES: &[&str] = &["src/network/mod.rs", "src/sync/source.rs"];
const SEAM_BOXES: &[&str] = &["store", "driver", "clock", "footprint", "inside", "cri", "network", "tls", "config"];
/// The places that know which implementation is which.
const ROOTS: &[&str] = &["assemble", "main", "lib"];

/// Why `source` may not import `target`; none if it may.
fn refusal(source: &Source, target: &Source, item: &str) -> Option<&'static str> {
    let (from, to) = (source.house_box(), target.house_box());
    if source.is_pure() {
        // The values that go through a seam are data, whichever file they stand in.
        if VALUES.contains(&target.path.as_str()) && defines(target, item) {
            return None;
        }
        return (!target.is_pure())
            .then_some("pure code imports pure code only: what it decides must not depend on anything it could read or do");
    }
    if from == to || target.is_pure() || ROOTS.contains(&from) {
        return None;
    }
    if SEAMS.contains(&target.path.as_str()) || to == "tls" || target.name() == "fake.rs" {
        let upwards = SEAM_BOXES.contains(&from) && !SEAM_BOXES.contains(&to);
        return upwards.then_some("a seam does not know who uses it");
    }
    // The command line starts the daemon, and only that way reaches what is behind the seams.
    if from == "cli" && to == "assemble" {
        return None;
    }
    Some("boxes meet in the store and through seams, never in each other: only assemble.rs knows which implementation is which")
}

fn broken_imports(sources: &[Source]) -> Vec<String> {
    let modules = Modules::new(sources);
    let mut broken = BTreeSet::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/") && !source.is_unit_test() && source.house_box() != "shim")
    {
        for path in crate_paths(&source.code.join("\n")) {
            if let Some(target) = modules.resolve(&path)
                && let Some(reason) = refusal(source, target, path.last().map_or("", String::as_str))
            {
                broken.insert(format!("{} uses crate::{} ({}): {reason}", source.path, path.join("::"), target.path));
            }
        }
    }
    broken.into_iter().collect()
}

/// What pure code may not say, and why.
const IMPURE: &[(&str, &str)] = &[
    ("async ", "waits for nothing"),
    (".await", "waits for nothing"),
    ("tokio", "waits for nothing"),
    ("std::fs", "reads no files"),
    ("std::process", "starts no processes"),
    ("TcpStream", "opens no connections"),
    ("TcpListener", "opens no connections"),
    ("UdpSocket", "opens no connections"),
    ("UnixStream", "opens no connections"),
    ("std::env", "reads no environment"),
    ("std::thread", "starts no threads"),
    ("SystemTime", "gets the time as data"),
    ("Instant", "gets the time as data"),
    ("::now(", "gets the time as data"),
    ("HashMap", "iterates in one order always: BTreeMap"),
    ("HashSet", "iterates in one order always: BTreeSet"),
    ("rand::", "gets randomness as data"),
    ("new_v4", "gets ids as data"),
    ("Mutex", "holds no locks"),
    ("RwLock", "holds no locks"),
];

fn impurities(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.is_pure()) {
        for (line, (word, reason)) in source.code.iter().flat_map(|line| IMPURE.iter().map(move |it| (line, it))) {
            if line.contains(word) {
                broken.push(format!("{}: `{}`: pure code {reason}", source.path, line.trim()));
            }
        }
    }
    broken
}

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;

fn long_files(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().map(|source| (source, source.text.lines().count())).filter(|(_, lines)| *lines > FILE_LINES);
    long.map(|(source, lines)| format!("{}: {lines} lines: a file over {FILE_LINES} is two things", source.path)).collect()
}

/// Relies on rustfmt: a function ends at the first closing brace as far in as it began.
fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        let lines = &source.code;
        for (start, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            let words = trimmed.split_whitespace().take_while(|word| *word != "fn").count();
            let is_function = trimmed.split_whitespace().nth(words) == Some("fn")
                && trimmed
                    .split_whitespace()
                    .take(words)
                    .all(|word| word.starts_with("pub") || ["async", "const", "unsafe", "extern"].contains(&word));
            if !is_function {
                continue;
            }
            let end = format!("{}}}", &line[..line.len() - trimmed.len()]);
            let body: Vec<&String> = lines[start + 1..].iter().take_while(|line| line.trim_end() != end).collect();
            let count = body.iter().filter(|line| !line.trim().is_empty()).count();
            let opens = lines[start..=start + body.len()].iter().any(|line| line.trim_end().ends_with('{'));
            if opens && !trimmed.trim_end().ends_with(['}', ';']) && count > FUNCTION_LINES {
                broken.push(format!(
                    "{}: `{}` has {count} lines: over {FUNCTION_LINES} it has parts with names",
                    source.path,
                    trimmed.trim_end()
                ));
            }
        }
    }
    broken
}

/// Words that have no place anywhere outside the named files.
fn forbidden_words(sources: &[Source]) -> Vec<String> {
    let rules: [(&str, &str); 5] = [
        ("unsafe ", "unsafe code lives in files named sys.rs, where each block is argued"),
        ("todo!(", "what is not written is not there"),
        ("unimplemented!(", "what is not written is not there"),
        ("dbg!(", "left from a hunt"),
        ("#[ignore", "a test that is skipped is no test"),
    ];
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.path != "tests/it/tidy.rs") {
        let all: Vec<String> = source.text.lines().map(strip).collect();
        for (line, (word, reason)) in all.iter().flat_map(|line| rules.iter().map(move |it| (line, it))) {
            let allowed = *word == "unsafe " && source.name() == "sys.rs";
            if line.contains(word) && !allowed {
                broken.push(format!("{}: `{}`: {reason}", source.path, line.trim()));
            }
        }
    }
    broken
}

fn forbidden_names(sources: &[Source]) -> Vec<String> {
    let names = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "shared", "base"];
    let of = |source: &Source| source.path.trim_end_matches(".rs").split('/').any(|part| names.contains(&part));
    sources.iter().filter(|source| of(source)).map(|source| format!("{}: a name that says nothing holds anything", source.path)).collect()
}

fn undocumented(sources: &[Source]) -> Vec<String> {
    let bare = sources.iter().filter(|source| !source.text.starts_with("//!") && !source.is_unit_test() && source.code.len() > 2);
    bare.map(|source| format!("{}: begins with no `//!`: a reader must learn what it is for", source.path)).collect()
}

#[test]
fn the_house_is_tidy() {
    let src = sources(&["src"]);
    let all = sources(&["src", "tests", "benches"]);
    assert!(src.len() > 20 && all.len() > src.len(), "the sources are found");
    for place in PURE_FOLDERS.iter().chain(&PURE_FILES) {
        assert!(src.iter().any(|source| source.path.starts_with(place)), "{place} is pure, and nowhere");
    }
    let broken: Vec<String> = [
        broken_imports(&src),
        impurities(&src),
        long_files(&all),
        long_functions(&src),
        forbidden_words(&all),
        forbidden_names(&all),
        undocumented(&src),
    ]
    .concat();
    assert!(broken.is_empty(), "{} rules broken:\n{}", broken.len(), broken.join("\n"));
}

fn house(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(path, text)| Source::new(path, (*text).to_owned())).collect()
}

#[test]
fn each_import_rule_can_fail() {
    let mut files = vec![
        ("src/model/mod.rs", "//! Objects. PURE.\nmod key;\npub use key::Key;"),
        ("src/model/key.rs", "//! K.\npub struct Key;"),
        ("src/store/mod.rs", "//! S. SEAM.\npub mod memory;\npub mod snapshot;\npub use snapshot::{Change, Snapshot};"),
        ("src/store/snapshot.rs", "//! S.\npub struct Snapshot;\npub struct Change {}"),
        ("src/store/memory.rs", "//! M."),
        ("src/control/mod.rs", "//! C.\nuse crate::{model::Key, store::{self, Snapshot as S}};"),
        (
            "src/control/job/plan.rs",
            "//! P.\nuse crate::store::Snapshot;\n#[cfg(test)]\nmod tests {\n    use crate::store::memory::MemoryStore;\n}\n",
        ),
        ("src/agent/mod.rs", "//! A.\n// use crate::control::x;\nlet a = \"crate::control::x\";"),
        ("src/assemble.rs", "//! A.\nuse crate::store::memory::MemoryStore;"),
    ];
    assert_eq!(broken_imports(&house(&files)), [""; 0]);
    for (path, text, word) in [
        ("src/control/job/plan.rs", "use crate::store::Store;", "pure code imports"),
        ("src/model/key.rs", "fn f() { crate::store::Store::x() }", "pure code imports"),
        ("src/control/x.rs", "use crate::store::memory::MemoryStore;", "never in each other"),
        ("src/control/x.rs", "use crate::{\n    model::Key,\n    agent::{self, Thing},\n};", "never in each other"),
        ("src/store/x.rs", "use crate::sync::source::Fetch;", "does not know who uses it"),
    ] {
        files.push((path, text));
        files.push(("src/sync/source.rs", "//! S."));
        let broken = broken_imports(&house(&files));
        assert!(!broken.is_empty() && broken.iter().all(|it| it.contains(word)), "{path}: {broken:?}");
        files.truncate(9);
    }
}

#[test]
fn each_other_rule_can_fail() {
    let one = |path: &str, text: &str| house(&[(path, text)]);
    assert_eq!(impurities(&one("src/x/plan.rs", "fn f() { let now = Timestamp::now(); }")).len(), 1);
    assert_eq!(impurities(&one("src/x/rank.rs", "//! Ranks. PURE.\nuse std::collections::HashMap;")).len(), 1);
    assert_eq!(impurities(&one("src/admit/silent.rs", "fn f() { let now = Timestamp::now(); }")).len(), 1);
    assert_eq!(impurities(&one("src/x/act.rs", "use std::collections::HashMap;")).len(), 0);
    assert_eq!(long_files(&one("src/x.rs", &"\n".repeat(801))).len(), 1);
    let body = |lines: usize| {
        format!("impl X {{\n    pub async fn f(\n        a: u8,\n    ) -> u8 {{\n{}    }}\n}}\n", "        a();\n".repeat(lines))
    };
    assert_eq!(long_functions(&one("src/x.rs", &body(71))).len(), 1);
    assert_eq!(long_functions(&one("src/x.rs", &body(60))).len(), 0);
    for text in ["unsafe { x() }", "todo!()", "#[ignore]", "dbg!(x)"] {
        assert_eq!(forbidden_words(&one("src/x.rs", text)).len(), 1, "{text}");
    }
    assert_eq!(forbidden_words(&one("src/sys.rs", "unsafe { x() }")).len(), 0);
    assert_eq!(forbidden_names(&one("src/x/utils.rs", "")).len(), 1);
    assert_eq!(undocumented(&one("src/x.rs", "fn f() {}\n\nfn g() {}")).len(), 1);
}
