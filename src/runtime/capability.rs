//! Capabilities: their names, bits, and the sets containers get. PURE.

use crate::cri::types::SecurityContext;

/// By bit.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has that asks for nothing: the common default of container engines.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All that are known.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The bit of `NET_ADMIN` or `CAP_NET_ADMIN`, in any case.
pub fn bit(name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).and_then(|index| u32::try_from(index).ok())
}

/// The names (`CAP_CHOWN`) in a set, by bit.
pub fn names(set: u64) -> impl Iterator<Item = String> {
    NAMES.iter().enumerate().filter(move |(index, _)| set & (1 << index) != 0).map(|(_, name)| format!("CAP_{name}"))
}

/// The set a container gets. `ALL` may be added and dropped; what is dropped by name is not there even then.
pub fn wanted(privileged: bool, add: &[String], drop: &[String]) -> Result<u64, String> {
    if privileged {
        return Ok(ALL);
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let set = |names: &[String]| {
        names
            .iter()
            .filter(|name| !is_all(name))
            .try_fold(0, |set, name| bit(name).map(|bit| set | 1 << bit).ok_or_else(|| format!("{name} is not a capability")))
    };
    let default = DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | 1 << bit);
    let base = if drop.iter().any(is_all) { 0 } else { default };
    let base = if add.iter().any(is_all) { ALL } else { base };
    let dropped = set(drop)?;
    Ok((base & !dropped) | (set(add)? & if add.iter().any(is_all) { !dropped } else { ALL }))
}

/// What a container's processes may do: (most that root can have, what another user has as well).
///
/// # Errors
/// A name that is no capability's.
pub fn of(security: &SecurityContext) -> Result<(u64, u64), String> {
    let bounding = wanted(security.privileged, &security.add_capabilities, &security.drop_capabilities)?;
    let ambient = wanted(false, &security.add_ambient_capabilities, &["ALL".to_owned()])?;
    Ok((bounding | ambient, ambient))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(add: &[&str], drop: &[&str]) -> Result<String, String> {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        wanted(false, &owned(add), &owned(drop)).map(|set| names(set).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_every_user_has_root_may_have_too() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (drop_capabilities, add_ambient_capabilities) = (names(&["ALL"]), names(&["NET_ADMIN"]));
        let security = SecurityContext { drop_capabilities, add_ambient_capabilities, ..SecurityContext::default() };
        assert_eq!(of(&security), Ok((1 << 12, 1 << 12)));
        assert_eq!(of(&SecurityContext::default()), Ok((0xa804_25fb, 0)));
        assert!(of(&SecurityContext { add_ambient_capabilities: names(&["MAGIC"]), ..security }).is_err());
    }

    #[test]
    fn sets() {
        assert_eq!(wanted(false, &[], &[]), Ok(0xa804_25fb));
        assert_eq!(wanted(true, &[], &["CHOWN".into()]), Ok(ALL));
        assert_eq!(text(&[], &["ALL"]), Ok(String::new()));
        assert_eq!(text(&["NET_ADMIN", "cap_sys_time"], &["all"]), Ok("CAP_NET_ADMIN CAP_SYS_TIME".into()));
        assert!(text(&["ALL"], &["SYS_ADMIN"]).is_ok_and(|t| t.contains("CAP_BPF") && !t.contains("SYS_ADMIN")));
        assert!(text(&["MAGIC"], &[]).is_err());
    }
}
