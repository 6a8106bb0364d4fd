//! A HorizontalPodAutoscaler's status in the making, with what is news of it. PURE.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::model::{Key, Timestamp};
use crate::plan::{Note, Reason};

/// See the module. What stands in a condition already is no news: an event is told once, not each time somebody looks.
pub struct Report<'a> {
    pub status: HorizontalPodAutoscalerStatus,
    subject: &'a Key,
    before: Vec<HorizontalPodAutoscalerCondition>,
    generation: Option<i64>,
    now: Timestamp,
    notes: Vec<Note>,
    /// What to tell where the condition of this type is news at the end.
    warnings: Vec<(&'static str, Reason)>,
}

impl<'a> Report<'a> {
    pub fn new(subject: &'a Key, it: &HorizontalPodAutoscaler, now: Timestamp) -> Self {
        let status = it.status.clone().unwrap_or_default();
        let before = status.conditions.clone().unwrap_or_default();
        let status = HorizontalPodAutoscalerStatus { observed_generation: it.metadata.generation, ..status };
        Self { status, subject, before, generation: it.metadata.generation, now, notes: Vec::new(), warnings: Vec::new() }
    }

    pub fn yes(&mut self, type_: &'static str, reason: &'static str, message: &str) {
        self.set(type_, "True", reason, message);
    }

    /// A "no" that people are told of.
    pub fn no(&mut self, type_: &'static str, reason: &'static str, message: &str) {
        self.failed(type_, (reason, reason), message);
    }

    /// A "no" that is as it should be.
    pub fn no_news(&mut self, type_: &'static str, reason: &'static str, message: &str) {
        self.set(type_, "False", reason, message);
    }

    /// A "no" whose event has another name than its condition's reason.
    pub fn failed(&mut self, type_: &'static str, (reason, event): (&'static str, &'static str), message: &str) {
        self.set(type_, "False", reason, message);
        self.warnings.push((type_, Reason::new(event, message)));
    }

    pub fn note(&mut self, warning: bool, code: &'static str, message: &str) {
        self.notes.push(Note { subject: self.subject.clone(), warning, reason: Reason::new(code, message) });
    }

    fn set(&mut self, type_: &'static str, status: &str, reason: &'static str, message: &str) {
        self.warnings.retain(|(about, _)| *about != type_);
        let known = self.before.iter().find(|known| known.type_ == type_ && known.status == status);
        let condition = HorizontalPodAutoscalerCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            // It moves with the status only.
            last_transition_time: known.map_or_else(|| Some(Time(self.now)), |known| known.last_transition_time.clone()),
            observed_generation: self.generation,
        };
        let all = self.status.conditions.get_or_insert_default();
        match all.iter_mut().find(|known| known.type_ == type_) {
            Some(known) => *known = condition,
            None => all.push(condition),
        }
    }

    /// The status, and what to tell people.
    pub fn finish(mut self) -> (HorizontalPodAutoscalerStatus, Vec<Note>) {
        for (type_, reason) in std::mem::take(&mut self.warnings) {
            let of_type = |all: &[HorizontalPodAutoscalerCondition]| {
                all.iter().find(|it| it.type_ == type_).map(|it| (it.status.clone(), it.reason.clone(), it.message.clone()))
            };
            if of_type(&self.before) != of_type(self.status.conditions.as_deref().unwrap_or_default()) {
                self.note(true, reason.code, &reason.message);
            }
        }
        (self.status, self.notes)
    }
}
