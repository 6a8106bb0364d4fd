//! Where fuzzing begins: for each target some of what it reads every day, and some of what it must refuse.

use flate2::{Compress, Compression, FlushCompress};
use podbay::cri::streaming::door as spdy;
use podbay::cri::wire as cri;
use podbay::runtime::wire::{self, Wire};
use prost::Message;
use serde_json::json;

use crate::layer::{Tar, gzip, image, zstd};

/// The seeds of a target by its name.
///
/// # Panics
/// When there is no such target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "layer" => layers(),
        "image_documents" => documents(),
        "names_and_headers" => texts(),
        "shim_messages" => shim(),
        "cri_requests" => requests(),
        "cri_answers" => answers(),
        "spdy" => frames(),
        "patches" => patches(),
        "selectors" => selectors(),
        other => panic!("{other} has no seeds"),
    }
}

fn layers() -> Vec<Vec<u8>> {
    let everyday = Tar::new()
        .directory("bin/")
        .pax(&[("SCHILY.xattr.user.note", b"x"), ("uid", b"70000"), ("mtime", b"1234567.5")])
        .raw(b'0', b"bin/sh", b"", 0o4755, b"#!")
        .hardlink("bin/ash", "bin/sh")
        .symlink("bin/dash", "sh")
        .raw(b'6', b"run/pipe", b"", 0o600, b"")
        .raw(b'0', b"etc/.wh.gone", b"", 0, b"")
        .raw(b'0', b"var/.wh..wh..opq", b"", 0, b"")
        .finish();
    let hostile = Tar::new()
        .symlink("out", "../outside")
        .file("out/mark", "evil")
        .file("../outside/mark", "evil")
        .hardlink("link", "../outside/mark")
        .raw(b'3', b"disk", b"", 0o666, b"")
        .raw(b'0', b"out/.wh.mark", b"", 0, b"")
        .file("/outside/mark", "absolute")
        .finish();
    let long = "d/".repeat(60);
    let gnu = Tar::new()
        .raw(b'L', b"././@LongLink", b"", 0o644, format!("{long}file\0").as_bytes())
        .file("short", "of a long name")
        .raw(b'K', b"././@LongLink", b"", 0o644, b"a/long/target\0")
        .symlink("short", "short")
        .raw(b'g', b"global", b"", 0o644, b"12 uid=1000\n")
        .raw(b'S', b"sparse", b"", 0o644, b"")
        .finish();
    let swapped = Tar::new().directory("a").file("a/x", "1").symlink("a", "../outside").file("a/mark", "2").directory("a").finish();
    vec![gzip(&everyday), zstd(&everyday), everyday, gzip(&hostile), hostile, gnu, swapped, Tar::new().unfinished(), Vec::new()]
}

fn documents() -> Vec<Vec<u8>> {
    let layer = Tar::new().file("x", "x").finish();
    let parts = image(&[(gzip(&layer), layer)], "amd64");
    let digest = format!("sha256:{}", "0".repeat(64));
    let entry = |architecture: &str| json!({"digest": digest, "size": 5, "platform": {"os": "linux", "architecture": architecture, "variant": "v8"}});
    let index = json!({"schemaVersion": 2, "manifests": [entry("amd64"), entry("arm64"), {"digest": digest, "size": 1}]});
    let foreign =
        json!({"schemaVersion": 2, "config": {"digest": digest, "size": u64::MAX}, "layers": [{"mediaType": "foreign", "digest": digest}]});
    let config = json!({
        "os": "linux", "architecture": "amd64", "created": "2026-01-01T00:00:00Z",
        "config": {"User": "0:0", "Env": ["A=b"], "Entrypoint": ["/a"], "Volumes": {"/v": {}}, "Labels": {"a": "b"}, "StopSignal": "SIGTERM"},
        "rootfs": {"type": "layers", "diff_ids": [digest]}, "history": [{"empty_layer": true}],
    });
    let texts = [parts.manifest, parts.config, index.to_string(), foreign.to_string(), config.to_string(), "[".repeat(300)];
    texts.into_iter().map(String::into_bytes).collect()
}

fn texts() -> Vec<Vec<u8>> {
    let digest = format!("nginx@sha256:{}", "a".repeat(64));
    let longer_when_all_is_said = "a".repeat(250);
    [
        "nginx",
        "localhost:5000/a/b:1.2",
        "registry.test/app:1@sha256:0",
        &digest,
        &longer_when_all_is_said,
        "docker.io/library/nginx:latest",
        "[::1]:5000/x",
        r#"Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a/b:pull""#,
        r#"Basic realm="say \"please\"", Negotiate"#,
        "https://cdn.test/a?b=c#d",
        "//cdn.test/a",
        "../up?to=https://x.test/",
        "https://user:password@cdn.test/",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn shim() -> Vec<Vec<u8>> {
    let text = |text: &str| text.to_owned();
    let process = wire::Process {
        args: vec![text("sh"), text("-c"), text("true")],
        env: vec![text("A=b")],
        cwd: text("/"),
        user: wire::User { uid: Some(0), groups: vec![5], name: text("app"), ..wire::User::default() },
        seccomp: vec![6, 0, 0, 0, 0, 0, 255, 127],
        rlimits: vec![wire::Rlimit { resource: 7, soft: 1, hard: 2 }],
        oom_score_adj: Some(-5),
        ..wire::Process::default()
    };
    let cgroup = wire::Cgroup { unified: text("/sys/fs/cgroup/x"), tasks: vec![text("/sys/fs/cgroup/cpu/x/tasks")] };
    let steps: Vec<wire::Step> = vec![
        wire::OpenTree { slot: 1, source: text("/a"), recursive: true, id_mapped: true, make: true }.into(),
        wire::MakePrivate { let_in: true }.into(),
        wire::Overlay { lower: vec![text("/l")], upper: text("/u"), work: text("/w"), at: text("/r"), attributes: 2, id_mapped: true }
            .into(),
        wire::Filesystem { kind: text("proc"), options: vec![(text("mode"), text("755"))], target: text("/proc"), ..Default::default() }
            .into(),
        wire::Attach { slot: 1, target: text("/a"), attributes: 1, propagation: 2, follow: true, only_top: 1 }.into(),
        wire::Symlink { content: text("a"), path: text("/b") }.into(),
        wire::Directory { path: text("/d"), mode: 0o755 }.into(),
        wire::Mask { path: text("/m") }.into(),
        wire::ReadOnly { path: text("/r") }.into(),
        wire::Pivot {}.into(),
        wire::Seal { directory: "/app".into() }.into(),
    ];
    let launch = wire::Launch { record: text("/exit"), cgroup: cgroup.clone(), steps, process: process.clone(), ..wire::Launch::default() };
    let requests: Vec<wire::Request> = vec![
        wire::Run { id: text("c"), launch }.into(),
        wire::Exec { container: text("c"), cgroup: cgroup.clone(), process, ..wire::Exec::default() }.into(),
        wire::Kill { container: text("c"), exec: 7, signal: 9 }.into(),
        wire::List {}.into(),
        wire::Watch {}.into(),
        wire::Forget { id: text("c") }.into(),
        wire::Shutdown {}.into(),
        wire::Join { container: text("c"), stdin: true, stdout: true, stderr: false }.into(),
        wire::ReopenLog { container: text("c") }.into(),
    ];
    let exit = wire::Exit { code: 137, signal: 9, oom_killed: true, started_at_ns: 1, finished_at_ns: 2 };
    let running = wire::Running { id: text("c"), pid: 7, started_at_ns: 1, exit: Some(exit.clone()) };
    let responses: Vec<wire::Response> = vec![
        wire::Done {}.into(),
        wire::Failed { attempt: text("a"), cause: text("b"), errno: 2 }.into(),
        wire::Started { pid: 7, at_ns: 8 }.into(),
        wire::Containers { all: vec![running] }.into(),
        wire::Exited { id: text("c"), exit: exit.clone() }.into(),
        wire::Hello { version: wire::VERSION, pid: 9, requests: 9, heeds: 1 }.into(),
    ];
    let init = wire::Init {
        version: wire::VERSION,
        directory: text("/run/x"),
        sysctls: vec![(text("a"), text("b"))],
        cgroup,
        ..Default::default()
    };
    let mut all: Vec<Vec<u8>> = requests.iter().map(Wire::to_bytes).collect();
    all.extend(responses.iter().map(Wire::to_bytes));
    all.extend([init.to_bytes(), wire::record_text("c", &exit).into_bytes()]);
    all
}

fn sandbox_config() -> cri::PodSandboxConfig {
    let text = |text: &str| text.to_owned();
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata { name: text("web"), uid: text("u1"), namespace: text("default"), attempt: 1 }),
        hostname: text("web"),
        log_directory: text("/var/log/pods/x"),
        dns_config: Some(cri::DnsConfig { servers: vec![text("10.0.0.1")], searches: vec![text("a.b")], options: vec![text("ndots:5")] }),
        port_mappings: vec![cri::PortMapping { protocol: 1, container_port: 53, host_port: 5353, host_ip: text("127.0.0.1") }],
        labels: [(text("a"), text("b"))].into(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: text("/kubepods/burstable/podu1"),
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(cri::NamespaceOption { network: 2, pid: 1, ipc: 0, ..Default::default() }),
                ..Default::default()
            }),
            sysctls: [(text("net.ipv4.ip_forward"), text("1"))].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn requests() -> Vec<Vec<u8>> {
    let text = |text: &str| text.to_owned();
    let resources = cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: -1,
        cpu_shares: 512,
        memory_limit_in_bytes: 1 << 20,
        oom_score_adj: 999,
        ..Default::default()
    };
    let security = cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: vec![text("ALL")],
            drop_capabilities: vec![text("NET_RAW")],
            ..Default::default()
        }),
        run_as_user: Some(cri::Int64Value { value: -1 }),
        supplemental_groups: vec![1, -7, i64::MAX],
        seccomp: Some(cri::SecurityProfile { profile_type: 2, localhost_ref: text("localhost/x.json") }),
        no_new_privs: true,
        ..Default::default()
    };
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: text("main"), attempt: 2 }),
        image: Some(cri::ImageSpec { image: text("nginx"), user_specified_image: text("nginx:1"), ..Default::default() }),
        command: vec![text("sh")],
        args: vec![text("-c")],
        envs: vec![cri::KeyValue { key: text("A"), value: text("b") }],
        mounts: vec![cri::Mount {
            container_path: text("/data"),
            host_path: text("/srv"),
            readonly: true,
            propagation: 2,
            ..Default::default()
        }],
        log_path: text("main/0.log"),
        linux: Some(cri::LinuxContainerConfig { resources: Some(resources.clone()), security_context: Some(security) }),
        ..Default::default()
    };
    let create = cri::CreateContainerRequest { pod_sandbox_id: text("s"), config: Some(config), sandbox_config: Some(sandbox_config()) };
    vec![
        cri::RunPodSandboxRequest { config: Some(sandbox_config()), runtime_handler: text("crun") }.encode_to_vec(),
        create.encode_to_vec(),
        cri::UpdateContainerResourcesRequest { container_id: text("c"), linux: Some(resources), ..Default::default() }.encode_to_vec(),
        cri::PullImageRequest { image: Some(cri::ImageSpec { image: text("nginx"), ..Default::default() }), ..Default::default() }
            .encode_to_vec(),
    ]
}

fn answers() -> Vec<Vec<u8>> {
    let text = |text: &str| text.to_owned();
    let metadata = || cri::ContainerMetadata { name: text("main"), attempt: 2 };
    let sandbox = cri::PodSandboxStatus {
        id: text("s"),
        metadata: sandbox_config().metadata,
        state: 1,
        created_at: i64::MAX,
        network: Some(cri::PodSandboxNetworkStatus { ip: text("10.0.0.1"), additional_ips: vec![cri::PodIp { ip: text("::1") }] }),
        ..Default::default()
    };
    let container = cri::ContainerStatus {
        id: text("c"),
        metadata: Some(metadata()),
        state: 2,
        created_at: -1,
        finished_at: i64::MIN,
        exit_code: 137,
        mounts: vec![cri::Mount { container_path: text("/data"), ..Default::default() }],
        ..Default::default()
    };
    let stats = cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes { id: text("c"), metadata: Some(metadata()), ..Default::default() }),
        cpu: Some(cri::CpuUsage { usage_core_nano_seconds: Some(cri::UInt64Value { value: u64::MAX }), ..Default::default() }),
        ..Default::default()
    };
    let image =
        cri::Image { id: text("sha256:0"), repo_tags: vec![text("nginx:1")], size: u64::MAX, username: text("app"), ..Default::default() };
    vec![
        cri::PodSandboxStatusResponse { status: Some(sandbox), ..Default::default() }.encode_to_vec(),
        cri::ContainerStatusResponse { status: Some(container), ..Default::default() }.encode_to_vec(),
        cri::ListContainerStatsResponse { stats: vec![stats] }.encode_to_vec(),
        cri::ListPodSandboxStatsResponse { stats: vec![cri::PodSandboxStats::default()] }.encode_to_vec(),
        cri::ListImagesResponse { images: vec![image] }.encode_to_vec(),
    ]
}

fn frames() -> Vec<Vec<u8>> {
    let mut deflate = spdy::Deflate::default();
    let exec = [
        &spdy::syn_stream(1, &deflate.write(&[("streamtype", "error")]))[..],
        &spdy::syn_stream(3, &deflate.write(&[("streamtype", "stdin")])),
        &spdy::window_update(3, 65536),
        &spdy::ping(1),
        &spdy::data(3, false, b"echo a\n"),
        &spdy::data(3, true, b""),
        &spdy::rst_stream(3, 5),
        &spdy::go_away(3),
    ];
    let mut deflate = spdy::Deflate::default();
    let answers = [
        &spdy::syn_reply(1, &deflate.write(&[]))[..],
        &spdy::syn_reply(3, &deflate.write(&[("a", "\u{fffd}")])),
        &spdy::data(1, true, br#"{"status":"Success"}"#),
    ];
    let mut zlib = Compress::new(Compression::default(), true);
    zlib.set_dictionary(&spdy::dictionary()).expect("set the dictionary");
    let mut compressed = |block: &[u8]| {
        let mut out = Vec::with_capacity(block.len() + 1024);
        zlib.compress_vec(block, &mut out, FlushCompress::Sync).expect("compress");
        out
    };
    let port = b"\0\0\0\x02\0\0\0\x0aStreamType\0\0\0\x04data\0\0\0\x04Port\0\0\0\x048080";
    let forward = [&spdy::syn_stream(1, &compressed(port))[..], &spdy::syn_stream(3, &compressed(port))];
    // A block that is cut short; more than a block may become.
    let short = spdy::syn_stream(1, &spdy::Deflate::default().write(&[("a", "b")])[..20]);
    let bomb = spdy::syn_stream(5, &compressed(&vec![0; 1 << 20]));
    let mut all = vec![exec.concat(), answers.concat(), forward.concat(), short.to_vec(), bomb.to_vec()];
    // Another version, a length that is too long, a frame that is cut short, data that go on.
    let broken: [&[u8]; 4] = [
        &[0x80, 2, 0, 1, 0, 0, 0, 0],
        &[0x80, 3, 0, 1, 0, 255, 255, 255],
        &[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0],
        &[0, 0, 0, 1, 1, 0, 1, 0, 7],
    ];
    all.extend(broken.map(<[u8]>::to_vec));
    all
}

fn patches() -> Vec<Vec<u8>> {
    let pod = r#"{"kind":"Pod","metadata":{"name":"a","labels":{"x":"y"},"finalizers":["f/a"]},"spec":{"containers":[{"name":"a","image":"i","env":[{"name":"E","value":"v"}],"ports":[{"containerPort":80},{"containerPort":80,"protocol":"UDP"}]}],"tolerations":[{"key":"k"}]}}"#;
    let deployment = r#"{"kind":"Deployment","spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}},"template":{"spec":{"containers":[]}}},"status":{"conditions":[{"type":"T"}]}}"#;
    let secret = r#"{"kind":"Secret","data":{"a":"YQ=="}}"#;
    let bodies = [
        r#"{"spec":{"containers":[{"name":"a","$patch":"delete"},{"name":"b","image":"j"}],"$setElementOrder/containers":[{"name":"b"},{"name":"a"}]}}"#,
        r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["f/a"],"finalizers":["g/b"],"labels":null},"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}"#,
        r#"{"spec":{"containers":[{"$patch":"replace"},{"name":"z"}],"tolerations":[{"key":"q"}]},"stringData":{"a":"b"},"status":{"conditions":[{"type":"T","status":"True"}]}}"#,
        r#"[{"op":"add","path":"/spec/x","value":{"a":[1]}},{"op":"copy","from":"/spec","path":"/spec/y"},{"op":"move","from":"/spec/x","path":"/z"},{"op":"test","path":"/kind","value":"Pod"},{"op":"remove","path":"/spec"}]"#,
        r#"{"f:spec":{".":{},"f:replicas":{},"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:image":{}},"v:\"x\"":{},"i:3":{}}}}"#,
        r#"{"spec":{"replicas":1,"replicas":2,"containers":[{"name":"a","ports":[{"containerPort":80},{"containerPort":80}]}]}}"#,
    ];
    let all = [pod, deployment, secret].into_iter().flat_map(|live| bodies.map(|body| format!("{live}\n{body}").into_bytes()));
    all.collect()
}

fn selectors() -> Vec<Vec<u8>> {
    let texts = [
        "app=web,tier!=back,!gone,there",
        "app in (a,b), app notin (c),n>4,n<6,x==y",
        "example.org/name in (,a)",
        "metadata.name=a,spec.nodeName!=n1,status.phase==Running",
        r"metadata.name=a\,b\=c\\,type!=",
        "spec.unschedulable=true",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
