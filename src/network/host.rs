//! Kernel settings of the host that decide whether packets get anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use super::NetworkError;

const FORWARD: &str = "net/ipv4/ip_forward";

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(path(name)).ok().map(|text| text.trim().to_owned())
}

/// Turns forwarding on, and writes down once that it was off. Returns whether it had to.
pub(super) fn forward(state: &Path) -> Result<bool, NetworkError> {
    if read(FORWARD).as_deref() == Some("1") {
        return Ok(false);
    }
    let record = state.join("ip_forward");
    if !record.exists() {
        fs::write(&record, "0").map_err(|cause| NetworkError::failed(format!("write {}", record.display()), cause))?;
    }
    fs::write(path(FORWARD), "1").map_err(|cause| NetworkError::failed("set net.ipv4.ip_forward to 1", cause))?;
    Ok(true)
}

/// Turns forwarding off again if we turned it on and nobody else is seen who needs it.
pub(super) fn forward_as_before(state: &Path, needed_by: Option<&str>) -> Result<(), NetworkError> {
    let record = state.join("ip_forward");
    if !record.exists() {
        return Ok(());
    }
    if let Some(other) = needed_by {
        tracing::warn!(other, "net.ipv4.ip_forward stays 1: it was 0 before, and somebody else seems to need it now");
        return fs::remove_file(&record).map_err(|cause| NetworkError::failed(format!("remove {}", record.display()), cause));
    }
    fs::write(path(FORWARD), "0").map_err(|cause| NetworkError::failed("set net.ipv4.ip_forward back to 0", cause))?;
    fs::remove_file(&record).map_err(|cause| NetworkError::failed(format!("remove {}", record.display()), cause))
}

/// Lets packets from and to the loopback's addresses pass this link, or not (ip-sysctl: `route_localnet`). Returns
/// whether that is new. Goes with the link.
pub(super) fn route_loopback(link: &str, on: bool) -> bool {
    let (name, value) = (format!("net/ipv4/conf/{link}/route_localnet"), if on { "1" } else { "0" });
    // Without a link there is nothing to set, until it is made anew.
    if read(&name).is_none_or(|now| now == value) {
        return false;
    }
    let written = fs::write(path(&name), value);
    if let Err(cause) = &written {
        // The ports' other addresses are none the worse for it.
        tracing::warn!(link, value, %cause, "set route_localnet, by which host ports answer on the loopback");
    }
    written.is_ok()
}

/// A pod must not become the host's IPv6 router by announcing itself.
pub(super) fn ignore_router_advertisements(link: &str) {
    let _ = fs::write(path(&format!("net/ipv6/conf/{link}/accept_ra")), "0");
}

/// Whether rules of the old iptables are loaded in this network namespace.
pub(super) fn has_legacy_filter() -> bool {
    // Of the thread: the process may be in another namespace.
    fs::read_to_string("/proc/thread-self/net/ip_tables_names").is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// What of the host's settings is against us. `uplink` is the link by which the host reaches the world.
pub(super) fn problems(uplink: Option<&str>) -> Vec<String> {
    against_us(uplink, read, || fs::OpenOptions::new().write(true).open(path(FORWARD)).map(drop))
}

/// The same of settings as `read` has them; `forward_can_be_set` tries whether forwarding could be turned on.
fn against_us(
    uplink: Option<&str>,
    read: impl Fn(&str) -> Option<String>,
    forward_can_be_set: impl FnOnce() -> std::io::Result<()>,
) -> Vec<String> {
    let mut problems = Vec::new();
    if read(FORWARD).as_deref() != Some("1")
        && let Err(cause) = forward_can_be_set()
    {
        problems.push(format!("net.ipv4.ip_forward is off and cannot be set ({cause}): pods reach nothing beyond this node"));
    }
    // The kernel takes the greater one of `all` and the link's own.
    let filter = |link: &str| read(&format!("net/ipv4/conf/{link}/rp_filter")).and_then(|text| text.parse::<u8>().ok()).unwrap_or(0);
    let strictest = std::iter::once("all").chain(uplink).max_by_key(|link| filter(link));
    if let Some(link) = strictest.filter(|link| filter(link) == 1) {
        problems.push(format!(
            "net.ipv4.conf.{link}.rp_filter is 1 (strict): answers that come in by another interface than the request left by are dropped; set it to 2"
        ));
    }
    problems
}

/// Whether bridged frames pass the host's IP filters.
pub(super) fn filters_bridged_frames() -> bool {
    read("net/bridge/bridge-nf-call-iptables").as_deref() == Some("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a host with these settings, by the word that tells the problems apart.
    fn said(settings: &[(&str, &str)], forward_can_be_set: bool) -> Vec<&'static str> {
        let read = |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let set = || if forward_can_be_set { Ok(()) } else { Err(std::io::ErrorKind::ReadOnlyFilesystem.into()) };
        let words = [
            ("ip_forward is off and cannot be set (read-only filesystem or storage medium)", "forward"),
            ("net.ipv4.conf.all.rp_filter is 1", "all"),
            ("net.ipv4.conf.eth0.rp_filter is 1", "eth0"),
        ];
        let word = |problem: String| words.iter().find(|(text, _)| problem.contains(text)).map_or("else", |(_, word)| *word);
        against_us(Some("eth0"), read, set).into_iter().map(word).collect()
    }

    #[test]
    fn forwarding_is_a_problem_only_where_it_cannot_be_turned_on() {
        for (value, can_be_set, expected) in [("0", true, &[][..]), ("0", false, &["forward"]), ("1", false, &[]), ("1", true, &[])] {
            assert_eq!(said(&[(FORWARD, value)], can_be_set), expected, "{value}, {can_be_set}");
        }
        assert_eq!(said(&[], false), ["forward"], "it cannot even be read");
    }

    /// ip-sysctl: the greater one of `conf/all` and the link's own holds; 1 is strict, 2 is loose.
    #[test]
    fn a_strict_reverse_path_is_named_by_the_setting_that_makes_it_so() {
        for (all, link, expected) in [
            ("0", "0", &[][..]),
            ("1", "0", &["all"]),
            ("0", "1", &["eth0"]),
            ("2", "1", &[]),
            ("1", "2", &[]),
            ("2", "2", &[]),
            ("0", "nonsense", &[]),
        ] {
            let settings = [(FORWARD, "1"), ("net/ipv4/conf/all/rp_filter", all), ("net/ipv4/conf/eth0/rp_filter", link)];
            assert_eq!(said(&settings, true), expected, "all {all}, eth0 {link}");
        }
    }
}
