//! A session file: what a person does, step by step, and what they see.
//!
//! ```text
//! # Prose, for the reader.
//! nodes n1 n2                        the cluster's nodes, once, at the top
//! write shop/web.yaml                a file in the session's directory; its text is indented by four
//!     kind: ...
//! change shop/web.yaml: OLD -> NEW   replaces the only occurrence in a file
//! delete shop/web.yaml               a file or a directory
//! configure shop=./shop              the server starts with these sources, and no others, in its configuration
//! end CONTAINER CODE                 the process of a running container ends
//! hide TEXT                          from now on `podbay` may not print it, save it or tell it in an event
//! $ podbay reconcile shop            the real program (`$ kubectl` is the real one too) against the cluster
//!     standard output
//!   ! standard error
//!   ? 2                              the exit code, unless it is 0
//!   = as foretold: ...               the preview before this reconcile, against the cluster at rest
//! ```
//!
//! Before each command, and before a process ends, the cluster has come to rest. `PLAN` in a command is the id of the plan that
//! was printed last, `DIR` the session's directory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use base64::Engine as _;
use podbay::model::SourceSpec;
use podbay::simulate::Preview;
use serde_json::Value;

use super::cluster::Cluster;
use super::filter::filtered;
use super::foretold::Foretold;
use crate::rig;

/// A step of a session.
#[derive(Debug)]
pub enum Step {
    /// Prose and blank lines, kept as they are.
    Prose(String),
    Nodes(String),
    Write(String, String),
    Change(String),
    Delete(String),
    Configure(String),
    End(String),
    Hide(String),
    Run(String),
}

/// Reads a session; what commands printed is left out.
pub fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        // A blank line within what a command printed.
        if line.is_empty() && matches!(steps.last(), Some(Step::Run(_))) && lines.peek().is_some_and(|next| next.starts_with("  ")) {
            continue;
        }
        let indented = line.strip_prefix("    ");
        let step = match line.split_once(' ').unwrap_or((line, "")) {
            _ if line.is_empty() || line.starts_with('#') => Step::Prose(line.to_owned()),
            ("nodes", names) => Step::Nodes(names.to_owned()),
            ("write", path) => Step::Write(path.to_owned(), String::new()),
            ("change", rest) => Step::Change(rest.to_owned()),
            ("delete", path) => Step::Delete(path.to_owned()),
            ("configure", rest) => Step::Configure(rest.to_owned()),
            ("end", rest) => Step::End(rest.to_owned()),
            ("hide", text) => Step::Hide(text.to_owned()),
            ("$", command) => Step::Run(command.to_owned()),
            _ => match steps.last_mut() {
                Some(Step::Write(_, text)) if indented.is_some() => {
                    writeln!(text, "{}", indented.unwrap()).unwrap();
                    continue;
                }
                Some(Step::Run(_)) if line.starts_with("  ") => continue,
                _ => panic!("a session has no such line: {line}"),
            },
        };
        steps.push(step);
    }
    steps
}

/// One session as it runs.
pub struct Session {
    cluster: Option<Cluster>,
    nodes: usize,
    directory: tempfile::TempDir,
    /// The last plan id that was printed.
    plan: String,
    foretold: Option<Foretold>,
    /// What `podbay` may not tell, plain and in base64.
    hidden: Vec<String>,
    transcript: String,
}

impl Session {
    /// Plays the steps; the session with what was printed.
    pub async fn play(steps: Vec<Step>) -> String {
        let mut session = Self {
            cluster: None,
            nodes: 0,
            directory: tempfile::tempdir().unwrap(),
            plan: String::new(),
            foretold: None,
            hidden: Vec::new(),
            transcript: String::new(),
        };
        for step in steps {
            session.step(step).await;
        }
        session.transcript
    }

    fn say(&mut self, line: &str) {
        writeln!(self.transcript, "{}", line.trim_end()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("a session starts with `nodes`")
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Prose(line) => self.say(&line),
            Step::Nodes(names) => {
                self.say(&format!("nodes {names}"));
                let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
                self.nodes = names.len();
                self.cluster = Some(Cluster::start(&names).await);
            }
            Step::Write(name, text) => {
                self.say(&format!("write {name}"));
                text.lines().for_each(|line| self.say(&format!("    {line}")));
                let path = self.path(&name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Step::Change(what) => {
                self.say(&format!("change {what}"));
                self.change(&what);
            }
            Step::Delete(name) => {
                self.say(&format!("delete {name}"));
                let path = self.path(&name);
                if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
            }
            Step::Configure(sources) => {
                self.say(&format!("configure {sources}"));
                self.configure(&sources).await;
            }
            Step::End(what) => {
                self.say(&format!("end {what}"));
                let (container, code) = what.split_once(' ').expect("CONTAINER CODE");
                let code = code.parse().unwrap();
                let nodes = self.nodes;
                self.cluster().rest(nodes).await;
                self.cluster().end_container(container, code).await;
            }
            Step::Hide(text) => {
                self.say(&format!("hide {text}"));
                self.hidden.push(base64::engine::general_purpose::STANDARD.encode(&text));
                self.hidden.push(text);
            }
            Step::Run(command) => self.run(&command).await,
        }
    }

    async fn configure(&mut self, sources: &str) {
        let spec = |place| SourceSpec { directory: Some(self.path(place).display().to_string()), ..SourceSpec::default() };
        let named = sources.split_whitespace().map(|one| one.split_once("=./").expect("NAME=./DIRECTORY"));
        let configured = named.map(|(name, place)| (name.to_owned(), spec(place))).collect();
        let nodes = self.nodes;
        self.cluster().rest(nodes).await;
        self.cluster().configure(&configured).await;
    }

    fn change(&self, what: &str) {
        let (name, change) = what.split_once(": ").expect("FILE: OLD -> NEW");
        let (old, new) = change.split_once(" -> ").expect("OLD -> NEW");
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{name} holds {old:?} not once");
        std::fs::write(self.path(name), text.replacen(old, new, 1)).unwrap();
    }

    async fn run(&mut self, command: &str) {
        self.say(&format!("$ {command}"));
        let nodes = self.nodes;
        let before = self.cluster().rest(nodes).await;
        let line = command.replace("PLAN", &self.plan).replace("DIR", self.directory.path().to_str().unwrap());
        let words = words(&line);
        let output = self.execute(&words).await;
        self.show(&output);
        let (out, err) = texts(&output);
        if words[0] == "podbay" {
            self.nothing_hidden_in(&format!("{out}{err}"));
        }
        if let Some(plan) = out.lines().find_map(|line| line.strip_prefix("plan ")) {
            self.plan = plan.to_owned();
        }
        let says = |word: &str| words.iter().any(|said| said == word);
        if says("--dry-run") && !says("-o") && !says("--offline") {
            self.foretold = self.foretell(&words, before).await;
        } else if !says("--dry-run") && (says("reconcile") || (says("source") && says("add"))) {
            self.compare(&words).await;
        }
    }

    /// What must not be told is neither in this output, nor in a file that `podbay` saved, nor in an event.
    fn nothing_hidden_in(&self, printed: &str) {
        let saved = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut texts: Vec<String> = saved.filter(|path| path.is_file()).map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let state = self.cluster.as_ref().expect("a session starts with `nodes`").snapshot();
        texts.extend(state.list(podbay::model::Kind::Event).map(|event| event.value().to_string()));
        texts.push(printed.to_owned());
        let told = texts.iter().find(|text| self.hidden.iter().any(|word| text.contains(word)));
        assert!(told.is_none(), "this tells what is to be hidden:\n{}\n{}", told.unwrap(), self.transcript);
    }

    /// The preview once more, as a value.
    async fn foretell(&self, words: &[String], before: podbay::store::Snapshot) -> Option<Foretold> {
        let mut again = words.to_vec();
        again.extend(["-o".to_owned(), "json".to_owned()]);
        let output = self.execute(&again).await;
        let mut previews = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Preview>().map(Result::unwrap);
        let preview = previews.next()?;
        assert!(previews.next().is_none(), "a preview of several sources cannot be compared: preview one");
        Some(Foretold { preview, before })
    }

    /// A reconcile is compared with the preview of the same revision of that source, if there was one.
    async fn compare(&mut self, words: &[String]) {
        let nodes = self.nodes;
        let after = self.cluster().rest(nodes).await;
        let Some(foretold) = self.foretold.take() else { return };
        let key = podbay::model::Key::cluster(podbay::model::Kind::Source, &foretold.preview.source);
        let fetched = after.get(&key).map(|source| source.value()["status"]["fetchedRevision"].clone());
        if fetched != Some(Value::from(foretold.preview.revision.clone())) {
            return;
        }
        let approved = words.iter().any(|word| word == "--approve");
        match foretold.compare(&after, approved) {
            Ok(line) => self.say(&format!("  = {line}")),
            Err(why) => panic!("{why}\n{}", self.transcript),
        }
        // Planning again after the plan was applied gives the empty plan.
        if !foretold.preview.is_refused() && (approved || foretold.preview.approvals.is_empty()) {
            let again = ["podbay", "reconcile", "--dry-run", &foretold.preview.source].map(str::to_owned);
            let output = self.execute(&again).await;
            assert_eq!(output.status.code(), Some(0), "previewed again:\n{}\n{}", texts(&output).0, self.transcript);
        }
    }

    async fn execute(&self, words: &[String]) -> Output {
        let cluster = self.cluster.as_ref().expect("a session starts with `nodes`");
        let program = match words[0].as_str() {
            "podbay" => Path::new(env!("CARGO_BIN_EXE_podbay")).to_owned(),
            "kubectl" => rig::kubectl(),
            other => panic!("a session runs podbay and kubectl, not {other}"),
        };
        let mut command = tokio::process::Command::new(program);
        command.args(&words[1..]).current_dir(self.directory.path()).kill_on_drop(true);
        command.env("KUBECONFIG", cluster.rig.kubeconfig()).env("HOME", cluster.rig.directory.path()).env("NO_COLOR", "1");
        match tokio::time::timeout(Duration::from_secs(120), command.output()).await {
            Ok(output) => output.unwrap(),
            Err(_) => panic!("{words:?} does not end\n{}", self.transcript),
        }
    }

    fn show(&mut self, output: &Output) {
        let directory = self.directory.path().to_str().unwrap().to_owned();
        let (out, err) = texts(output);
        for line in filtered(out.trim_end(), &directory).lines() {
            self.say(&format!("    {line}"));
        }
        for line in filtered(&err, &directory).lines() {
            self.say(&format!("  ! {line}"));
        }
        match output.status.code() {
            Some(0) => {}
            code => self.say(&format!("  ? {}", code.map_or_else(|| "killed".to_owned(), |code| code.to_string()))),
        }
    }
}

fn texts(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The words of a command line; single quotes keep blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
