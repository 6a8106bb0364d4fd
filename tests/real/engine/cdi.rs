//! Devices that vendors describe (CDI).

use podbay::cri::IdRange;

use super::*;

/// With a card that is /dev/fuse, and its driver; `more` goes into the card's own edits.
fn with_card(house: &mut House, more: &str) -> PathBuf {
    let [vendors, now, driver] = ["vendors", "now", "driver"].map(|name| house.dir.path().join(name));
    for dir in [&vendors, &now, &driver] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::write(driver.join("version"), "7\n").unwrap();
    let text = format!(
        r#"{{"cdiVersion": "0.6.0", "kind": "vendor.example/card",
            "containerEdits": {{"env": ["DRIVER=/driver"], "mounts":
                [{{"hostPath": "{}", "containerPath": "/driver", "options": ["ro", "noexec", "rbind"]}}]}},
            "devices": [{{"name": "0", "containerEdits": {{"env": ["CARD=fuse"],
                "deviceNodes": [{{"path": "/dev/card0", "hostPath": "/dev/fuse", "major": 10, "minor": 229, "permissions": "r"}}]{more}}}}}]}}"#,
        driver.display()
    );
    std::fs::write(vendors.join("card.json"), text).unwrap();
    std::fs::write(now.join("torn.yaml"), "cdiVersion: [").unwrap();
    house.options.cdi_dirs = vec![vendors, now];
    driver
}

const USE: &str = "echo $CARD $DRIVER $(cat $DRIVER/version); true < /dev/card0 && echo opened; \
    (true <> /dev/card0) 2>/dev/null || echo kept; touch /driver/x 2>/dev/null || echo sealed; grep -c ' /driver .*noexec' /proc/self/mounts";
const USED: &str = "fuse /driver 7\nopened\nkept\nsealed\n1\n";

fn asking(subject: &Subject, device: &str, text: &str) -> ContainerConfig {
    ContainerConfig { cdi_devices: vec![device.to_owned()], ..script(subject, text) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_a_device_with_what_its_vendor_says() {
    let mut house = House::new("cdi");
    with_card(&mut house, "");
    let subject = house.open().await;
    let (code, said) = run(&subject, &subject.pod("card"), asking(&subject, "vendor.example/card=0", USE)).await;
    assert_eq!((code, said.as_str()), (0, USED));
    let mut annotated = script(&subject, USE);
    annotated.annotations.insert("cdi.k8s.io/card-plugin_0".to_owned(), "vendor.example/card=0".to_owned());
    assert_eq!(run(&subject, &subject.pod("annotated"), annotated).await, (0, USED.to_owned()));
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("none")).await.unwrap();
    let none = subject.runtime.create_container(&sandbox, &asking(&subject, "vendor.example/card=1", USE)).await.unwrap_err().to_string();
    assert!(none.contains("unresolvable CDI devices vendor.example/card=1") && none.contains("torn.yaml"), "{none}");
    // Another one is at its place by now.
    let path = house.options.cdi_dirs[0].join("card.json");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("\"minor\": 229", "\"minor\": 3")).unwrap();
    let other = subject.runtime.create_container(&sandbox, &asking(&subject, "vendor.example/card=0", USE)).await.unwrap_err().to_string();
    assert!(other.contains("vendor.example/card=0: /dev/fuse is c 10:229 on this host, and not c 10:3"), "{other}");
    assert_eq!(subject.runtime.list_containers().await.unwrap(), []);
    house.close(subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vendor_mounts_stays_the_hosts_in_a_pod_with_users_of_its_own() {
    let mut house = House::new("cdi-users");
    let driver = with_card(&mut house, "");
    let key = driver.join("key");
    std::fs::write(&key, "of the host\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let subject = house.open().await;
    let pod = PodSandboxConfig { users: Some(IdRange { host: 1_310_720, length: 65_536 }), ..subject.pod("card") };
    let look = "cat /driver/version; stat -c %u /driver/key; cat /driver/key 2>/dev/null || echo kept";
    let done = run(&subject, &pod, asking(&subject, "vendor.example/card=0", look)).await;
    assert_eq!(done, (0, "7\n65534\nkept\n".to_owned()));
    house.close(subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_devices_hooks_are_run_by_another_oci_runtime_alone() {
    for handler in ["", "crun", "runc"] {
        hooked(handler).await;
    }
}

async fn hooked(handler: &str) {
    let mut house = handler::with_handlers(&format!("{handler}-hooks"));
    let ran = house.dir.path().join("ran");
    let hook = format!(
        r#", "hooks": [{{"hookName": "createContainer", "path": "/bin/sh", "args": ["sh", "-c", "echo ran > {}"]}}]"#,
        ran.display()
    );
    with_card(&mut house, &hook);
    let subject = Subject { handler: handler.to_owned(), ..house.open().await };
    if handler.is_empty() {
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("card")).await.unwrap();
        let refused = subject.runtime.create_container(&sandbox, &asking(&subject, "vendor.example/card=0", USE)).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("vendor.example/card=0: its hook /bin/sh (createContainer)"), "{text}");
    } else {
        let done = run(&subject, &subject.pod("card"), asking(&subject, "vendor.example/card=0", USE)).await;
        assert_eq!(done, (0, USED.to_owned()), "{handler}");
        assert_eq!(std::fs::read_to_string(&ran).unwrap(), "ran\n", "{handler}");
    }
    house.close(subject).await;
}
