//! A pod's resolv.conf by dnsPolicy and dnsConfig. PURE.

use k8s_openapi::api::core::v1::PodSpec;

use crate::cri::DnsConfig;

/// What the node offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDns {
    /// Servers of the cluster's own DNS; none: ClusterFirst is as Default.
    pub cluster_servers: Vec<String>,
    /// `cluster.local`
    pub cluster_domain: String,
    /// The host's own, for pods on its network.
    pub host: DnsConfig,
    /// The same without servers that listen on the host's loopback, which a pod's is not.
    pub upstream: DnsConfig,
    /// Why pods resolve nothing outside the cluster.
    pub problem: Option<String>,
}

impl NodeDns {
    /// From the host's resolv.conf and, if that names only a resolver of the host itself, from the file where
    /// this one keeps its servers.
    pub fn new(cluster_servers: &[String], cluster_domain: &str, host: &str, resolver: Option<&str>) -> Self {
        let host = parse(host);
        let mut upstream = without_loopback(host.clone());
        if upstream.servers.is_empty()
            && !host.servers.is_empty()
            && let Some(resolver) = resolver
        {
            upstream = without_loopback(parse(resolver));
        }
        let problem = (upstream.servers.is_empty() && !host.servers.is_empty()).then(|| {
            format!(
                "the host's resolv.conf names only this host itself ({}), which pods cannot ask: set node.resolv-conf to a file with the real servers",
                host.servers.join(", ")
            )
        });
        Self { cluster_servers: cluster_servers.to_vec(), cluster_domain: cluster_domain.to_owned(), host, upstream, problem }
    }
}

fn without_loopback(mut config: DnsConfig) -> DnsConfig {
    let address = |server: &String| server.split('%').next().and_then(|text| text.parse::<std::net::IpAddr>().ok());
    config.servers.retain(|server| !address(server).is_some_and(|address| address.is_loopback() || address.is_unspecified()));
    config
}

const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;

/// Reads a resolv.conf.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        let keyword = words.next();
        let rest = words.map(str::to_owned);
        match keyword {
            Some("nameserver") => config.servers.extend(rest.take(1)),
            Some("search" | "domain") => config.searches = rest.filter(|word| word != ".").collect(),
            Some("options") => config.options.extend(rest),
            _ => {}
        }
    }
    config
}

/// The pod's configuration.
pub fn config(spec: &PodSpec, namespace: &str, node: &NodeDns) -> DnsConfig {
    let host_network = spec.host_network == Some(true);
    let mut config = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => DnsConfig::default(),
        "Default" | "ClusterFirst" if host_network => node.host.clone(),
        "Default" => node.upstream.clone(),
        _ if node.cluster_servers.is_empty() && host_network => node.host.clone(),
        _ if node.cluster_servers.is_empty() => node.upstream.clone(),
        _ => cluster(namespace, node),
    };
    if let Some(extra) = &spec.dns_config {
        add(&mut config.servers, extra.nameservers.iter().flatten().cloned());
        add(&mut config.searches, extra.searches.iter().flatten().cloned());
        for option in extra.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.retain(|old| old.split(':').next() != Some(name.as_str()));
            config.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            });
        }
    }
    config.servers.truncate(MOST_SERVERS);
    config.searches.truncate(MOST_SEARCHES);
    config
}

fn cluster(namespace: &str, node: &NodeDns) -> DnsConfig {
    let domain = &node.cluster_domain;
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    add(&mut searches, node.upstream.searches.iter().cloned());
    DnsConfig { servers: node.cluster_servers.clone(), searches, options: vec!["ndots:5".to_owned()] }
}

fn add(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for word in more {
        if !list.contains(&word) {
            list.push(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(servers: &[&str]) -> NodeDns {
        let text = "# comment\nnameserver 192.0.2.53 # own\nnameserver 192.0.2.54\nsearch lan example.com\noptions timeout:2\n";
        NodeDns::new(&strings(servers), "cluster.local", text, None)
    }

    #[test]
    fn resolv_conf_is_read() {
        let host = node(&[]).host;
        assert_eq!(host.servers, ["192.0.2.53", "192.0.2.54"]);
        assert_eq!(host.searches, ["lan", "example.com"]);
        assert_eq!(host.options, ["timeout:2"]);
    }

    #[test]
    fn policies_as_the_kubelets() {
        let cluster = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan", "example.com"].as_slice();
        let host = ["lan", "example.com"].as_slice();
        let none: &[&str] = &[];
        let own = json!({"nameservers": ["192.0.2.9"], "searches": ["x"], "options": [{"name": "ndots", "value": "1"}]});
        let table = [
            (json!({"containers": []}), &["10.96.0.10"][..], cluster, vec!["ndots:5"]),
            (json!({"containers": [], "dnsPolicy": "Default"}), &["192.0.2.53", "192.0.2.54"][..], host, vec!["timeout:2"]),
            (json!({"containers": [], "hostNetwork": true}), &["192.0.2.53", "192.0.2.54"][..], host, vec!["timeout:2"]),
            (
                json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                &["10.96.0.10"][..],
                cluster,
                vec!["ndots:5"],
            ),
            (json!({"containers": [], "dnsPolicy": "None"}), none, none, vec![]),
            (json!({"containers": [], "dnsPolicy": "None", "dnsConfig": own}), &["192.0.2.9"][..], &["x"][..], vec!["ndots:1"]),
        ];
        for (spec, servers, searches, options) in table {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            let got = config(&spec, "shop", &node(&["10.96.0.10"]));
            assert_eq!((got.servers, got.searches, got.options), (strings(servers), strings(searches), strings(&options)), "{spec:?}");
        }
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn without_cluster_dns_the_hosts_is_used() {
        assert_eq!(config(&PodSpec::default(), "shop", &node(&[])), node(&[]).host);
    }

    #[test]
    fn a_resolver_on_the_hosts_loopback_is_not_handed_to_pods() {
        let (stub, real) = ("nameserver 127.0.0.53\noptions edns0\nsearch lan\n", "nameserver 192.0.2.1\nnameserver ::1\nsearch lan\n");
        let servers = |host_network: bool, node: &NodeDns| {
            config(&PodSpec { host_network: Some(host_network), ..PodSpec::default() }, "ns", node).servers
        };
        let resolved = NodeDns::new(&[], "cluster.local", stub, Some(real));
        assert_eq!((servers(false, &resolved), resolved.problem.clone()), (strings(&["192.0.2.1"]), None));
        assert_eq!(servers(true, &resolved), ["127.0.0.53"], "on the host's network it answers");
        let alone = NodeDns::new(&[], "cluster.local", stub, None);
        assert_eq!(servers(false, &alone), [""; 0]);
        assert!(alone.problem.is_some_and(|problem| problem.contains("127.0.0.53") && problem.contains("resolv-conf")));
        let mixed = NodeDns::new(&[], "cluster.local", "nameserver 127.0.0.1\nnameserver 192.0.2.7\n", Some(real));
        assert_eq!((servers(false, &mixed), mixed.problem), (strings(&["192.0.2.7"]), None));
        assert_eq!(NodeDns::new(&[], "cluster.local", "", Some(real)).problem, None, "a host without DNS is as it is wanted");
    }
}
