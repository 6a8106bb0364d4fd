//! Figures that somebody made up.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::Measures;
use crate::model::Object;
use crate::model::usage::PodUsage;

/// Answers what it was told, by UID.
#[derive(Debug, Default)]
pub struct Figures(Mutex<BTreeMap<String, PodUsage>>);

impl Figures {
    pub fn set(&self, figures: BTreeMap<String, PodUsage>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }
}

#[async_trait]
impl Measures for Figures {
    async fn of(&self, pods: &[Object]) -> BTreeMap<String, PodUsage> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.iter().filter_map(|pod| Some((pod.uid().to_owned(), known.get(pod.uid())?.clone()))).collect()
    }
}
