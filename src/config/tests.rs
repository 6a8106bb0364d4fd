use super::*;

fn written(text: &str) -> Written {
    Written::parse(Path::new("podbay.toml"), text).unwrap()
}

fn build(text: &str) -> Result<Config, ConfigError> {
    Config::build(written(text), &Flags::default())
}

/// As the verbs do that start a node.
fn build_node(text: &str) -> Result<Config, ConfigError> {
    Config::build(written(text), &Flags { starts_node: true, ..Flags::default() })
}

/// What is told, a line each.
fn told(text: &str) -> Vec<String> {
    build(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = build("").unwrap();
    assert_eq!(config.data_dir, Path::new(DEFAULT_DATA_DIR));
    assert_eq!(config.server.listen.port(), 6443);
    assert_eq!(config.server.service_range.to_string(), "10.96.0.0/16");
    assert_eq!(config.node.api_port, 10250);
    assert!(config.sources.is_empty());
}

#[test]
fn every_error_is_told_at_once() {
    let error = build_node(
        r#"
        [server]
        listen = "nowhere"
        service-range = "10.80.0.0/20"
        [node]
        name = "Not_A_Name"
        bridge = "much-too-long-for-linux"
        cgroup-root = "/podbay"
        runtime-endpoint = "tcp://10.0.0.1:1"
        bootstrap-kubeconfig = "/b"
        api-client = []
        [[source]]
        name = "web"
        "#,
    )
    .unwrap_err()
    .to_string();
    let parts = ["server.listen", "overlaps", "node.name", "node.bridge", "node.cgroup-root", "node.runtime-endpoint"];
    for part in parts.into_iter().chain(["node.bootstrap-kubeconfig", "node.api-client", "exactly one of"]) {
        assert!(error.contains(part), "{part} is missing in:\n{error}");
    }
}

#[test]
fn who_gets_into_the_pods_of_a_node_has_a_name() {
    let clients = |text: &str| build(&format!("[node]\nkubeconfig = '/k'\n{text}")).map(|config| config.node.api_client);
    assert_eq!(clients("").unwrap(), ["kube-apiserver-kubelet-client"]);
    assert_eq!(clients("api-client = ['a', 'b']").unwrap(), ["a", "b"]);
    for bad in ["api-client = []", "api-client = ['a', '']"] {
        assert!(clients(bad).unwrap_err().to_string().contains("node.api-client"), "{bad}");
    }
    for alone in ["api-client = ['a']", "api-client-ca = '/ca'", "bootstrap-kubeconfig = '/b'"] {
        // A flag of the agent's may name the other one: who starts no node has no such flag.
        build(&format!("[node]\n{alone}")).unwrap();
        let error = build_node(&format!("[node]\n{alone}")).unwrap_err().to_string();
        assert!(error.contains("say node.kubeconfig too"), "{alone}: {error}");
    }
}

#[test]
fn unknown_keys_are_errors() {
    assert_eq!(
        told("dta-dir = '/x'\n[node]\nname = 'a'\nbrige = 'b'\n\n[colour]\nred = 1\n"),
        [
            "podbay.toml: line 1, column 1: unknown key `dta-dir`, did you mean `data-dir`?",
            "podbay.toml: line 4, column 1: unknown key `brige`, did you mean `bridge`?",
            "podbay.toml: line 6, column 2: unknown key `colour`",
        ]
    );
    let error = Written::parse(Path::new("podbay.toml"), "name = ").unwrap_err();
    assert!(error.starts_with("TOML parse error at line 1, column 8"), "{error}");
}

#[test]
fn unknown_keys_hide_no_value_and_no_value_hides_another() {
    let text = r#"data-dir = 1
[server]
lisen = "0.0.0.0:1"
node-prefix = 300
service-range = "nonsense"
names = ["a", 2, "c"]
[node]
bridge = "much-too-long-for-linux"
labels = { a = "b", c = 1 }
cluster-dns = ["10.0.0.1", "x"]
[[source]]
name = "web"
directory = 3
[[source]]
name = "Web"
gti = "https://example.org/x"
colour = "red"
[images]
parallel-downloads = 0
[[images.registry]]
host = true
mirrors = ["m.test", "https://m.test"]
"#;
    let places = [
        "1, column 12: data-dir: invalid type: integer `1`, expected path string",
        "3, column 1: unknown key `lisen`, did you mean `listen`?",
        "4, column 15: server.node-prefix: invalid value: integer `300`, expected u8",
        "5, column 17: server.service-range: \"nonsense\": ",
        "6, column 15: server.names[1]: invalid type: integer `2`, expected a string",
        "8, column 10: node.bridge: \"much-too-long-for-linux\" must have",
        "9, column 25: node.labels.c: invalid type: integer `1`, expected a string",
        "10, column 28: node.cluster-dns[1]: \"x\": ",
        "13, column 13: source[0].directory: invalid type: integer `3`, expected path string",
        "15, column 8: source \"Web\": `name` must be a DNS name",
        "16, column 1: unknown key `gti`, did you mean `git`?",
        "17, column 1: unknown key `colour`",
        "19, column 22: images.parallel-downloads: must be at least 1",
        "21, column 8: images.registry[0].host: invalid type: boolean `true`, expected a string",
        "22, column 22: images.registry \"\": mirror \"https://m.test\" must be",
    ];
    let lines = told(text);
    assert_eq!(lines.len(), places.len(), "{lines:#?}");
    for (line, place) in lines.iter().zip(places) {
        assert!(line.starts_with(&format!("podbay.toml: line {place}")), "{line} is not {place}");
    }
}

/// What follows from a fault that is told is none: the value is there, only not to be read.
#[test]
fn a_fault_brings_no_other() {
    for (text, one) in [
        ("[[source]]\nname = 'a'\ndirectry = '/x'\n", "unknown key `directry`"),
        ("[[source]]\nname = 1\ngit = 'x'\n", "source[0].name: "),
        ("source = [1, {name = 'a', git = 'x'}]", "source[0]: "),
        ("[server]\naudit-log = 1\naudit-policy = '/p'\n", "server.audit-log: "),
        ("[server]\npod-range = '10.96.0.0/x'\n", "server.pod-range: "),
        ("[server]\npod-range = 1\nservice-range = '10.80.0.0/16'\n", "server.pod-range: "),
        ("server = 1\n", "server: "),
    ] {
        let lines = told(text);
        assert!(lines.len() == 1 && lines[0].contains(one), "{text}: {lines:#?}");
    }
}

#[test]
fn a_flag_is_told_by_its_own_name_and_has_no_place() {
    let flags = Flags { listen: Some("nowhere".into()), node_name: Some("A".into()), ..Flags::default() };
    let error = Config::build(written("[server]\nlisten = 'there'\n[node]\naddress = 'x'"), &flags).unwrap_err().to_string();
    let starts = ["podbay.toml: line 4, column 11: node.address: ", "--listen: \"nowhere\"", "--node-name: \"A\""];
    assert!(error.lines().zip(starts).all(|(line, start)| line.starts_with(start)) && error.lines().count() == 3, "{error}");
}

#[test]
fn flags_win_and_name_their_source() {
    let flags = Flags {
        listen: Some("127.0.0.1:7443".into()),
        sources: vec!["https://example.org/team/apps.git".into(), "infra=/srv/infra".into()],
        ..Flags::default()
    };
    let config = Config::build(written("[server]\nlisten = '0.0.0.0:1'"), &flags).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:7443");
    assert_eq!(config.sources["apps"].git.as_ref().unwrap().url, "https://example.org/team/apps.git");
    assert_eq!(config.sources["infra"].directory.as_deref(), Some("/srv/infra"));
}

#[test]
fn a_variable_does_not_contradict_a_named_file() {
    let variable = |name: &str| (name == "PODBAY_DATA_DIR").then(|| PathBuf::from("/b"));
    let told = |text: &str, dir: &str| {
        let mut written = written(text);
        let flags = Flags { data_dir: Some(dir.into()), ..Flags::default() };
        contradictions(Path::new("/etc/x.toml"), &mut written, &flags, &variable);
        written.faults.into_lines()
    };
    let contradiction = "PODBAY_DATA_DIR=/b contradicts data-dir = \"/a\" of /etc/x.toml: unset it, or say --data-dir";
    assert_eq!(told("data-dir = '/a'", "/b"), [contradiction]);
    assert!(told("data-dir = '/a'", "/c").is_empty());
    assert!(told("", "/b").is_empty());
}

#[test]
fn names_come_from_the_place() {
    for (place, name) in [("/srv/My Apps/", "my-apps"), ("git@host:team/infra.git", "infra"), ("/", "manifests")] {
        assert_eq!(name_of(place), name);
    }
}

/// The documented example says every key with its default: uncommented, it must be the default.
#[test]
fn the_example_file_is_true() {
    let text = include_str!("../../systemd/podbay.toml");
    let commented = Config::build(written(text), &Flags::default()).unwrap();
    assert!(commented.sources.is_empty());
    let bare: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() && rest != "directory = \"/srv/manifests\"" => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let full = Config::build(written(&bare), &Flags::default()).unwrap();
    let defaults = Config::build(Written::default(), &Flags::default()).unwrap();
    assert_eq!(full.data_dir, defaults.data_dir);
    assert_eq!(full.run_dir, defaults.run_dir);
    assert_eq!(full.server.listen, defaults.server.listen);
    assert_eq!((full.server.service_range, full.server.pod_range), (defaults.server.service_range, defaults.server.pod_range));
    assert_eq!((full.server.node_grace_seconds, full.server.eviction_seconds), (40, 300));
    assert_eq!((full.server.node_prefix, full.node.max_pods, full.node.api_port, full.node.lease_seconds), (24, 110, 10250, 10));
    assert_eq!((&full.node.bridge, &full.node.nft_table), (&defaults.node.bridge, &defaults.node.nft_table));
    let images = |config: &Config| {
        let Images { parallel_downloads, reserve_mib, gc_high_percent, gc_low_percent, gc_minimum_age_seconds, .. } = config.images;
        (parallel_downloads, reserve_mib, gc_high_percent, gc_low_percent, gc_minimum_age_seconds)
    };
    assert_eq!(images(&full), images(&defaults));
    assert_eq!(full.images.registries["docker.io"].mirrors, ["mirror.example.org:5000/hub"]);
    assert_eq!(full.node.runtime_endpoint, None);
    assert_eq!(full.node.api_client, defaults.node.api_client);
    assert_eq!(full.node.kubeconfig.as_deref(), Some(Path::new("/var/lib/podbay/agent/kubeconfig")));
    assert_eq!(full.sources["apps"].git.as_ref().unwrap().reference.as_deref(), Some("main"));
}
