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
    let mut problems = Vec::new();
    if read(FORWARD).as_deref() != Some("1")
        && let Err(cause) = fs::OpenOptions::new().write(true).open(path(FORWARD))
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
