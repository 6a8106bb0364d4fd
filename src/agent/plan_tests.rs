//! The kubelet's behaviour as tables: a pod, what is seen of it, the steps.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use super::*;
use crate::agent::observed::{CONTAINER_HASH, Failure, ProbeView, RESTART_DELAY};
use crate::cri::{ContainerMetadata, PodSandbox, PodSandboxMetadata};

#[path = "plan_change_tests.rs"]
mod change;
#[path = "plan_image_tests.rs"]
mod images;

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + seconds)
}

fn pod(spec: Value) -> Pod {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "generation": 4},
        "spec": {"containers": [{"name": "main", "image": "img:1"}]}
    }))
    .unwrap();
    let mut value = serde_json::to_value(&pod).unwrap();
    for (name, field) in spec.as_object().unwrap() {
        value["spec"][name] = field.clone();
    }
    pod = serde_json::from_value(value).unwrap();
    pod
}

fn deleting(mut pod: Pod, at: Timestamp) -> Pod {
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
    pod
}

/// A pod that has its volumes and images, and a sandbox if asked for.
fn seen(sandbox: bool) -> ObservedPod {
    let mut seen = ObservedPod {
        volumes: VolumeState::Ready,
        images: ["img:1", "img:2", "init:1", "side:1"].map(str::to_owned).into(),
        host_ips: vec!["192.0.2.1".into()],
        scheme: "containerd".into(),
        last_status: PodStatus { start_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0))), ..PodStatus::default() },
        ..ObservedPod::default()
    };
    if sandbox {
        seen.sandboxes.push(sandbox_of(0, SandboxState::Ready));
    }
    seen
}

fn sandbox_of(attempt: u32, state: SandboxState) -> PodSandbox {
    PodSandbox {
        id: format!("s{attempt}"),
        metadata: PodSandboxMetadata { namespace: "ns".into(), name: "p".into(), uid: "u1".into(), attempt },
        state,
        created_at: at(i64::from(attempt)),
        ips: vec!["10.80.0.9".into()],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        namespaces: crate::cri::Namespaces::default(),
        runtime_handler: String::new(),
    }
}

struct C(ContainerStatus);

/// Container `name`, attempt `attempt`, in sandbox s0, with the hash of `image`.
fn c(name: &str, attempt: u32, image: &str) -> C {
    let spec = Container { name: name.into(), image: Some(image.into()), ..Container::default() };
    C(ContainerStatus {
        id: format!("{name}-{attempt}"),
        sandbox_id: "s0".into(),
        metadata: ContainerMetadata { name: name.into(), attempt },
        state: ContainerState::Created,
        created_at: at(i64::from(attempt)),
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: image.into(),
        image_id: "sha256:1".into(),
        image_ref: "docker.io/library/img@sha256:2".into(),
        labels: BTreeMap::new(),
        annotations: [(CONTAINER_HASH.to_owned(), backoff::hash(&spec)), (RESTART_DELAY.to_owned(), "0".to_owned())].into(),
        log_path: "/l".into(),
        mounts: Vec::new(),
        resources: crate::cri::Resources::default(),
        user: None,
        stop_signal: String::new(),
    })
}

impl C {
    fn running(mut self) -> ContainerStatus {
        self.0.state = ContainerState::Running;
        self.0.started_at = Some(at(1));
        self.0
    }
    fn exited(mut self, code: i32, from: i64, to: i64) -> ContainerStatus {
        self.0.state = ContainerState::Exited;
        (self.0.started_at, self.0.finished_at, self.0.exit_code) = (Some(at(from)), Some(at(to)), code);
        self.0
    }
    fn unknown(mut self) -> ContainerStatus {
        self.0.state = ContainerState::Unknown;
        self.0.started_at = Some(at(1));
        self.0
    }
    fn delay(mut self, seconds: u32) -> Self {
        self.0.annotations.insert(RESTART_DELAY.to_owned(), seconds.to_string());
        self
    }
    fn in_sandbox(mut self, id: &str) -> Self {
        self.0.sandbox_id = id.into();
        self
    }
}

fn with(mut seen: ObservedPod, containers: impl IntoIterator<Item = ContainerStatus>) -> ObservedPod {
    seen.containers.extend(containers);
    seen
}

/// The steps in short: `create main#1 s0 +10`.
fn short(plan: &PodPlan) -> Vec<String> {
    plan.steps
        .iter()
        .map(|step| match step {
            Step::PrepareVolumes => "volumes".into(),
            Step::RunSandbox { attempt, after } => {
                format!("sandbox {attempt}{}", after.as_ref().map(|s| format!(" after {s}")).unwrap_or_default())
            }
            Step::PullImage { owner, image, attempt } => format!("pull {image} for {owner}#{attempt}"),
            Step::CreateContainer { name, attempt, sandbox, delay } => format!("create {name}#{attempt} {sandbox} +{delay}"),
            Step::StartContainer { id, .. } => format!("start {id}"),
            Step::RunHook { id, .. } => format!("hook {id}"),
            Step::StopContainer { id, grace, reason, .. } => {
                let grace = match grace {
                    Grace::Seconds(seconds) => format!("{seconds}s"),
                    Grace::Until(time) => format!("until {}", time.duration_since(at(0)).as_secs()),
                };
                format!("stop {id} {grace} {}", reason.code)
            }
            Step::Resize { id, .. } => format!("resize {id}"),
            Step::RemoveContainer { id } => format!("remove {id}"),
            Step::StopSandbox { id } => format!("stop {id}"),
            Step::RemoveSandbox { id } => format!("remove {id}"),
            Step::TearDownVolumes => "tear down".into(),
            Step::FinishDeletion => "finish".into(),
            Step::Forget => "forget".into(),
        })
        .collect()
}

#[track_caller]
fn check(pod: &Pod, seen: &ObservedPod, now: i64, want: &[&str]) -> PodPlan {
    let got = plan(pod, false, seen, at(now));
    assert_eq!(short(&got), want, "waits: {:?}", got.waits);
    assert_eq!(plan(pod, false, seen, at(now)), got, "deterministic");
    got
}

#[track_caller]
fn phase_is(plan: &PodPlan, want: &str) {
    assert_eq!(plan.status.phase.as_deref(), Some(want), "{:#?}", plan.status);
}

/// `waiting CrashLoopBackOff`, `running`, `terminated 1 Error`.
fn state(status: &PodStatus, name: &str) -> String {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let found = all.into_iter().find(|status| status.name == name).unwrap();
    let state = found.state.as_ref().unwrap();
    if let Some(waiting) = &state.waiting {
        return format!("waiting {}", waiting.reason.as_deref().unwrap_or_default());
    }
    if let Some(end) = &state.terminated {
        return format!("terminated {} {}", end.exit_code, end.reason.as_deref().unwrap_or_default());
    }
    "running".into()
}

fn condition(status: &PodStatus, type_: &str) -> (String, String) {
    let found = status.conditions.iter().flatten().find(|condition| condition.type_ == type_).unwrap();
    (found.status.clone(), found.reason.clone().unwrap_or_default())
}

// ---- the way up ----

#[test]
fn a_new_pod_goes_up_one_step_after_the_other() {
    let pod = pod(json!({}));
    let mut now = ObservedPod { volumes: VolumeState::Absent, images: Default::default(), sandboxes: vec![], ..seen(false) };
    let plan = check(&pod, &now, 0, &["volumes"]);
    phase_is(&plan, "Pending");
    assert_eq!(state(&plan.status, "main"), "waiting ContainerCreating");
    now.volumes = VolumeState::Ready;
    check(&pod, &now, 0, &["sandbox 0"]);
    now.sandboxes.push(sandbox_of(0, SandboxState::Ready));
    let plan = check(&pod, &now, 0, &["pull img:1 for main#0"]);
    assert_eq!(plan.status.pod_ip.as_deref(), Some("10.80.0.9"));
    now.images.insert("img:1".into());
    check(&pod, &now, 0, &["create main#0 s0 +0"]);
    now.containers.push(c("main", 0, "img:1").0);
    check(&pod, &now, 0, &["start main-0"]);
    now.containers = vec![c("main", 0, "img:1").running()];
    let plan = check(&pod, &now, 1, &[]);
    phase_is(&plan, "Running");
    assert_eq!(condition(&plan.status, "Ready").0, "True");
    assert_eq!(plan.status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(plan.status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(plan.status.observed_generation, Some(4));
}

#[test]
fn no_new_pod_while_lost_ones_are_stopped() {
    let held = ObservedPod { hold: true, ..seen(false) };
    check(&pod(json!({})), &held, 0, &[]);
    // One that runs goes on, restarts included.
    let held = ObservedPod { hold: true, ..with(seen(true), [c("main", 0, "img:1").exited(1, 1, 2)]) };
    check(&pod(json!({})), &held, 3, &["create main#1 s0 +10"]);
}

#[test]
fn a_pod_on_the_hosts_network_has_the_hosts_address() {
    let mut seen = with(seen(true), [c("main", 0, "img:1").running()]);
    seen.sandboxes[0].ips.clear();
    let plan = check(&pod(json!({"hostNetwork": true})), &seen, 2, &[]);
    assert_eq!(plan.status.pod_ip.as_deref(), Some("192.0.2.1"));
}

#[test]
fn failures_are_waited_out_and_shown() {
    let pod = pod(json!({}));
    let fail = |subject: Subject, reason: &str, count: u32| {
        let mut seen = ObservedPod { images: Default::default(), ..seen(true) };
        let failure = Failure { count, at: at(100), reason: reason.into(), message: "why".into() };
        seen.memory.failures.insert(subject, failure);
        seen
    };
    let image = || Subject::Image("main".into());
    let plan = check(&pod, &fail(image(), "ErrImagePull", 1), 100, &[]);
    assert_eq!(state(&plan.status, "main"), "waiting ErrImagePull");
    assert_eq!(plan.again_at, Some(at(110)));
    let plan = check(&pod, &fail(image(), "ErrImagePull", 1), 101, &[]);
    assert_eq!(state(&plan.status, "main"), "waiting ImagePullBackOff");
    check(&pod, &fail(image(), "ErrImagePull", 1), 110, &["pull img:1 for main#0"]);
    assert_eq!(check(&pod, &fail(image(), "ErrImagePull", 3), 101, &[]).again_at, Some(at(140)));
    assert_eq!(check(&pod, &fail(image(), "ErrImagePull", 90), 101, &[]).again_at, Some(at(400)));

    let mut config = fail(Subject::Container("main".into()), "CreateContainerConfigError", 9);
    config.images.insert("img:1".into());
    let plan = check(&pod, &config, 105, &[]);
    assert_eq!(state(&plan.status, "main"), "waiting CreateContainerConfigError");
    phase_is(&plan, "Pending");
    assert_eq!(plan.again_at, Some(at(110)), "what waits for a person does not back off");
    check(&pod, &config, 110, &["create main#0 s0 +0"]);

    let mut sandbox = fail(Subject::Sandbox, "FailedCreatePodSandBox", 2);
    sandbox.sandboxes.clear();
    assert_eq!(check(&pod, &sandbox, 105, &[]).again_at, Some(at(120)));
    let mut volumes = fail(Subject::Volumes, "FailedMount", 2);
    (volumes.volumes, volumes.sandboxes) = (VolumeState::Absent, vec![]);
    assert_eq!(check(&pod, &volumes, 105, &[]).again_at, Some(at(110)));
}

// ---- init containers and sidecars ----

fn with_inits() -> Pod {
    pod(json!({"initContainers": [
        {"name": "one", "image": "init:1"},
        {"name": "side", "image": "side:1", "restartPolicy": "Always"},
        {"name": "two", "image": "init:1"}
    ]}))
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let pod = with_inits();
    let one = || c("one", 0, "init:1").exited(0, 1, 2);
    let side = || c("side", 0, "side:1").running();
    let two = || c("two", 0, "init:1").exited(0, 3, 4);
    let table: Vec<(Vec<ContainerStatus>, &[&str], &str)> = vec![
        (vec![], &["create one#0 s0 +0"], "Pending"),
        (vec![c("one", 0, "init:1").running()], &[], "Pending"),
        (vec![one()], &["create side#0 s0 +0"], "Pending"),
        (vec![one(), c("side", 0, "side:1").0], &["start side-0"], "Pending"),
        (vec![one(), side()], &["create two#0 s0 +0"], "Pending"),
        (vec![one(), side(), c("two", 0, "init:1").running()], &[], "Pending"),
        (vec![one(), side(), two()], &["create main#0 s0 +0"], "Pending"),
        (vec![one(), side(), two(), c("main", 0, "img:1").running()], &[], "Running"),
        // A sidecar is restarted in its time, whatever else goes on.
        (vec![one(), c("side", 0, "side:1").exited(0, 1, 2), c("two", 0, "init:1").running()], &["create side#1 s0 +10"], "Pending"),
        (vec![one(), c("side", 0, "side:1").exited(1, 1, 2), two(), c("main", 0, "img:1").running()], &["create side#1 s0 +10"], "Running"),
        // The runtime no longer has completed init containers: they are not run again.
        (vec![side(), c("main", 0, "img:1").running()], &[], "Running"),
        (vec![two()], &["create side#0 s0 +0", "create main#0 s0 +0"], "Pending"),
    ];
    for (containers, want, phase) in table {
        let names: Vec<String> = containers.iter().map(|c| format!("{} {:?}", c.id, c.state)).collect();
        let got = plan(&pod, false, &with(seen(true), containers), at(20));
        assert_eq!(short(&got), want, "{names:?}");
        if !names.is_empty() && names.len() != 1 || names.first().is_some_and(|n| n.starts_with("one")) {
            phase_is(&got, phase);
        }
    }
}

#[test]
fn a_failed_init_container_is_run_again_or_ends_the_pod() {
    let failed = || with(seen(true), [c("one", 0, "init:1").delay(10).exited(1, 1, 2)]);
    let pod = with_inits();
    let plan = check(&pod, &failed(), 5, &[]);
    assert_eq!(state(&plan.status, "one"), "waiting CrashLoopBackOff");
    assert_eq!(condition(&plan.status, "Initialized"), ("False".into(), "ContainersNotInitialized".into()));
    phase_is(&plan, "Pending");
    check(&pod, &failed(), 12, &["create one#1 s0 +20"]);

    let mut never = with_inits();
    never.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    let plan = check(&never, &failed(), 12, &["stop s0"]);
    phase_is(&plan, "Failed");
    assert_eq!(state(&plan.status, "main"), "waiting PodInitializing");
}

#[test]
fn a_sidecar_lets_the_next_one_start_when_its_startup_probe_has_passed() {
    let pod = pod(json!({"initContainers": [
        {"name": "side", "image": "side:1", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}}
    ]}));
    let mut seen = with(seen(true), [c("side", 0, "side:1").running()]);
    check(&pod, &seen, 5, &[]);
    seen.memory.probes.insert("side-0".into(), ProbeView { startup: Some(true), ..ProbeView::default() });
    check(&pod, &seen, 5, &["create main#0 s0 +0"]);
    seen.memory.probes.insert("side-0".into(), ProbeView { startup: Some(false), ..ProbeView::default() });
    check(&pod, &seen, 5, &["stop side-0 30s Unhealthy"]);
}

// ---- ends and restarts ----

#[test]
fn policies_decide_what_an_end_means() {
    let table: Vec<(&str, i32, &[&str], &str, &str)> = vec![
        ("Always", 0, &["create main#1 s0 +10"], "Running", "terminated 0 Completed"),
        ("Always", 1, &["create main#1 s0 +10"], "Running", "terminated 1 Error"),
        ("OnFailure", 0, &["stop s0"], "Succeeded", "terminated 0 Completed"),
        ("OnFailure", 1, &["create main#1 s0 +10"], "Running", "terminated 1 Error"),
        ("Never", 0, &["stop s0"], "Succeeded", "terminated 0 Completed"),
        ("Never", 1, &["stop s0"], "Failed", "terminated 1 Error"),
    ];
    for (policy, code, want, phase, shown) in table {
        let pod = pod(json!({"restartPolicy": policy}));
        let got = plan(&pod, false, &with(seen(true), [c("main", 0, "img:1").exited(code, 1, 2)]), at(3));
        assert_eq!(short(&got), want, "{policy} {code}");
        phase_is(&got, phase);
        assert_eq!(state(&got.status, "main"), shown, "{policy} {code}");
    }
}

#[test]
fn crashes_back_off_and_recover() {
    // (carried delay, ran for, seconds after the end) → restart with the next delay, or wait until
    let table = [
        (0, 1, 0, Ok(10)),
        (10, 1, 9, Err(10)),
        (10, 1, 10, Ok(20)),
        (20, 1, 19, Err(20)),
        (160, 1, 160, Ok(300)),
        (300, 1, 299, Err(300)),
        (300, 599, 300, Ok(300)),
        (300, 600, 0, Ok(10)),
    ];
    for (carried, ran, after, want) in table {
        let dead = c("main", 4, "img:1").delay(carried).exited(1, 0, ran);
        let got = plan(&pod(json!({})), false, &with(seen(true), [dead]), at(ran + after));
        match want {
            Ok(next) => assert_eq!(short(&got), [format!("create main#5 s0 +{next}")], "{carried} {ran} {after}"),
            Err(wait) => {
                assert_eq!((short(&got), got.again_at), (vec![], Some(at(ran + wait))), "{carried} {ran} {after}");
                assert_eq!(state(&got.status, "main"), "waiting CrashLoopBackOff");
                assert_eq!(got.status.container_statuses.as_ref().unwrap()[0].restart_count, 4);
                assert_eq!(got.waits[0].reason.code, "CrashLoopBackOff");
                phase_is(&got, "Running");
            }
        }
    }
}

#[test]
fn a_new_image_restarts_the_container_without_delay() {
    let pod = pod(json!({"containers": [{"name": "main", "image": "img:2"}], "restartPolicy": "Never"}));
    check(&pod, &with(seen(true), [c("main", 0, "img:1").running()]), 5, &["stop main-0 30s Changed"]);
    let always = super::tests::pod(json!({"containers": [{"name": "main", "image": "img:2"}]}));
    let stopped = with(seen(true), [c("main", 0, "img:1").delay(300).exited(143, 1, 5)]);
    check(&always, &stopped, 5, &["create main#1 s0 +10"]);
}

#[test]
fn probes_decide_over_life_and_readiness() {
    let probe = json!({"exec": {"command": ["x"]}});
    let mut spec =
        json!({"containers": [{"name": "main", "image": "img:1", "readinessProbe": probe, "livenessProbe": probe, "startupProbe": probe}]});
    let pod = pod(spec.clone());
    let look = |startup, live, ready| {
        let mut seen = with(seen(true), [c("main", 0, "img:1").running()]);
        seen.memory.probes.insert("main-0".into(), ProbeView { startup, live, ready });
        seen
    };
    let table: Vec<(ObservedPod, &[&str], bool, bool)> = vec![
        (look(None, None, None), &[], false, false),
        (look(Some(true), Some(true), None), &[], true, false),
        (look(Some(true), Some(true), Some(true)), &[], true, true),
        (look(Some(true), Some(true), Some(false)), &[], true, false),
        (look(Some(true), Some(false), Some(true)), &["stop main-0 30s Unhealthy"], true, true),
        (look(Some(false), None, None), &["stop main-0 30s Unhealthy"], false, false),
    ];
    for (seen, want, started, ready) in table {
        let got = check(&pod, &seen, 5, want);
        let status = &got.status.container_statuses.as_ref().unwrap()[0];
        assert_eq!((status.started, status.ready), (Some(started), ready), "{:?}", seen.memory.probes);
        assert_eq!(condition(&got.status, "ContainersReady").0, if ready { "True" } else { "False" });
    }
    spec["containers"][0]["livenessProbe"]["terminationGracePeriodSeconds"] = json!(3);
    check(&super::tests::pod(spec), &look(Some(true), Some(false), None), 5, &["stop main-0 3s Unhealthy"]);
}

#[test]
fn hooks_hold_back_started() {
    let pod = pod(json!({}));
    let mut seen = with(seen(true), [c("main", 0, "img:1").running()]);
    seen.memory.hooks.insert("main-0".into(), Hook::Pending);
    let plan = check(&pod, &seen, 5, &["hook main-0"]);
    assert_eq!(condition(&plan.status, "Ready").0, "False");
    seen.memory.hooks.insert("main-0".into(), Hook::Done);
    assert_eq!(condition(&check(&pod, &seen, 5, &[]).status, "Ready").0, "True");
    seen.memory.hooks.insert("main-0".into(), Hook::Failed("exit 1".into()));
    check(&pod, &seen, 5, &["stop main-0 30s FailedPostStartHook"]);
}

#[test]
fn messages_of_many_containers_share_their_room() {
    let message = |containers: u32| {
        let names: Vec<String> = (0..containers).map(|n| format!("c{n}")).collect();
        let spec: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "img:1"})).collect();
        let ended = names.iter().map(|name| ContainerStatus { message: "ä".repeat(2048), ..c(name, 0, "img:1").exited(1, 1, 2) });
        let plan = plan(&pod(json!({"containers": spec, "restartPolicy": "Never"})), false, &with(seen(true), ended), at(3));
        let statuses = plan.status.container_statuses.unwrap();
        statuses.iter().map(|it| it.state.as_ref().unwrap().terminated.as_ref().unwrap().message.as_ref().unwrap().len()).sum::<usize>()
    };
    assert_eq!([1, 3, 4, 7].map(message), [4096, 3 * 4096, 4 * 3072, 7 * 1754]);
}

#[test]
fn dead_containers_are_bounded() {
    let dead = |n: u32| c("main", n, "img:1").exited(1, i64::from(n), i64::from(n));
    let seen = with(seen(true), [dead(0), dead(1), dead(2), c("main", 3, "img:1").running()]);
    let plan = check(&pod(json!({})), &seen, 9, &["remove main-0", "remove main-1"]);
    let status = &plan.status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(status.image_id, "docker.io/library/img@sha256:2", "as registries know it");
    assert_eq!(status.last_state.as_ref().unwrap().terminated.as_ref().unwrap().container_id.as_deref(), Some("containerd://main-2"));
    assert_eq!(status.restart_count, 3);
}

// ---- sandboxes ----

#[test]
fn a_dead_sandbox_starts_the_pod_over() {
    let pod = with_inits();
    let one = || c("one", 0, "init:1").exited(0, 1, 2);
    let mut dead = with(seen(false), [one(), c("main", 0, "img:1").exited(137, 1, 2)]);
    dead.sandboxes = vec![sandbox_of(0, SandboxState::NotReady)];
    check(&pod, &dead, 5, &["sandbox 1 after s0"]);
    dead.sandboxes.push(sandbox_of(1, SandboxState::Ready));
    check(&pod, &dead, 5, &["create one#1 s1 +10"]);
    let again = c("one", 1, "init:1").in_sandbox("s1").exited(0, 6, 7);
    check(&pod, &with(dead, [again]), 8, &["create side#0 s1 +0"]);
}

#[test]
fn what_was_over_stays_over_in_a_new_sandbox() {
    let containers = json!([{"name": "main", "image": "img:1"}, {"name": "other", "image": "img:1"}]);
    let mut dead = with(seen(false), [c("main", 0, "img:1").exited(0, 1, 2), c("other", 0, "img:1").exited(137, 1, 2)]);
    dead.sandboxes = vec![sandbox_of(0, SandboxState::NotReady), sandbox_of(1, SandboxState::Ready)];
    check(&pod(json!({"containers": containers, "restartPolicy": "OnFailure"})), &dead, 5, &["create other#1 s1 +10"]);
    // Never: nothing runs again, so the pod has ended.
    let plan = check(&pod(json!({"containers": containers, "restartPolicy": "Never"})), &dead, 5, &["stop s1"]);
    phase_is(&plan, "Failed");
}

#[test]
fn after_a_reboot_pods_go_on_by_policy() {
    let lost = || {
        let mut lost = with(seen(false), [c("main", 0, "img:1").unknown()]);
        lost.sandboxes = vec![sandbox_of(0, SandboxState::NotReady)];
        lost
    };
    check(&pod(json!({})), &lost(), 500, &["sandbox 1 after s0"]);
    let plan = check(&pod(json!({"restartPolicy": "Never"})), &lost(), 500, &["tear down"]);
    phase_is(&plan, "Failed");
    assert_eq!(state(&plan.status, "main"), "terminated 137 ContainerStatusUnknown");
}

#[test]
fn old_sandboxes_without_kept_containers_go() {
    let mut seen = with(seen(true), [c("main", 0, "img:1").exited(1, 1, 2), c("main", 1, "img:1").in_sandbox("s1").exited(1, 3, 4)]);
    seen.containers.push(c("main", 2, "img:1").in_sandbox("s1").running());
    seen.sandboxes = vec![sandbox_of(0, SandboxState::NotReady), sandbox_of(1, SandboxState::Ready)];
    check(&pod(json!({})), &seen, 9, &["remove main-0", "remove s0"]);
}

#[test]
fn containers_left_in_a_dead_sandbox_are_stopped_first() {
    let mut seen = with(seen(false), [c("main", 0, "img:1").running()]);
    seen.sandboxes = vec![sandbox_of(0, SandboxState::NotReady)];
    check(&pod(json!({})), &seen, 5, &["stop main-0 30s SandboxChanged"]);
}

#[test]
fn counting_goes_on_where_the_runtime_lost_its_containers() {
    let mut seen = seen(true);
    seen.last_status.container_statuses = Some(vec![k8s_openapi::api::core::v1::ContainerStatus {
        name: "main".into(),
        container_id: Some("containerd://gone".into()),
        restart_count: 6,
        ..Default::default()
    }]);
    check(&pod(json!({})), &seen, 5, &["create main#7 s0 +0"]);
    // Also when a status without any container was written in between.
    seen.sandboxes.clear();
    let between = check(&pod(json!({})), &seen, 5, &["sandbox 0"]);
    let mut seen = with(super::tests::seen(true), []);
    seen.last_status = between.status;
    check(&pod(json!({})), &seen, 6, &["create main#7 s0 +0"]);
}

// ---- endings ----

#[test]
fn a_deleted_pod_ends_in_order() {
    let pod = deleting(with_inits(), at(40));
    let side = || c("side", 0, "side:1").running();
    let mut now = with(seen(true), [side(), c("main", 0, "img:1").running(), c("side2", 0, "x").running()]);
    now.memory.deletion_seen = Some(at(10));
    check(&pod, &now, 10, &["stop main-0 until 40 Killing", "stop side2-0 until 40 Killing"]);
    now.containers = vec![side(), c("main", 0, "img:1").exited(143, 1, 12)];
    check(&pod, &now, 12, &["stop side-0 until 40 Killing"]);
    now.containers[0] = c("side", 0, "side:1").exited(143, 1, 13);
    check(&pod, &now, 13, &["stop s0"]);
    now.sandboxes[0].state = SandboxState::NotReady;
    check(&pod, &now, 13, &["tear down"]);
    now.volumes = VolumeState::Absent;
    let plan = check(&pod, &now, 13, &["finish"]);
    phase_is(&plan, "Failed");
    assert_eq!(state(&plan.status, "main"), "terminated 143 Error");
}

#[test]
fn the_grace_of_a_deletion_counts_on_this_nodes_clock() {
    let running = || with(seen(true), [c("main", 0, "img:1").running()]);
    // The server's clock is ahead or behind, or the node was away: its time says nothing here.
    for server in [-1000, 0, 5, 1000] {
        let mut pod = deleting(pod(json!({"terminationGracePeriodSeconds": 30})), at(server));
        pod.metadata.deletion_grace_period_seconds = Some(5);
        check(&pod, &running(), 100, &["stop main-0 until 105 Killing"]);
        let mut later = running();
        later.memory.deletion_seen = Some(at(100));
        check(&pod, &later, 104, &["stop main-0 until 105 Killing"]);
        pod.metadata.deletion_grace_period_seconds = Some(1);
        check(&pod, &later, 104, &["stop main-0 until 101 Killing"]);
    }
}

#[test]
fn sidecars_end_from_the_last_to_the_first() {
    let side = |name: &str| json!({"name": name, "image": "side:1", "restartPolicy": "Always"});
    let pod = deleting(pod(json!({"initContainers": [side("a"), side("b")]})), at(40));
    let mut now = with(seen(true), [c("a", 0, "side:1").running(), c("b", 0, "side:1").running()]);
    now.memory.deletion_seen = Some(at(10));
    now.starting = true;
    now.containers.push(c("main", 0, "img:1").0);
    check(&pod, &now, 10, &[]);
    now.starting = false;
    now.containers.pop();
    check(&pod, &now, 10, &["stop b-0 until 40 Killing"]);
    now.containers.pop();
    check(&pod, &now, 10, &["stop a-0 until 40 Killing"]);
}

#[test]
fn an_end_waits_for_what_is_still_being_made() {
    let pod = deleting(pod(json!({})), at(40));
    let making = ObservedPod { starting: true, ..seen(false) };
    check(&pod, &making, 10, &[]);
    check(&pod, &ObservedPod { starting: false, ..making }, 10, &["tear down"]);
}

#[test]
fn a_pod_never_started_is_deleted_at_once() {
    let never = ObservedPod { volumes: VolumeState::Absent, ..seen(false) };
    let plan = check(&deleting(pod(json!({})), at(40)), &never, 10, &["finish"]);
    phase_is(&plan, "Pending");
}

#[test]
fn a_pod_the_server_lost_is_removed_whole() {
    let pod = pod(json!({"terminationGracePeriodSeconds": 7}));
    let mut now = with(seen(true), [c("main", 0, "img:1").running()]);
    let steps = |now: &ObservedPod| short(&plan(&pod, true, now, at(9)));
    assert_eq!(steps(&now), ["stop main-0 7s Killing"]);
    now.containers = vec![c("main", 0, "img:1").exited(143, 1, 8)];
    assert_eq!(steps(&now), ["stop s0"]);
    now.sandboxes[0].state = SandboxState::NotReady;
    assert_eq!(steps(&now), ["tear down"]);
    now.volumes = VolumeState::Absent;
    assert_eq!(steps(&now), ["remove s0"]);
    (now.sandboxes, now.containers) = (vec![], vec![]);
    assert_eq!(steps(&now), ["forget"]);
}

#[test]
fn a_finished_pod_keeps_its_containers_for_their_logs() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "side", "image": "side:1", "restartPolicy": "Always"}]}));
    let mut now = with(seen(true), [c("side", 0, "side:1").running(), c("main", 0, "img:1").exited(0, 1, 2)]);
    let first = check(&pod, &now, 5, &["stop side-0 30s Killing"]);
    phase_is(&first, "Running");
    now.containers[0] = c("side", 0, "side:1").exited(143, 1, 6);
    let plan = check(&pod, &now, 6, &["stop s0"]);
    phase_is(&plan, "Succeeded");
    assert_eq!(condition(&plan.status, "Ready"), ("False".into(), "PodCompleted".into()));
    assert_eq!(condition(&plan.status, "Initialized"), ("True".into(), "PodCompleted".into()));
    now.last_status = plan.status;
    now.sandboxes[0].state = SandboxState::NotReady;
    now.sandboxes[0].ips.clear();
    let plan = check(&pod, &now, 7, &["tear down"]);
    now.volumes = VolumeState::Absent;
    assert_eq!(plan.status.pod_ip.as_deref(), Some("10.80.0.9"), "an ended pod keeps its address in the status");
    check(&pod, &now, 8, &[]);
}

#[test]
fn a_terminal_phase_is_for_ever() {
    let mut seen = with(seen(true), [c("main", 0, "img:1").running()]);
    seen.last_status.phase = Some("Failed".into());
    seen.last_status.reason = Some("Evicted".into());
    // With the grace it had, though this agent has not evicted it.
    let plan = check(&pod(json!({})), &seen, 5, &["stop main-0 1s Killing"]);
    phase_is(&plan, "Failed");
    assert_eq!(plan.status.reason.as_deref(), Some("Evicted"));
    seen.last_status.reason = Some("NodeLost".into());
    check(&pod(json!({})), &seen, 5, &["stop main-0 30s Killing"]);
}

#[test]
fn the_deadline_ends_a_pod() {
    let pod = pod(json!({"activeDeadlineSeconds": 60}));
    let now = with(seen(true), [c("main", 0, "img:1").running()]);
    assert_eq!(check(&pod, &now, 59, &[]).again_at, Some(at(60)));
    let plan = check(&pod, &now, 60, &["stop main-0 30s Killing"]);
    phase_is(&plan, "Failed");
    assert_eq!(plan.status.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn who_takes_too_much_is_evicted() {
    let mut seen = with(seen(true), [c("main", 0, "img:1").running()]);
    seen.memory.evicted = Some("too much".into());
    let plan = check(&pod(json!({})), &seen, 5, &["stop main-0 1s Killing"]);
    phase_is(&plan, "Failed");
    assert_eq!((plan.status.reason.as_deref(), plan.status.message.as_deref()), (Some("Evicted"), Some("too much")));
    // What it has written is not kept.
    let mut ended = with(ObservedPod { last_status: plan.status, ..Default::default() }, [c("main", 0, "img:1").exited(137, 1, 6)]);
    ended.sandboxes.push(sandbox_of(0, SandboxState::NotReady));
    let plan = check(&pod(json!({})), &ended, 7, &["remove main-0"]);
    assert!(plan.status.container_statuses.unwrap()[0].state.as_ref().unwrap().terminated.is_some());
}

// ---- status ----

#[test]
fn transition_times_move_only_with_the_status() {
    let pod = pod(json!({}));
    let mut seen = with(seen(true), [c("main", 0, "img:1").running()]);
    let first = plan(&pod, false, &seen, at(10)).status;
    seen.last_status = first.clone();
    assert_eq!(plan(&pod, false, &seen, at(99)).status, first, "nothing changed, so nothing is written");
    seen.containers[0] = c("main", 0, "img:1").exited(1, 1, 100);
    let later = plan(&pod, false, &seen, at(100)).status;
    let time = |status: &PodStatus, type_: &str| {
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == type_).unwrap();
        found.last_transition_time.as_ref().unwrap().0
    };
    assert_eq!((time(&later, "Ready"), time(&later, "PodScheduled")), (at(100), at(10)));
}

#[test]
fn conditions_of_others_stay_and_gates_count() {
    let mut pod = pod(json!({"readinessGates": [{"conditionType": "lb/ready"}]}));
    let mut seen = with(seen(true), [c("main", 0, "img:1").running()]);
    let got = plan(&pod, false, &seen, at(5)).status;
    assert_eq!(condition(&got, "Ready"), ("False".into(), "ReadinessGatesNotReady".into()));
    assert_eq!(condition(&got, "ContainersReady").0, "True");
    let gate = k8s_openapi::api::core::v1::PodCondition { type_: "lb/ready".into(), status: "True".into(), ..Default::default() };
    seen.last_status.conditions = Some(vec![gate.clone()]);
    pod.status = Some(PodStatus { conditions: Some(vec![gate]), ..PodStatus::default() });
    let got = plan(&pod, false, &seen, at(5)).status;
    assert_eq!(condition(&got, "Ready").0, "True");
    assert_eq!(condition(&got, "lb/ready").0, "True");
}

#[test]
fn out_of_memory_is_said() {
    let mut dead = c("main", 0, "img:1").delay(10).exited(137, 1, 2);
    dead.reason = "OOMKilled".into();
    let got = plan(&pod(json!({})), false, &with(seen(true), [dead]), at(3)).status;
    let last = got.container_statuses.unwrap().remove(0).last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
}

// ---- properties ----

proptest::proptest! {
    /// Whatever is seen: planning twice gives the same, no step names a container twice, nothing is
    /// started in a pod that ends, and nothing that runs is removed.
    #[test]
    fn plans_are_sane(
        states in proptest::collection::vec((0u8..5, 0u32..4, 0i32..3, 0u32..400, 0u8..3), 0..8),
        policy in 0usize..3, life in 0u8..3, volumes in 0u8..3, sandboxes in 0u8..4, now in 0i64..1000,
    ) {
        let mut pod = with_inits();
        pod.spec.as_mut().unwrap().restart_policy = Some(["Always", "OnFailure", "Never"][policy].into());
        if life == 1 {
            pod = deleting(pod, at(500));
        }
        let mut seen = seen(false);
        seen.volumes = [VolumeState::Absent, VolumeState::Present, VolumeState::Ready][usize::from(volumes)];
        for attempt in 0..u32::from(sandboxes) {
            let newest = attempt + 1 == u32::from(sandboxes);
            seen.sandboxes.push(sandbox_of(attempt, if newest && sandboxes != 3 { SandboxState::Ready } else { SandboxState::NotReady }));
        }
        for (index, (state, attempt, code, delay, sandbox)) in states.into_iter().enumerate() {
            let name = ["one", "side", "two", "main"][index % 4];
            let image = ["init:1", "side:1", "init:1", "img:1"][index % 4];
            let found = c(name, attempt, image).delay(delay).in_sandbox(&format!("s{sandbox}"));
            let found = match state { 0 => found.0, 1 | 2 => found.running(), 3 => found.exited(code, 1, 300), _ => found.unknown() };
            if !seen.containers.iter().any(|old| old.id == found.id) {
                seen.containers.push(found);
            }
        }
        let got = plan(&pod, life == 2, &seen, at(now));
        proptest::prop_assert_eq!(&got, &plan(&pod, life == 2, &seen, at(now)));
        let mut subjects: Vec<String> = got.steps.iter().map(Step::subject).collect();
        let count = subjects.len();
        subjects.sort();
        subjects.dedup();
        proptest::prop_assert_eq!(subjects.len(), count, "{:?}", got.steps);
        let ends = life != 0 || terminal(&pod, &seen, at(now)).is_some();
        for step in &got.steps {
            proptest::prop_assert!(!(ends && step.makes()), "{step:?}");
            if let Step::RemoveContainer { id } = step {
                proptest::prop_assert!(!seen.containers.iter().any(|c| c.id == *id && is_running(c)), "{step:?}");
            }
            if matches!(step, Step::FinishDeletion | Step::Forget | Step::TearDownVolumes) {
                proptest::prop_assert!(!seen.containers.iter().any(is_running), "{step:?}");
            }
        }
    }
}
