//! A Job's own labels: what tells its pods from all others. PURE.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::model::defaults::JOB_LABELS;

/// Labels the template with the Job's UID and name and selects by the UID, unless the writer chose
/// a selector by hand. What is there already stays, for validation to judge.
pub(super) fn generate(job: &mut Job) {
    let (Some(uid), Some(name)) = (job.metadata.uid.clone(), job.metadata.name.clone()) else { return };
    let Some(spec) = job.spec.as_mut().filter(|spec| spec.manual_selector != Some(true)) else { return };
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (label, value) in JOB_LABELS.iter().zip([&uid, &name, &uid, &name]) {
        labels.entry((*label).to_owned()).or_insert_with(|| value.clone());
    }
    let [uid_label, ..] = JOB_LABELS;
    spec.selector
        .get_or_insert_with(|| LabelSelector { match_labels: Some([(uid_label.to_owned(), uid)].into()), match_expressions: None });
}
