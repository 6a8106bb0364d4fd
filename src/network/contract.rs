//! What every network must do. Panics at the first thing that is not so.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{HostPort, NetworkError, NodeNetwork, PodNetwork, Range, ServicePort, Wanted};

/// Runs the suite on a network that holds nothing yet, with two network namespaces to attach.
/// Leaves nothing.
///
/// # Panics
/// Where the network breaks the contract.
pub async fn check(network: &(impl PodNetwork + NodeNetwork), netns: &[PathBuf; 2]) {
    let range = Range { base: Ipv4Addr::new(10, 80, 7, 0), prefix: 29 };
    let outcome = network.attach("pod-1", &netns[0]).await;
    assert!(matches!(outcome, Err(NetworkError::NoRange)), "no address before there is a range: {outcome:?}");

    let mut wanted = Wanted { pod_range: Some(range), cluster_range: Some(range), ..Wanted::default() };
    assert!(sync(network, &wanted).await, "the first sync changes something");
    assert!(!sync(network, &wanted).await, "the second one nothing");
    wanted.service_range = Some(Range { base: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 });
    wanted.services.push(ServicePort {
        namespace: "default".into(),
        name: "web".into(),
        port_name: String::new(),
        address: Ipv4Addr::new(10, 96, 0, 7),
        protocol: "TCP".into(),
        port: 80,
        node_port: None,
        endpoints: vec![(Ipv4Addr::new(10, 80, 7, 2), 8080)],
        affinity_seconds: None,
    });
    assert!(sync(network, &wanted).await, "a new Service is a change");
    assert!(!sync(network, &wanted).await, "once");

    let one = network.attach("pod-1", &netns[0]).await.expect("attach");
    assert_eq!(network.attach("pod-1", &netns[0]).await.expect("attach again"), one, "the same pod, the same answer");
    let two = network.attach("pod-2", &netns[1]).await.expect("attach");
    assert_ne!(one.address, two.address, "each pod has an address of its own");
    for attachment in [&one, &two] {
        assert!(range.contains(attachment.address.into()), "{} is in {range}", attachment.address);
        assert_ne!(attachment.address, attachment.gateway);
    }
    assert!(!sync(network, &wanted).await, "pods are not the host's business");

    let port = HostPort { protocol: "TCP".into(), host_address: None, host_port: 8080, port: 80 };
    let ports = std::slice::from_ref(&port);
    for _ in 0..2 {
        network.publish("pod-1", ports).await.expect("publish, and again");
    }
    let taken = network.publish("pod-2", ports).await;
    assert!(matches!(taken, Err(NetworkError::Taken { port: 8080, .. })), "a port leads to one pod: {taken:?}");
    network.publish("never-attached", ports).await.expect_err("a pod without an address");
    network.publish("never-attached", &[]).await.expect("which has no ports anyway");
    assert!(!sync(network, &wanted).await, "nor are their ports");

    network.detach("pod-1").await.expect("detach");
    network.publish("pod-2", ports).await.expect("the port has gone with its pod");
    network.publish("pod-2", &[]).await.expect("and can be given back");
    network.detach("pod-1").await.expect("detaching twice is no error");
    network.detach("never-attached").await.expect("nor is detaching what never was");
    for turn in 0..20 {
        let attachment = network.attach("pod-1", &netns[0]).await.unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        assert_ne!(attachment.address, two.address);
        network.detach("pod-1").await.expect("detach");
    }
    network.detach("pod-2").await.expect("detach");
    network.remove_all().await.expect("remove everything");
    network.remove_all().await.expect("remove nothing");
}

async fn sync(network: &impl NodeNetwork, wanted: &Wanted) -> bool {
    network.sync(wanted).await.expect("sync")
}
