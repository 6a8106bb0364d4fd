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
    /// The host's own.
    pub host: DnsConfig,
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
        "Default" => node.host.clone(),
        "ClusterFirst" if host_network => node.host.clone(),
        _ if node.cluster_servers.is_empty() => node.host.clone(),
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
    add(&mut searches, node.host.searches.iter().cloned());
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
        NodeDns {
            cluster_servers: servers.iter().map(|s| (*s).to_owned()).collect(),
            cluster_domain: "cluster.local".into(),
            host: parse("# comment\nnameserver 192.0.2.53 # own\nnameserver 192.0.2.54\nsearch lan example.com\noptions timeout:2\n"),
        }
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
}
