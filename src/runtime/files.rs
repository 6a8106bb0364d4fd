//! The texts of a pod's /etc/hosts, /etc/hostname and /etc/resolv.conf. PURE.

use std::fmt::Write;

use crate::cri::{DnsConfig, PodSandboxConfig};

/// /etc/hosts as the kubelet writes it.
pub fn hosts(config: &PodSandboxConfig, hostname: &str, address: Option<&str>) -> String {
    let mut text = String::from(
        "# written by podbay\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    if let Some(address) = address {
        // Writing into a String does not fail.
        writeln!(text, "{address}\t{hostname}").ok();
    }
    for (address, names) in &config.host_aliases {
        writeln!(text, "{address}\t{}", names.join("\t")).ok();
    }
    text
}

/// /etc/hosts of a pod on the host's network: the host's own and the pod's aliases.
pub fn hosts_of_host(config: &PodSandboxConfig, host: &str) -> String {
    let mut text = format!("# written by podbay, after the host's\n{}\n", host.trim_end());
    for (address, names) in &config.host_aliases {
        // Writing into a String does not fail.
        writeln!(text, "{address}\t{}", names.join("\t")).ok();
    }
    text
}

/// /etc/resolv.conf, or `host`'s text as it is.
pub fn resolv_conf(dns: Option<&DnsConfig>, host: &str) -> String {
    let Some(dns) = dns else { return host.to_owned() };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        writeln!(text, "search {}", dns.searches.join(" ")).ok();
    }
    for server in &dns.servers {
        writeln!(text, "nameserver {server}").ok();
    }
    if !dns.options.is_empty() {
        writeln!(text, "options {}", dns.options.join(" ")).ok();
    }
    text
}

/// Whether a pod may set this sysctl: it must be of a namespace the pod has for itself.
pub fn sysctl_is_of_pod(name: &str, host_network: bool, host_ipc: bool) -> bool {
    let plain = name.split(['.', '/']).all(|part| !part.is_empty() && part != "..");
    let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix));
    plain && ((name.starts_with("net.") && !host_network) || (ipc && !host_ipc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let config = PodSandboxConfig {
            host_aliases: vec![("10.0.0.1".into(), vec!["db".into(), "db.local".into()])],
            ..PodSandboxConfig::default()
        };
        assert!(hosts(&config, "web", Some("10.80.0.7")).ends_with("10.80.0.7\tweb\n10.0.0.1\tdb\tdb.local\n"));
        let own = hosts_of_host(&config, "127.0.0.1 localhost\n192.0.2.1 vm\n\n");
        assert!(own.ends_with("127.0.0.1 localhost\n192.0.2.1 vm\n10.0.0.1\tdb\tdb.local\n"), "{own}");
        let dns =
            DnsConfig { servers: vec!["10.96.0.10".into()], searches: vec!["a.svc".into(), "svc".into()], options: vec!["ndots:5".into()] };
        assert_eq!(resolv_conf(Some(&dns), ""), "search a.svc svc\nnameserver 10.96.0.10\noptions ndots:5\n");
        assert_eq!(resolv_conf(None, "nameserver 1.1.1.1\n"), "nameserver 1.1.1.1\n");
    }

    #[test]
    fn only_namespaced_sysctls() {
        assert!(sysctl_is_of_pod("net.core.somaxconn", false, false));
        assert!(!sysctl_is_of_pod("net.core.somaxconn", true, false));
        assert!(sysctl_is_of_pod("kernel.shmmax", false, false));
        assert!(!sysctl_is_of_pod("kernel.core_pattern", false, false));
        assert!(!sysctl_is_of_pod("net./../kernel.core_pattern", false, false));
        assert!(!sysctl_is_of_pod("net...kernel.core_pattern", false, false));
    }
}
