//! Seccomp profiles from files of the host: the format of Docker and of the OCI (runtime-spec, config-linux, "Seccomp"), as the
//! rules that are meant for one container on this host. PURE.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSyscall, LinuxSyscallBuilder};
use serde::Deserialize;

use super::capability;
use super::seccomp::SeccompError;

/// A profile's file is at most this long.
pub const LIMIT_BYTES: u64 = 1 << 20;
/// Of the native architecture, as Go names it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    /// As older files say it.
    #[serde(default)]
    name: String,
    action: LinuxSeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<When>,
    #[serde(default)]
    excludes: Option<When>,
}

/// For whom a rule is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct When {
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    min_kernel: String,
}

/// Reads a profile for a container with these capabilities (bits of its bounding set) on this kernel (`6.1.0-18-amd64`).
///
/// # Errors
/// It is no profile, or wants what cannot be done.
pub fn read(text: &[u8], capabilities: u64, kernel: &str) -> Result<LinuxSeccomp, SeccompError> {
    let profile: Profile = serde_json::from_slice(text).map_err(SeccompError::new)?;
    let rules = profile.syscalls.unwrap_or_default();
    let asks = |action: LinuxSeccompAction| action == LinuxSeccompAction::ScmpActNotify;
    if !profile.listener_path.is_empty() || asks(profile.default_action) || rules.iter().any(|rule| asks(rule.action)) {
        return Err(SeccompError::new("SCMP_ACT_NOTIFY is not supported: there is nobody here who would answer"));
    }
    let meant = rules.into_iter().filter(|rule| rule.is_meant(capabilities, kernel));
    let mut built = LinuxSeccompBuilder::default()
        .default_action(profile.default_action)
        .syscalls(meant.map(Rule::build).collect::<Result<Vec<_>, _>>()?);
    if let Some(errno) = profile.default_errno_ret {
        built = built.default_errno_ret(errno);
    }
    built.build().map_err(SeccompError::new)
}

impl Rule {
    fn is_meant(&self, capabilities: u64, kernel: &str) -> bool {
        let has = |name: &String| capability::bit(name).is_some_and(|bit| capabilities & (1 << bit) != 0);
        let is_this = |arch: &String| arch == ARCHITECTURE;
        let reached = |wanted: &str| version(kernel) >= version(wanted);
        let included = self.includes.as_ref().is_none_or(|when| {
            let here = when.arches.is_empty() || when.arches.iter().any(is_this);
            here && when.caps.iter().all(has) && (when.min_kernel.is_empty() || reached(&when.min_kernel))
        });
        let excluded = self.excludes.as_ref().is_some_and(|when| {
            let new = !when.min_kernel.is_empty() && reached(&when.min_kernel);
            when.arches.iter().any(is_this) || when.caps.iter().any(has) || new
        });
        included && !excluded
    }

    fn build(self) -> Result<LinuxSyscall, SeccompError> {
        let mut names = self.names;
        names.extend(Some(self.name).filter(|name| !name.is_empty()));
        let mut rule = LinuxSyscallBuilder::default().names(names).action(self.action);
        if let Some(errno) = self.errno_ret {
            rule = rule.errno_ret(errno);
        }
        if let Some(args) = self.args.filter(|args| !args.is_empty()) {
            rule = rule.args(args);
        }
        rule.build().map_err(SeccompError::new)
    }
}

/// The first two numbers of a kernel's version.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, capabilities: u64) -> Vec<String> {
        let profile = read(text.as_bytes(), capabilities, "6.1.0-18-amd64").unwrap();
        profile.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn rules_are_for_architectures_capabilities_and_kernels() {
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": [{{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}}],
            "syscalls": [
            {{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {{}}, "excludes": {{}}}},
            {{"name": "old", "action": "SCMP_ACT_ALLOW", "args": null}},
            {{"names": ["here"], "action": "SCMP_ACT_ALLOW", "includes": {{"arches": ["{ARCHITECTURE}"]}}}},
            {{"names": ["elsewhere"], "action": "SCMP_ACT_ALLOW", "includes": {{"arches": ["s390x"]}}}},
            {{"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {{"caps": ["CAP_SYS_ADMIN"]}}}},
            {{"names": ["nobody"], "action": "SCMP_ACT_ALLOW", "excludes": {{"caps": ["CAP_SYS_ADMIN"]}}}},
            {{"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {{"minKernel": "4.8"}}}},
            {{"names": ["newer"], "action": "SCMP_ACT_ALLOW", "includes": {{"minKernel": "6.10"}}}}]}}"#
        );
        assert_eq!(names(&text, 0), ["read", "old", "here", "nobody", "new"]);
        assert_eq!(names(&text, 1 << 21), ["read", "old", "here", "admin", "new"]);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let refused = |text: &str| read(text.as_bytes(), 0, "6.1").unwrap_err().to_string();
        assert!(
            refused(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_NOTIFY"}]}"#).contains("NOTIFY")
        );
        assert!(refused(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#).contains("NOTIFY"));
        for broken in
            ["", "[]", "{}", r#"{"defaultAction":"SCMP_ACT_DANCE"}"#, r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"]}]}"#]
        {
            assert!(!refused(broken).is_empty());
        }
    }
}
