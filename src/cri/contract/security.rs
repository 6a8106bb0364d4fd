//! Who a container's processes are.

use super::{Subject, must};

pub(super) async fn security_suite(subject: &Subject) {
    who_nobody_knows_is_refused(subject).await;
}

/// Before anything is started, and nothing of it stays: its name is free.
async fn who_nobody_knows_is_refused(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("unknown")).await);
    let mut config = subject.container("who", &["sleep", "100000"]);
    config.security.run_as_username = "nobody-knows".into();
    let refused = runtime.create_container(&sandbox, &config).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(must(runtime.list_containers().await), []);
    config.security.run_as_username = "root".into();
    must(subject.start(&sandbox, &config).await);
    must(runtime.remove_pod_sandbox(&sandbox).await);
}
