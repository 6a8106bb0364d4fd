//! What every runtime must do: the suite the fake, the engine and any other implementation pass.
//!
//! - here: sandboxes, containers, commands, events. Commands are those every implementation understands:
//!   `sh -c "exit N"`, `echo`, `true`, and `sleep`
//! - `inside`: what a container finds and what becomes of it, where there is a kernel under it
//! - `host`: what it shares with its host; `security`: what its processes may do
//! - `attached`: terminals, and clients of a container's streams
//! - `images`: ImageService
//! - `streams`: exec and port-forward with streams
//! - `socket`: what can be said on a socket and not through the traits: filters, codes, unknown ids

mod attached;
mod host;
mod images;
mod inside;
mod security;
mod socket;
mod streams;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use attached::attach_suite;
pub use images::image_suite;
pub use inside::{inside_suite, newer_suite};
pub use socket::{inside_socket_suite, our_socket_suite, socket_suite};
pub use streams::{inside_stream_suite, stream_suite};

use super::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, CriError, PodSandboxConfig, PodSandboxMetadata, Runtime,
    SandboxState,
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime under test.
pub struct Subject {
    pub runtime: Arc<dyn Runtime>,
    /// An image with a shell that is present.
    pub image: String,
    /// An existing directory for logs.
    pub logs: std::path::PathBuf,
    /// Pods are made in the host's network where the runtime has no network of its own to give.
    pub host_network: bool,
    /// Which of the runtime's handlers is meant; empty: the usual one.
    pub handler: String,
}

impl Subject {
    pub fn pod(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: PodSandboxMetadata { namespace: "default".into(), name: name.into(), uid: format!("uid-{name}"), attempt: 0 },
            hostname: name.into(),
            log_directory: self.logs.join(name),
            host_network: self.host_network,
            cgroup_parent: format!("burstable/poduid-{name}"),
            labels: [("app".to_owned(), name.to_owned())].into(),
            runtime_handler: self.handler.clone(),
            ..PodSandboxConfig::default()
        }
    }

    pub fn container(&self, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: ContainerMetadata { name: name.into(), attempt: 0 },
            image: self.image.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: Path::new(name).join("0.log"),
            ..ContainerConfig::default()
        }
    }

    /// Creates and starts.
    pub async fn start(&self, sandbox: &str, config: &ContainerConfig) -> Result<String, CriError> {
        let id = self.runtime.create_container(sandbox, config).await?;
        self.runtime.start_container(&id).await?;
        Ok(id)
    }

    /// Waits until the container is as wanted.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn until(&self, id: &str, wanted: impl Fn(&ContainerStatus) -> bool) -> ContainerStatus {
        let start = Instant::now();
        loop {
            let status = self.runtime.container_status(id).await;
            match &status {
                Ok(status) if wanted(status) => return status.clone(),
                _ => assert!(start.elapsed() < PATIENCE, "container {id} is {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn until_exited(&self, id: &str) -> ContainerStatus {
        self.until(id, |status| status.state == ContainerState::Exited).await
    }
}

/// Runs every case but those of `stream_suite`. Leaves no sandbox behind.
///
/// # Panics
/// When the runtime does not do what it must.
pub async fn suite(subject: &Subject) {
    sandboxes_come_and_go(subject).await;
    names_are_taken_once(subject).await;
    a_pods_sandboxes_stand_side_by_side(subject).await;
    a_container_lives_and_ends(subject).await;
    removal_is_by_force(subject).await;
    restarts_are_new_containers(subject).await;
    stopping_and_removing_again_is_no_error(subject).await;
    what_is_not_there_is_not_found(subject).await;
    commands_run_inside(subject).await;
    what_is_written_is_logged(subject).await;
    usage_is_told(subject).await;
    events_say_where_to_look(subject).await;
    assert_eq!(subject.runtime.list_pod_sandboxes().await.map(|all| all.len()).ok(), Some(0));
    assert_eq!(subject.runtime.list_containers().await.map(|all| all.len()).ok(), Some(0));
}

fn must<T>(result: Result<T, CriError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

async fn sandboxes_come_and_go(subject: &Subject) {
    let runtime = &subject.runtime;
    let config = subject.pod("come-and-go");
    let id = must(runtime.run_pod_sandbox(&config).await);
    let status = must(runtime.pod_sandbox_status(&id).await);
    assert_eq!(status.state, SandboxState::Ready);
    assert_eq!(status.metadata, config.metadata);
    assert_eq!(status.labels, config.labels);
    assert_eq!(must(runtime.list_pod_sandboxes().await), [status]);
    must(runtime.stop_pod_sandbox(&id).await);
    let status = must(runtime.pod_sandbox_status(&id).await);
    assert_eq!((status.state, status.ips.len()), (SandboxState::NotReady, 0));
    let refused = runtime.create_container(&id, &subject.container("late", &["true"])).await;
    assert!(refused.is_err(), "a container in a stopped sandbox");
    must(runtime.remove_pod_sandbox(&id).await);
    assert_eq!(must(runtime.list_pod_sandboxes().await), []);
}

async fn a_container_lives_and_ends(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("lives")).await);
    let config = subject.container("three", &["sh", "-c", "exit 3"]);
    let id = must(runtime.create_container(&sandbox, &config).await);
    let created = must(runtime.container_status(&id).await);
    assert_eq!(created.state, ContainerState::Created);
    assert_eq!((created.started_at, created.finished_at), (None, None));
    assert_eq!((&created.sandbox_id, &created.metadata), (&sandbox, &config.metadata));
    must(runtime.start_container(&id).await);
    let ended = subject.until_exited(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (3, "Error"));
    assert!(ended.started_at >= Some(ended.created_at) && ended.finished_at >= ended.started_at, "{ended:?}");
    assert!(runtime.start_container(&id).await.is_err(), "a second start");
    let good = must(subject.start(&sandbox, &subject.container("good", &["true"])).await);
    let ended = subject.until_exited(&good).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (0, "Completed"));
    let long = must(subject.start(&sandbox, &subject.container("long", &["sleep", "100000"])).await);
    let running = must(runtime.container_status(&long).await);
    assert_eq!((running.state, running.finished_at), (ContainerState::Running, None));
    assert!(running.started_at.is_some());
    must(runtime.stop_container(&long, Duration::ZERO).await);
    let ended = must(runtime.container_status(&long).await);
    assert_eq!(ended.state, ContainerState::Exited);
    assert!(ended.exit_code == 137 || ended.exit_code == 143, "{ended:?}");
    must(runtime.remove_container(&long).await);
    assert!(matches!(runtime.container_status(&long).await, Err(CriError::NotFound(_))));
    let last = must(subject.start(&sandbox, &subject.container("last", &["sleep", "100000"])).await);
    must(runtime.stop_pod_sandbox(&sandbox).await);
    assert_eq!(must(runtime.container_status(&last).await).state, ContainerState::Exited);
    must(runtime.remove_pod_sandbox(&sandbox).await);
    assert_eq!(must(runtime.list_containers().await), []);
}

async fn stopping_and_removing_again_is_no_error(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("again")).await);
    let id = must(subject.start(&sandbox, &subject.container("one", &["sleep", "100000"])).await);
    for _ in 0..2 {
        must(runtime.stop_container(&id, Duration::ZERO).await);
    }
    for _ in 0..2 {
        must(runtime.remove_container(&id).await);
    }
    for _ in 0..2 {
        must(runtime.stop_pod_sandbox(&sandbox).await);
    }
    for _ in 0..2 {
        must(runtime.remove_pod_sandbox(&sandbox).await);
    }
    must(runtime.stop_container("nobody", Duration::from_secs(1)).await);
    must(runtime.stop_pod_sandbox("nobody").await);
}

async fn what_is_not_there_is_not_found(subject: &Subject) {
    let runtime = &subject.runtime;
    let not_found = |error: &CriError| matches!(error, CriError::NotFound(_));
    assert!(runtime.pod_sandbox_status("nobody").await.is_err_and(|error| not_found(&error)));
    assert!(runtime.container_status("nobody").await.is_err_and(|error| not_found(&error)));
    assert!(runtime.start_container("nobody").await.is_err_and(|error| not_found(&error)));
    let config = subject.container("lost", &["true"]);
    assert!(runtime.create_container("nobody", &config).await.is_err_and(|error| not_found(&error)));
    assert!(runtime.exec_sync("nobody", &["true".into()], PATIENCE).await.is_err_and(|error| not_found(&error)));
}

async fn commands_run_inside(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("inside")).await);
    let id = must(subject.start(&sandbox, &subject.container("host", &["sleep", "100000"])).await);
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let output = must(runtime.exec_sync(&id, &words("echo hello there"), PATIENCE).await);
    assert_eq!((output.stdout.as_slice(), output.exit_code), (b"hello there\n".as_slice(), 0));
    let seven = ["sh", "-c", "exit 7"].map(str::to_owned);
    assert_eq!(must(runtime.exec_sync(&id, &seven, PATIENCE).await).exit_code, 7);
    let slow = runtime.exec_sync(&id, &words("sleep 100000"), Duration::from_millis(200)).await;
    assert!(matches!(slow, Err(CriError::Timeout(_))), "{slow:?}");
    must(runtime.stop_container(&id, Duration::ZERO).await);
    assert!(runtime.exec_sync(&id, &words("true"), PATIENCE).await.is_err(), "exec in an ended container");
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

/// A second sandbox or container of the same name and attempt is never made.
async fn names_are_taken_once(subject: &Subject) {
    let runtime = &subject.runtime;
    let config = subject.pod("once");
    let sandbox = must(runtime.run_pod_sandbox(&config).await);
    if let Ok(again) = runtime.run_pod_sandbox(&config).await {
        assert_eq!(again, sandbox, "the same request, at most the same sandbox");
    }
    assert_eq!(must(runtime.list_pod_sandboxes().await).len(), 1);
    let one = subject.container("one", &["sleep", "100000"]);
    let first = must(runtime.create_container(&sandbox, &one).await);
    assert!(runtime.create_container(&sandbox, &one).await.is_err(), "two containers of one name");
    assert_eq!(must(runtime.list_containers().await).len(), 1);
    must(runtime.remove_container(&first).await);
    must(runtime.create_container(&sandbox, &one).await);
    must(runtime.stop_pod_sandbox(&sandbox).await);
    must(runtime.remove_pod_sandbox(&sandbox).await);
    let again = must(runtime.run_pod_sandbox(&config).await);
    must(runtime.remove_pod_sandbox(&again).await);
}

/// A name is free again with its removal, whichever other sandbox the pod has; neither touches the other.
async fn a_pods_sandboxes_stand_side_by_side(subject: &Subject) {
    let runtime = &subject.runtime;
    let config = subject.pod("attempts");
    let mut next = config.clone();
    next.metadata.attempt = 1;
    let first = must(runtime.run_pod_sandbox(&config).await);
    must(runtime.stop_pod_sandbox(&first).await);
    assert!(runtime.run_pod_sandbox(&config).await.is_err(), "the name is the stopped one's");
    let second = must(runtime.run_pod_sandbox(&next).await);
    must(runtime.remove_pod_sandbox(&first).await);
    let third = must(runtime.run_pod_sandbox(&config).await);
    assert!(third != first && third != second);
    let all = must(runtime.list_pod_sandboxes().await);
    assert!(all.len() == 2 && all.iter().all(|one| one.state == SandboxState::Ready), "{all:?}");
    assert!(all.iter().all(|one| !one.ips.is_empty()) && all[0].ips != all[1].ips, "each has an address of its own: {all:?}");
    let before = must(runtime.pod_sandbox_status(&second).await);
    let stays = must(subject.start(&second, &subject.container("stays", &["sleep", "100000"])).await);
    must(subject.start(&third, &subject.container("goes", &["sleep", "100000"])).await);
    must(runtime.remove_pod_sandbox(&third).await);
    assert_eq!(must(runtime.list_pod_sandboxes().await), [before]);
    let words = ["echo", "here"].map(str::to_owned);
    assert_eq!(must(runtime.exec_sync(&stays, &words, PATIENCE).await).stdout, b"here\n");
    must(runtime.remove_pod_sandbox(&second).await);
}

async fn removal_is_by_force(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("force")).await);
    let running = must(subject.start(&sandbox, &subject.container("running", &["sleep", "100000"])).await);
    must(runtime.remove_container(&running).await);
    assert!(matches!(runtime.container_status(&running).await, Err(CriError::NotFound(_))));
    must(subject.start(&sandbox, &subject.container("second", &["sleep", "100000"])).await);
    must(runtime.remove_pod_sandbox(&sandbox).await);
    assert!(matches!(runtime.pod_sandbox_status(&sandbox).await, Err(CriError::NotFound(_))));
    assert_eq!(must(runtime.list_containers().await), []);
}

/// The same name with the next attempt, beside the ended one.
async fn restarts_are_new_containers(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("restarts")).await);
    let mut config = subject.container("again", &["sh", "-c", "exit 1"]);
    config.labels = [("tier".to_owned(), "web".to_owned())].into();
    config.annotations = [("note".to_owned(), "a: b".to_owned())].into();
    let mut ids = Vec::new();
    for attempt in 0..3 {
        config.metadata.attempt = attempt;
        ids.push(must(subject.start(&sandbox, &config).await));
        subject.until_exited(&ids[ids.len() - 1]).await;
    }
    let mut all = must(runtime.list_containers().await);
    all.sort_by_key(|one| one.metadata.attempt);
    assert_eq!(all.iter().map(|one| one.id.clone()).collect::<Vec<_>>(), ids);
    for (attempt, one) in (0..).zip(&all) {
        assert_eq!((one.metadata.attempt, one.exit_code, &one.sandbox_id), (attempt, 1, &sandbox));
        assert_eq!((&one.labels, &one.annotations), (&config.labels, &config.annotations));
    }
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

async fn what_is_written_is_logged(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("logged")).await);
    let id = must(subject.start(&sandbox, &subject.container("talker", &["echo", "one two"])).await);
    let ended = subject.until_exited(&id).await;
    assert_eq!(ended.log_path, subject.logs.join("logged/talker/0.log"));
    let start = Instant::now();
    loop {
        // CRI's form: time, stream, tag, text. What was written last may come after the end is known.
        let text = std::fs::read_to_string(&ended.log_path).unwrap_or_default();
        if text.ends_with(" stdout F one two\n") {
            let time = text.split(' ').next().unwrap_or_default();
            assert!(time.parse::<crate::model::Timestamp>().is_ok(), "{text}");
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{} holds {text:?}", ended.log_path.display());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

async fn usage_is_told(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("usage")).await);
    let running = must(subject.start(&sandbox, &subject.container("running", &["sleep", "100000"])).await);
    let ended = must(subject.start(&sandbox, &subject.container("ended", &["true"])).await);
    subject.until_exited(&ended).await;
    let stats = must(runtime.container_stats().await);
    let of = |id: &str| stats.iter().find(|stats| stats.id == id);
    let (one, other) = (of(&running), of(&ended));
    assert!(one.is_some_and(|one| one.usage.cpu_nanos > 0 && one.usage.memory_working_set_bytes > 0), "{stats:?}");
    assert!(one.is_some_and(|one| one.sandbox_id == sandbox && one.name == "running"), "{stats:?}");
    assert!(other.is_none_or(|other| other.usage.memory_working_set_bytes == 0), "{stats:?}");
    let pods = must(runtime.pod_sandbox_stats().await);
    assert!(pods.iter().any(|pod| pod.id == sandbox && pod.usage.cpu_nanos > 0 && pod.usage.memory_working_set_bytes > 0), "{pods:?}");
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

async fn events_say_where_to_look(subject: &Subject) {
    let runtime = &subject.runtime;
    let mut events = runtime.events();
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("events")).await);
    let id = must(subject.start(&sandbox, &subject.container("short", &["true"])).await);
    subject.until_exited(&id).await;
    let heard = tokio::time::timeout(PATIENCE, async {
        loop {
            match events.recv().await {
                Ok(event) if event.container_id == id => return event,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let event = heard.await;
    assert!(event.as_ref().is_ok_and(|event| event.sandbox_id == sandbox && event.pod_uid == "uid-events"), "{event:?}");
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

#[cfg(test)]
mod tests {
    use super::super::ExecOutput;
    use super::super::Images as _;
    use super::super::fake::FakeRuntime;
    use super::*;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        let logs = tempfile::tempdir().unwrap();
        let subject = Subject {
            runtime: Arc::new(FakeRuntime::default()),
            image: "busybox".into(),
            logs: logs.path().into(),
            host_network: false,
            handler: String::new(),
        };
        suite(&subject).await;
        stream_suite(&subject).await;
    }

    #[tokio::test]
    async fn the_fakes_images_keep_the_contract() {
        let images = super::super::fake::FakeImages::default();
        images.add("docker.io/library/busybox:1");
        image_suite(&images, "docker.io/library/busybox:1").await;
    }

    /// The fake on a socket of ours, and behind our client.
    #[tokio::test]
    async fn the_contract_holds_over_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, end) = (dir.path().join("cri.sock"), tokio_util::sync::CancellationToken::new());
        let images = Arc::new(super::super::fake::FakeImages::default());
        images.add("docker.io/library/busybox:1");
        images.pin("docker.io/library/pause:1");
        images.add("docker.io/library/pause:1");
        let stored = Arc::clone(&images);
        let listener = crate::cri::server::bind(&socket).unwrap();
        let streams = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = FakeRuntime::default();
        let none = ExecOutput { stdout: b"0\n".to_vec(), ..ExecOutput::default() };
        fake.answer_exec("host", &socket::LEFT, Ok(none));
        let serve = crate::cri::server::serve(listener, streams, Arc::new(fake), images, end.clone());
        let server = tokio::spawn(serve);
        let endpoint = format!("unix://{}", socket.display());
        let client = Arc::new(crate::cri::client::Client::connect(&endpoint, &dir.path().join("client")).await.unwrap());
        assert_eq!(client.version(), "fake://0.1.0");
        let pinned = client.list().await.unwrap().into_iter().map(|image| (image.tags.concat(), image.pinned));
        let expected = [("docker.io/library/busybox:1", false), ("docker.io/library/pause:1", true)];
        assert_eq!(pinned.collect::<Vec<_>>(), expected.map(|(name, pinned)| (name.to_owned(), pinned)));
        let (image, logs) = ("docker.io/library/busybox:1".to_owned(), dir.path().join("logs"));
        let subject = Subject { runtime: client.clone(), image: image.clone(), logs, host_network: false, handler: String::new() };
        suite(&subject).await;
        stream_suite(&subject).await;
        image_suite(&*client, &image).await;
        // The suite of images has removed it.
        stored.add(&image);
        socket_suite(&endpoint, &subject).await;
        our_socket_suite(&endpoint, &subject).await;
        end.cancel();
        drop(subject);
        drop(client);
        server.await.unwrap().unwrap();
    }
}
