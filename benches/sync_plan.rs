//! How long sync takes to decide: a tree of 10,000 objects rendered, planned unchanged, and with one
//! file changed. Prints one line a measure; `cargo bench --bench sync_plan`.

#![allow(clippy::unwrap_used)] // a panic is how a bench fails

use std::time::{Duration, Instant};

use podbay::model::{Key, Kind, Object, Source, SourceSpec, Timestamp};
use podbay::store::Snapshot;
use podbay::store::transaction::{Stamp, Transaction, Write};
use podbay::sync::look::{Look, Memory, decide};
use podbay::sync::source::Tree;

const OBJECTS: usize = 10_000;
const ROUNDS: usize = 9;

fn manifest(index: usize, version: usize) -> String {
    let name = format!("app-{index:05}");
    match index % 4 {
        0 => format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      containers:\n      - name: web\n        image: registry/web:{version}\n        env: [{{name: A, value: \"1\"}}, {{name: B, value: \"2\"}}]\n        ports: [{{containerPort: 80}}]\n        resources: {{requests: {{cpu: 100m, memory: 64Mi}}, limits: {{memory: 128Mi}}}}\n"
        ),
        1 => format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}\n"
        ),
        _ => format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: \"{version}\", b: text, c: more}}\n"),
    }
}

fn tree(changed: Option<usize>, revision: &str) -> Tree {
    let file = |index: usize| (format!("apps/{index:05}.yaml"), manifest(index, usize::from(changed == Some(index))).into_bytes());
    Tree { revision: revision.to_owned(), files: (0..OBJECTS).map(file).collect(), path_exists: true, ..Tree::default() }
}

struct Bench {
    state: Snapshot,
    memory: Memory,
    source: Source,
}

impl Bench {
    fn commit(&mut self, transaction: &Transaction) {
        let mut uid = || "source-uid".to_owned();
        let mut stamp = Stamp { now: Timestamp::UNIX_EPOCH, uid: &mut uid };
        self.state = self.state.apply(transaction, self.state.revision() + 1, &mut stamp).unwrap().snapshot;
    }

    fn decide(&mut self, look: &Look) -> Transaction {
        let mut number = 0;
        let mut uid = || {
            number += 1;
            format!("uid-{number}")
        };
        decide(&self.state, "all", look, None, &mut self.memory, &mut uid, Timestamp::UNIX_EPOCH).transaction
    }

    fn look(&mut self, tree: Tree) -> Look {
        let look = Look::of(tree, &self.source.spec, self.state.definitions(), &mut self.memory);
        assert!(matches!(look, Look::Read(_)));
        look
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn report(what: &str, times: Vec<Duration>, budget: Option<u64>) {
    let least = times.iter().min().copied().unwrap_or_default();
    let budget = budget.map(|ms| format!("  (budget {ms} ms)")).unwrap_or_default();
    println!("{what:<52} median {:>8.2} ms  min {:>8.2} ms{budget}", median(times).as_secs_f64() * 1e3, least.as_secs_f64() * 1e3);
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

fn main() {
    let source = Source::new("all", SourceSpec { directory: Some("/srv".to_owned()), ..SourceSpec::default() });
    let mut bench = Bench { state: Snapshot::default(), memory: Memory::default(), source: source.clone() };
    let namespace = |name: &str| Object::from_value(Kind::Namespace, serde_json::json!({"metadata": {"name": name}})).unwrap();
    let mut base = Transaction::new("admin").with(Write::Create(Object::new(source)));
    base.writes.extend(["default", "kube-system"].map(|name| Write::Create(namespace(name))));
    bench.commit(&base);
    let (first, look) = timed(|| bench.look(tree(None, "r0")));
    report("render 10,000 manifests, all new", vec![first], None);
    for _ in 0..3 {
        let (time, transaction) = timed(|| bench.decide(&look));
        if transaction.writes.len() > OBJECTS {
            report("plan 10,000 new objects", vec![time], None);
        }
        let (time, ()) = timed(|| {
            if !transaction.writes.is_empty() {
                bench.commit(&transaction)
            }
        });
        if transaction.writes.len() > OBJECTS {
            report("apply them to a snapshot, in one transaction", vec![time], None);
        }
    }
    assert!(bench.state.get(&Key::new(Kind::Deployment, "default", "app-00000")).is_some());
    let mut forgetful = Vec::new();
    for _ in 0..3 {
        bench.memory = Memory::default();
        let (time, transaction) = timed(|| bench.decide(&look));
        assert!(transaction.writes.is_empty());
        forgetful.push(time);
    }
    report("plan 10,000 unchanged objects, first after a start", forgetful, None);
    let unchanged = (0..ROUNDS).map(|_| timed(|| bench.decide(&look)).0).collect();
    report("plan 10,000 unchanged objects", unchanged, Some(100));
    let (mut renders, mut plans) = (Vec::new(), Vec::new());
    bench.look(tree(None, "r0"));
    for round in 0..ROUNDS {
        let tree = tree(Some(round * 4), &format!("r{}", round + 1));
        let (render, look) = timed(|| bench.look(tree));
        let (plan, transaction) = timed(|| bench.decide(&look));
        assert!(!transaction.writes.is_empty());
        bench.commit(&transaction);
        // The commit's own change of revisions is part of the next plan; come to rest first.
        while {
            let again = bench.decide(&look);
            !again.writes.is_empty() && {
                bench.commit(&again);
                true
            }
        } {}
        renders.push(render);
        plans.push(plan);
    }
    report("render a one-file change among 10,000", renders, None);
    report("plan a one-file change among 10,000", plans, Some(10));
}
