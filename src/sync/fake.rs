//! A place in memory: what a test, or a demonstration, says it holds. Webhooks that say what it says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::asked::{Answer, Heard, Question, Questions};
use super::source::{Fetch, Fetched, OpenSource, Tree};
use super::webhooks::AskWebhooks;
use crate::model::SourceSpec;

/// One place.
pub struct FakeSource {
    now: Mutex<Fetched>,
    changed: Notify,
    stalled: AtomicBool,
}

impl FakeSource {
    fn new() -> Self {
        Self {
            now: Mutex::new(Fetched::Unreachable("nothing was put here yet".to_owned())),
            changed: Notify::new(),
            stalled: AtomicBool::new(false),
        }
    }

    /// Makes the place hold these files, and says so.
    pub fn put(&self, revision: &str, files: &[(&str, &str)]) {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        self.set(Fetched::Tree(Tree { revision: revision.to_owned(), files, path_exists: true, ..Tree::default() }));
    }

    /// From now on no fetch ends.
    pub fn stall(&self) {
        self.stalled.store(true, Ordering::SeqCst);
    }

    pub fn set(&self, fetched: Fetched) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = fetched;
        self.changed.notify_one();
    }
}

#[async_trait]
impl Fetch for FakeSource {
    async fn fetch(&self) -> Fetched {
        if self.stalled.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Places by the name of their source, made when first asked for.
#[derive(Default)]
pub struct FakePlaces(Mutex<BTreeMap<String, Arc<FakeSource>>>);

impl FakePlaces {
    pub fn place(&self, name: &str) -> Arc<FakeSource> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(name.to_owned()).or_insert_with(|| Arc::new(FakeSource::new())))
    }
}

impl OpenSource for FakePlaces {
    fn open(&self, name: &str, _spec: &SourceSpec) -> Result<Arc<dyn Fetch>, String> {
        Ok(self.place(name))
    }
}

/// What the webhooks say to one question.
type Say = dyn Fn(&Question) -> Answer + Send + Sync;

/// Webhooks of which somebody says what they say.
pub struct FakeWebhooks {
    say: Mutex<Arc<Say>>,
    asked: Mutex<Vec<(Question, bool)>>,
}

impl Default for FakeWebhooks {
    /// They have nothing against anything.
    fn default() -> Self {
        Self { say: Mutex::new(Arc::new(|_| Answer::Passed)), asked: Mutex::default() }
    }
}

impl FakeWebhooks {
    pub fn say(&self, say: impl Fn(&Question) -> Answer + Send + Sync + 'static) {
        *self.say.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(say);
    }

    /// What was asked since the last look, and whether it was a dry run.
    pub fn asked(&self) -> Vec<(Question, bool)> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl AskWebhooks for FakeWebhooks {
    async fn ask(&self, questions: &Questions, dry_run: bool) -> Vec<Heard> {
        let say = Arc::clone(&*self.say.lock().unwrap_or_else(PoisonError::into_inner));
        let asked = questions.all.iter().map(|question| (question.clone(), dry_run));
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).extend(asked);
        questions.all.iter().map(|question| say(question).into()).collect()
    }
}
