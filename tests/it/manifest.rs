//! Manifests: what kubectl makes of 390 tricky documents, every error of a tree at once with its
//! place, bounds on hostile text.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use podbay::model::manifest::{self, Manifests, Options, Problem, Unsupported};
use podbay::model::{Key, Kind};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Where we differ from kubectl on purpose.
const DIFFERENCES: &[(&str, &str)] = &[
    ("dup-key", "a key given twice is refused; kubectl takes the last one"),
    ("dup-key-quoted", "as dup-key"),
    ("dup-key-yes-true", "as dup-key: both are the key `true`"),
    ("dup-key-hex", "as dup-key: both are the key `16`"),
    ("dup-key-flow", "as dup-key"),
    ("dup-top", "as dup-key"),
    ("key-int-and-string", "as dup-key: both are the key `1`"),
    ("url", "a newer libyaml allows `?` and `#` inside a word of a flow list"),
    ("flow-tabs", "lines of a block's flow collection may not begin with a tab"),
    ("flow-hash-adjacent", "`,#` is a comment to libyaml and an error by the specification"),
    ("json-dup", "as dup-key"),
    ("json-dup-escaped", "as dup-key"),
    ("json-trailing-comma", "a .json file is JSON; kubectl falls back on YAML"),
    ("json-leading-zero", "as json-trailing-comma"),
    ("double-slash", "`\\/` is an escape of YAML 1.2 that kubectl's parser does not know"),
    ("tag-binary-bytes", "bytes that are not text are refused; kubectl puts U+FFFD for them"),
    ("no-version", "kubectl lets the server find out"),
    ("configmap-number", "kubectl lets the server find out"),
    ("configmap-bool", "kubectl lets the server find out"),
    ("pod-port-string", "kubectl lets the server find out"),
    ("pod-cmd-number", "kubectl lets the server find out"),
];

struct Sample {
    name: String,
    file: String,
    text: Vec<u8>,
}

const HEAD: &str = "apiVersion: probe.podbay.dev/v1\nkind: Probe\nmetadata:\n  name: probe\n";

/// The documents of `documents.txt`, built as `regenerate` builds them.
fn samples() -> Vec<Sample> {
    let corpus = fs::read_to_string(corpus("documents.txt")).unwrap();
    let mut found: Vec<(String, Vec<String>, String)> = Vec::new();
    for line in corpus.strip_suffix('\n').unwrap().split('\n') {
        if let Some(header) = line.strip_prefix("=== ") {
            let mut words = header.split(' ').map(str::to_owned);
            found.push((words.next().unwrap(), words.collect(), String::new()));
        } else {
            let text = &mut found.last_mut().unwrap().2;
            text.push_str(line);
            text.push('\n');
        }
    }
    found.into_iter().map(|(name, flags, text)| sample(name, &flags, &text)).collect()
}

fn sample(name: String, flags: &[String], text: &str) -> Sample {
    let has = |flag: &str| flags.iter().any(|it| it == flag);
    let mut text = if has("raw") || has("json") { text.to_owned() } else { format!("{HEAD}{text}") };
    if has("nonl") {
        text.pop();
    }
    if has("crlf") {
        text = text.replace('\n', "\r\n");
    }
    if has("bom") {
        text.insert(0, '\u{feff}');
    }
    let extension = if has("json") { "json" } else { "yaml" };
    Sample { file: format!("{name}.{extension}"), name, text: text.into_bytes() }
}

fn corpus(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(file)
}

/// Reads one file, unserved kinds let through: the errors, or the values as written.
fn look(sample: &Sample) -> Result<Vec<Value>, Vec<Problem>> {
    let found = manifest::read(&sample.file, &sample.text, &Options { unsupported: Unsupported::Skip, ..Options::default() });
    if !found.problems.is_empty() {
        return Err(found.problems);
    }
    let mut values = Vec::new();
    for document in manifest::parse(&sample.file, &sample.text)? {
        match document.value["kind"].as_str() {
            Some("List") => values.extend(document.value["items"].as_array().unwrap().iter().cloned()),
            _ => values.push(document.value),
        }
    }
    Ok(values)
}

/// kubectl writes numbers as Go does; equal numbers are equal values.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            // Integers beyond 64 bits and fractions are floats on both sides.
            _ => a.is_f64() && a.as_f64() == b.as_f64(),
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b))),
        _ => ours == theirs,
    }
}

#[test]
fn every_document_means_what_it_means_to_kubectl() {
    let answers: BTreeMap<String, Value> = fs::read_to_string(corpus("kubectl.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|answer| (answer["name"].as_str().unwrap().to_owned(), answer))
        .collect();
    let samples = samples();
    assert!(samples.len() >= 390 && samples.len() == answers.len(), "{} documents, {} answers", samples.len(), answers.len());
    let mut wrong = Vec::new();
    for sample in &samples {
        let answer = &answers[&sample.name];
        let fine = match (look(sample), answer["error"].as_str()) {
            (Ok(ours), None) => agree(&ours, answer["objects"].as_array().unwrap()),
            (Ok(ours), Some(error)) => error.contains("no objects passed") && ours.is_empty(),
            (Err(_), Some(_)) => true,
            (Err(_), None) => false,
        };
        let differs = DIFFERENCES.iter().any(|(name, _)| *name == sample.name);
        if fine == differs {
            wrong.push(format!(
                "{}: ours {:?}\n  kubectl {answer}",
                sample.name,
                look(sample).map_err(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>())
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), samples.len(), wrong.join("\n"));
}

fn agree(ours: &[Value], theirs: &[Value]) -> bool {
    let mut theirs = theirs.to_vec();
    for (object, ours) in theirs.iter_mut().zip(ours) {
        // kubectl fills in the namespace.
        if ours["metadata"].get("namespace").is_none() {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
    }
    ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(ours, theirs)| same(ours, theirs))
}

fn read(files: &[(&str, &str)], unsupported: Unsupported) -> Result<Manifests, Vec<String>> {
    let options = Options { namespace: "web".to_owned(), unsupported, ..Options::default() };
    let mut all = Manifests::default();
    for (name, text) in files {
        let mut found = manifest::read(name, text.as_bytes(), &options);
        all.objects.append(&mut found.objects);
        all.skipped.append(&mut found.skipped);
        all.problems.append(&mut found.problems);
    }
    if all.problems.is_empty() { Ok(all) } else { Err(all.problems.iter().map(ToString::to_string).collect()) }
}

#[test]
fn all_errors_of_a_tree_come_at_once_with_their_places() {
    let bad = read(
        &[
            ("a.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replica: 3\n  template:\n    spec:\n      containers:\n      - name: c\n        ports:\n        - containerPort: \"80\"\n"),
            ("b.yml", "kind: ConfigMap\n---\n# nothing\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  debug: yes\n  debug: no\n---\n- 1\n"),
            ("c.json", "{\"apiVersion\": \"v1\",\n \"kind\": \"ConfgMap\"}"),
            ("d.toml", "apiVersion = \"v1\"\nkind = \"Service\"\n[metadata]\nname = \"s\"\n[[spec.ports]]\nprt = 80\n"),
            ("e.yaml", "a: [1\n---\nb: \"\\q\"\n"),
            ("f.yml", "apiVersion: v1\nkind: list\n---\napiVersion: apps/v1\nkind: deploy\n---\napiVersion: v1\nkind: Thing\n"),
            ("f.yaml", "apiVersion: extensions/v1beta1\nkind: Deployment\n---\napiVersion: v1\nkind: Pod\nmetadata: {generateName: x}\n"),
        ],
        Unsupported::Refuse,
    )
    .unwrap_err();
    insta::assert_snapshot!(bad.join("\n"), @r"
    a.yaml:6:3: unknown field `replica` in Deployment.spec, did you mean `replicas`?
    a.yaml:12:26: Deployment.spec.template.spec.containers[0].ports[0].containerPort must be an integer, not a string, remove the quotes
    b.yml:1:1: this ConfigMap has no apiVersion, add `apiVersion: v1`
    b.yml:10:3: `debug` is given twice in one mapping, first on line 9
    b.yml:10:10: ConfigMap.data.debug must be a string, not a boolean, put it in quotes: yes, no, on, off, y, n, true and false are booleans in YAML
    b.yml:12:1: a manifest is a mapping with apiVersion and kind, not this
    c.json:2:2: kind ConfgMap (v1) is not served, did you mean `ConfigMap`?
    d.toml:6:1: unknown field `prt` in Service.spec.ports[0], did you mean `port`?
    e.yaml:1:4: not YAML: unclosed bracket '['
    e.yaml:3:4: not YAML: while parsing a quoted scalar, found unknown escape character
    f.yml:2:1: kind list (v1) is not served, did you mean `List`?
    f.yml:5:1: kind deploy (apps/v1) is not served, did you mean `Deployment`?
    f.yml:8:1: kind Thing (v1) is not served, Kubernetes has no such kind either
    f.yaml:2:1: Deployment of extensions/v1beta1 is not served, Deployment is served as apps/v1
    f.yaml:6:1: this Pod has no metadata.name, a generated name would make a new object at every look
    ");
}

#[test]
fn what_is_not_served_is_skipped_loudly_or_refused() {
    let text = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: nightly, namespace: jobs}\n";
    let bad = read(&[("cron.yaml", text)], Unsupported::Refuse).unwrap_err();
    assert_eq!(bad, ["cron.yaml:2:1: kind CronJob (batch/v1) is not served, `unsupported: skip` on the Source leaves such documents out"]);
    let found = read(&[("cron.yaml", text)], Unsupported::Skip).unwrap();
    assert!(found.objects.is_empty());
    assert_eq!(found.skipped[0].to_string(), "cron.yaml:1: CronJob jobs/nightly: kind CronJob (batch/v1) is not served");
    // Skipping is for kinds, not for mistakes.
    assert!(read(&[("a.yaml", "apiVersion: v1\nkind: Pod\nspec: 1\n"), ("b.yaml", text)], Unsupported::Skip).is_err());
}

#[test]
fn lists_and_every_format_become_objects_with_a_namespace() {
    let found = read(
        &[
            ("l.yaml", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: one}\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: two, namespace: nonsense}\n"),
            ("s.json", r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s","namespace":"x"},"spec":{"ports":[{"port":80}]}}"#),
            ("t.toml", "apiVersion = 'v1'\nkind = 'ConfigMap'\nmetadata.name = 't'\ndata = { when = '1', day = 2001-12-14 }\n"),
        ],
        Unsupported::Refuse,
    )
    .unwrap();
    let keys: Vec<Key> = found.objects.iter().map(|manifest| manifest.key().clone()).collect();
    assert_eq!(
        keys,
        [
            Key::new(Kind::ConfigMap, "web", "one"),
            Key::cluster(Kind::Namespace, "two"),
            Key::new(Kind::Service, "x", "s"),
            Key::new(Kind::ConfigMap, "web", "t"),
        ]
    );
    assert_eq!(found.objects[3].object.value()["data"], json!({"when": "1", "day": "2001-12-14"}));
    // As written: no namespace was.
    assert_eq!(found.objects[3].value["metadata"], json!({"name": "t"}));
    let port = found.objects[2].position("spec.ports[0].port");
    assert_eq!((port.line, port.column), (1, 95));
}

#[test]
fn paths_lead_to_their_lines() {
    let text = "# head\napiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels: {app.kubernetes.io/name: x}\nx-c: &c\n  name: c\n";
    let text = text.replace("x-c: &c\n  name: c\n", "spec:\n  containers:\n  - name: a\n    image: i\n  - name: b\n    image: é\n");
    let found = read(&[("p.yaml", &text)], Unsupported::Refuse).unwrap();
    for (path, line, column) in [
        ("", 2, 1),
        ("metadata.name", 5, 3),
        ("metadata.labels[app.kubernetes.io/name]", 6, 12),
        ("metadata.labels.app.kubernetes.io/name", 6, 12),
        ("spec.containers[1].image", 12, 5),
        ("spec.containers[1].ports[0].containerPort", 11, 5),
        ("spec.containers[7].image", 8, 3),
        ("spec.restartPolicy", 7, 1),
        ("status", 2, 1),
    ] {
        let at = found.objects[0].position(path);
        assert_eq!((at.line, at.column), (line, column), "{path}");
    }
}

#[test]
fn secrets_never_show_in_a_message() {
    let bad = read(
        &[
            (
                "a.yaml",
                "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: hunter2!}\nstringData: {n: 271828}\ntype: [hunter2]\n",
            ),
            ("b.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {k: !!int hunter2, j: \"hunter2\\q\"}\n"),
            ("c.yaml", "stringData: {k: !!int hunter2}\n"),
            ("d.yaml", "stringData: {k: @hunter2}\n"),
            ("e.json", "{\"stringData\": {\"k\": hunter2}}"),
            ("f.toml", "stringData.k = hunter2\n"),
            ("g.yaml", "stringData: hunter2: hunter2\n"),
        ],
        Unsupported::Refuse,
    )
    .unwrap_err()
    .join("\n");
    for file in ["a.yaml:4:", "a.yaml:5:", "b.yaml:", "c.yaml:", "d.yaml:", "e.json:", "f.toml:", "g.yaml:"] {
        assert!(bad.contains(file), "{file} in\n{bad}");
    }
    assert!(!bad.contains("hunter") && !bad.contains("271828"), "{bad}");
}

#[test]
fn hostile_text_is_refused_in_bounded_time_and_space() {
    let deep = |open: &str, close: &str| format!("a: {}{}", open.repeat(200_000), close.repeat(200_000));
    let bomb = {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..60 {
            let below = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(","));
        }
        text
    };
    let merge_bomb = {
        let mut text = String::from("a0: &a0 {x: 1}\n");
        for level in 1..60 {
            let below = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level}\n  <<: [{}]\n", [below.as_str(); 10].join(","));
        }
        text
    };
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..2_000 {
        chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    let start = Instant::now();
    for (name, text) in [
        ("flow.yaml", deep("[", "]")),
        ("maps.yaml", deep("{a: ", "}")),
        ("block.yaml", (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()),
        ("dashes.yaml", format!("a:\n {}", "- ".repeat(100_000))),
        ("questions.yaml", "? ".repeat(100_000)),
        ("wide.yaml", format!("a: [{}]", "x,".repeat(2_000_000))),
        ("bomb.yaml", bomb),
        ("merge.yaml", merge_bomb),
        ("chain.yaml", chain),
        ("deep.json", deep("[", "]").replacen("a: ", "", 1)),
        ("deep.toml", deep("[", "]").replacen("a: ", "a = ", 1)),
        ("line.json", format!("{{\"x\": [{}1]}}", "1,".repeat(490_000))),
        ("wide.json", format!("{{\"x\": [{}1]}}", "1,".repeat(4_000_000))),
        ("wide.toml", format!("x = [{}1]", "1,".repeat(4_000_000))),
        ("dots.toml", format!("{}a = 1", "a.".repeat(1_000_000))),
        ("header.toml", format!("[{}a]\nb = 1", "a.".repeat(1_000_000))),
        ("big.yaml", format!("a: {}", "x".repeat(manifest::FILE_BYTES))),
        ("anchors.yaml", "- &a x\n".repeat(300_000)),
        ("tags.yaml", "!a".repeat(500_000)),
        ("quotes.yaml", "\"".repeat(500_001)),
    ] {
        let bad = manifest::parse(name, text.as_bytes());
        if name != "anchors.yaml" && name != "line.json" {
            let bad = bad.expect_err(name);
            assert!(bad.len() <= 100 && bad.iter().all(|problem| problem.message.len() < 1_000), "{name}");
        }
    }
    // Generous: a bomb that goes off takes hours.
    assert!(start.elapsed().as_secs() < 300, "{:?}", start.elapsed());
}

/// Files that an editor marked, joined.
#[test]
fn a_byte_order_mark_may_begin_any_document() {
    let documents = manifest::parse("a.yaml", "\u{feff}a: 1\n---\n\u{feff}b: 2\n---\n\u{feff}{\"c\": 3}\n".as_bytes()).unwrap();
    let values: Vec<Value> = documents.into_iter().map(|document| document.value).collect();
    assert_eq!(values, [json!({"a": 1}), json!({"b": 2}), json!({"c": 3})]);
}

/// Text made of the pieces YAML is made of.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        ":",
        ": ",
        "- ",
        "-",
        "\n",
        "\n  ",
        "\n    ",
        " ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&x ",
        "*x",
        "*y",
        "!!str ",
        "!!int ",
        "!t ",
        "<<: ",
        "? ",
        "| ",
        "|\n",
        ">-\n",
        "'",
        "\"",
        "\\",
        "#",
        " #c\n",
        "---",
        "\n---\n",
        "...",
        "%YAML 1.1\n",
        "\t",
        "\r\n",
        "\u{feff}",
        "0644",
        "yes",
        "~",
        ".inf",
        "1e3",
        "é",
        "kind: ",
        "apiVersion: v1\n",
        "\u{85}",
        "\u{2028}",
        "\0",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn read_anything(name: &str, bytes: &[u8]) {
    for unsupported in [Unsupported::Refuse, Unsupported::Skip] {
        let problems = manifest::read(name, bytes, &Options { unsupported, ..Options::default() }).problems;
        assert!(problems.is_sorted() && problems.iter().all(|problem| problem.line > 0 && problem.column > 0), "{problems:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in yaml_like(), extension in prop::sample::select(vec!["yaml", "json", "toml"])) {
        read_anything(&format!("x.{extension}"), text.as_bytes());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), extension in prop::sample::select(vec!["yaml", "json", "toml"])) {
        read_anything(&format!("x.{extension}"), &bytes);
    }

    /// What serde_json writes comes back as it was, from JSON and from YAML.
    #[test]
    fn json_comes_back(map in prop::collection::btree_map("[a-z]{1,5}", "\\PC{0,12}", 0..5), number in any::<i64>()) {
        let value = json!({"apiVersion": "v1", "kind": "X", "data": map, "n": number, "l": [null, true, {"a": []}]});
        let text = serde_json::to_string_pretty(&value).unwrap();
        for name in ["x.json", "x.yaml"] {
            prop_assert_eq!(&manifest::parse(name, text.as_bytes()).unwrap()[0].value, &value);
        }
        let yaml = serde_yaml::to_string(&value).unwrap();
        prop_assert_eq!(&manifest::parse("x.yaml", yaml.as_bytes()).unwrap()[0].value["data"]["zzzzzz"], &Value::Null);
    }
}
