//! Seccomp filters: the default profile as an OCI profile, and OCI profiles as BPF. PURE.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, sock_filter};

use super::{syscalls, syscalls32};

/// The architecture this program was built for, as seccompiler names it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// The CLONE_NEW* flags.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;
const CAP_SYS_ADMIN: u8 = 21;
const AF_VSOCK: u32 = 40;
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// What a program may call that is not of this architecture, but that the kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Nothing: no such call exists (ENOSYS).
    Nothing,
    /// What the default profile allows, by the numbers of 32-bit x86.
    Default,
}

/// Why a profile is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seccomp profile: {0}")]
pub struct SeccompError(String);

impl SeccompError {
    fn new(cause: impl std::fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

/// The profile of a container with these capabilities (bits of its bounding set).
pub fn default_profile(capabilities: u64) -> Result<LinuxSeccomp, SeccompError> {
    let has = |bit: u8| capabilities & (1 << bit) != 0;
    let mut names: Vec<String> = syscalls::ALLOWED.iter().map(|name| (*name).to_owned()).collect();
    for (_, more) in syscalls::WITH_CAPABILITY.iter().filter(|(bit, _)| has(*bit)) {
        names.extend(more.iter().map(|name| (*name).to_owned()));
    }
    names.sort_unstable();
    names.dedup();
    let mut rules = vec![rule(names, LinuxSeccompAction::ScmpActAllow, None, vec![])?];
    // Families but AF_VSOCK, which reaches the hypervisor around every network policy.
    let other = arg(0, u64::from(AF_VSOCK), None, LinuxSeccompOperator::ScmpCmpNe)?;
    rules.push(rule(vec!["socket".into()], LinuxSeccompAction::ScmpActAllow, None, vec![other])?);
    for persona in PERSONALITIES {
        let same = arg(0, persona, None, LinuxSeccompOperator::ScmpCmpEq)?;
        rules.push(rule(vec!["personality".into()], LinuxSeccompAction::ScmpActAllow, None, vec![same])?);
    }
    if !has(CAP_SYS_ADMIN) {
        let none = arg(0, NAMESPACE_FLAGS, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq)?;
        rules.push(rule(vec!["clone".into()], LinuxSeccompAction::ScmpActAllow, None, vec![none])?);
        // Its flags are behind a pointer; "does not exist" makes libc use clone.
        rules.push(rule(vec!["clone3".into()], LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), vec![])?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .syscalls(rules)
        .build()
        .map_err(SeccompError::new)
}

fn rule(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: Vec<LinuxSeccompArg>,
) -> Result<LinuxSyscall, SeccompError> {
    let mut rule = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        rule = rule.errno_ret(errno);
    }
    if !args.is_empty() {
        rule = rule.args(args);
    }
    rule.build().map_err(SeccompError::new)
}

fn arg(index: usize, value: u64, two: Option<u64>, op: LinuxSeccompOperator) -> Result<LinuxSeccompArg, SeccompError> {
    let mut arg = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    if let Some(two) = two {
        arg = arg.value_two(two);
    }
    arg.build().map_err(SeccompError::new)
}

/// Compiles a profile to the bytes of its BPF program.
///
/// Taken are profiles with a default, one other action under any conditions, and unconditional errors: what
/// profiles in use are made of. System calls this architecture lacks are left out.
pub fn compile(profile: &LinuxSeccomp, foreign: Foreign) -> Result<Vec<u8>, SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut errors: BTreeMap<i64, u32> = BTreeMap::new();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut unconditional = std::collections::BTreeSet::new();
    let mut other: Option<SeccompAction> = None;
    for rule in profile.syscalls().as_deref().unwrap_or_default() {
        let conditions = conditions(rule.args().as_deref().unwrap_or_default())?;
        let wanted = action(rule.action(), rule.errno_ret())?;
        if wanted == default && conditions.is_empty() {
            continue;
        }
        for number in rule.names().iter().filter_map(|name| syscalls::number(name)) {
            match (&wanted, &other) {
                (_, Some(other)) if *other == wanted => {}
                (SeccompAction::Errno(errno), _) if conditions.is_empty() && other_is_set_or_allows(&default, &other) => {
                    errors.insert(number, *errno);
                    continue;
                }
                (_, None) => other = Some(wanted.clone()),
                _ => return Err(SeccompError::new("mixes more than two actions under conditions")),
            }
            if conditions.is_empty() {
                unconditional.insert(number);
            }
            let chain = rules.entry(number).or_default();
            if !conditions.is_empty() {
                chain.push(SeccompRule::new(conditions.clone()).map_err(SeccompError::new)?);
            }
        }
    }
    for number in unconditional {
        rules.insert(number, Vec::new());
    }
    let matched = other.unwrap_or(if default == SeccompAction::Allow { SeccompAction::Log } else { SeccompAction::Allow });
    let arch = ARCHITECTURE.try_into().map_err(SeccompError::new)?;
    let filter = SeccompFilter::new(rules, default, matched, arch).map_err(SeccompError::new)?;
    let program: BpfProgram = filter.try_into().map_err(SeccompError::new)?;
    Ok(bytes(architectures(foreign).chain(prelude(&errors)).chain(program)))
}

/// Unconditional errors stand in the prelude, when the filter's one other action is taken or will be Allow.
fn other_is_set_or_allows(default: &SeccompAction, other: &Option<SeccompAction>) -> bool {
    other.is_some() || *default != SeccompAction::Allow
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<SeccompAction, SeccompError> {
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => SeccompAction::Allow,
        LinuxSeccompAction::ScmpActErrno => SeccompAction::Errno(errno.unwrap_or(EPERM)),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => SeccompAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => SeccompAction::KillProcess,
        LinuxSeccompAction::ScmpActLog => SeccompAction::Log,
        LinuxSeccompAction::ScmpActTrap => SeccompAction::Trap,
        other => return Err(SeccompError(format!("action {other} is not supported"))),
    })
}

fn conditions(args: &[LinuxSeccompArg]) -> Result<Vec<SeccompCondition>, SeccompError> {
    args.iter()
        .map(|arg| {
            let index = u8::try_from(arg.index()).map_err(SeccompError::new)?;
            let (op, value) = match arg.op() {
                LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
                LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
                LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
                LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
                LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
                LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
                LinuxSeccompOperator::ScmpCmpMaskedEq => (SeccompCmpOp::MaskedEq(arg.value()), arg.value_two().unwrap_or(0)),
            };
            // Quadwords, so that nothing hides in the upper half; where a value is excluded the kernel may look at
            // the lower half only, and so does the filter.
            let narrow = op == SeccompCmpOp::Ne && u32::try_from(value).is_ok();
            let length = if narrow { SeccompCmpArgLen::Dword } else { SeccompCmpArgLen::Qword };
            SeccompCondition::new(index, length, op, value).map_err(SeccompError::new)
        })
        .collect()
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
/// Offsets in what the filter sees: the call's number, the architecture, the lower half of the first argument.
const NUMBER: u32 = 0;
const AUDIT_ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const NATIVE: u32 = if cfg!(target_arch = "aarch64") { 0xC000_00B7 } else { 0xC000_003E };
const I386: u32 = 0x4000_0003;

/// Calls by another architecture's numbers, told apart before any number is looked at; this one's go on.
fn architectures(foreign: Foreign) -> impl Iterator<Item = sock_filter> {
    let refused = |errno: u32| step(RETURN, 0, 0, RET_ERRNO | errno);
    let mut other = Vec::new();
    if foreign == Foreign::Default && cfg!(target_arch = "x86_64") {
        other.extend([step(JUMP_EQUAL, 1, 0, I386), refused(ENOSYS), step(LOAD, 0, 0, NUMBER)]);
        other.extend([step(JUMP_EQUAL, 0, 1, syscalls32::CLONE3), refused(ENOSYS)]);
        // Each over its block when it is another call; in the block one bad argument refuses, the rest is allowed.
        let flags = u32::try_from(NAMESPACE_FLAGS).unwrap_or(u32::MAX);
        other.extend([step(JUMP_EQUAL, 0, 4, syscalls32::CLONE), step(LOAD, 0, 0, FIRST_ARGUMENT)]);
        other.extend([step(JUMP_SET, 0, 1, flags), refused(EPERM), step(RETURN, 0, 0, RET_ALLOW)]);
        other.extend([step(JUMP_EQUAL, 0, 4, syscalls32::SOCKET), step(LOAD, 0, 0, FIRST_ARGUMENT)]);
        other.extend([step(JUMP_EQUAL, 0, 1, AF_VSOCK), refused(EPERM), step(RETURN, 0, 0, RET_ALLOW)]);
        let personalities = PERSONALITIES.map(|value| u32::try_from(value).unwrap_or(u32::MAX));
        other.extend([step(JUMP_EQUAL, 0, 12, syscalls32::PERSONALITY), step(LOAD, 0, 0, FIRST_ARGUMENT)]);
        other.extend(personalities.into_iter().flat_map(|value| [step(JUMP_EQUAL, 0, 1, value), step(RETURN, 0, 0, RET_ALLOW)]));
        other.push(refused(EPERM));
        for (first, last) in syscalls32::ranges() {
            other.extend([step(JUMP_GREATER_EQUAL, 0, 2, first), step(JUMP_GREATER, 1, 0, last), step(RETURN, 0, 0, RET_ALLOW)]);
        }
        other.extend([step(JUMP_GREATER_EQUAL, 0, 1, syscalls::FIRST_UNKNOWN), refused(ENOSYS), refused(EPERM)]);
    } else {
        other.push(refused(ENOSYS));
    }
    let over = u32::try_from(other.len()).unwrap_or(u32::MAX);
    [step(LOAD, 0, 0, AUDIT_ARCH), step(JUMP_EQUAL, 0, 1, NATIVE), step(JUMP, 0, 0, over)].into_iter().chain(other)
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Errors for whole system calls, and ENOSYS for those nobody knew when this was written.
fn prelude(errors: &BTreeMap<i64, u32>) -> impl Iterator<Item = sock_filter> {
    let mut program = vec![step(LOAD, 0, 0, NUMBER)];
    for (number, errno) in errors {
        program.push(step(JUMP_EQUAL, 0, 1, u32::try_from(*number).unwrap_or(u32::MAX)));
        program.push(step(RETURN, 0, 0, RET_ERRNO | (errno & 0xffff)));
    }
    program.push(step(JUMP_GREATER_EQUAL, 0, 1, syscalls::FIRST_UNKNOWN));
    program.push(step(RETURN, 0, 0, RET_ERRNO | ENOSYS));
    program.into_iter()
}

fn bytes(program: impl Iterator<Item = sock_filter>) -> Vec<u8> {
    let mut out = Vec::new();
    for instruction in program {
        out.extend_from_slice(&instruction.code.to_ne_bytes());
        out.extend_from_slice(&[instruction.jt, instruction.jf]);
        out.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on a call, as the kernel would.
    fn run(program: &[u8], number: i64, args: [u64; 6]) -> u32 {
        run_as(program, NATIVE, number, args)
    }

    fn run_as(program: &[u8], audit: u32, number: i64, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&(number as u32).to_ne_bytes());
        data.extend_from_slice(&audit.to_ne_bytes());
        data.extend_from_slice(&0u64.to_ne_bytes());
        args.iter().for_each(|arg| data.extend_from_slice(&arg.to_ne_bytes()));
        let (mut at, mut acc) = (0usize, 0u32);
        loop {
            let i = &program[at * 8..at * 8 + 8];
            let (code, jt, jf) = (u16::from_ne_bytes([i[0], i[1]]), usize::from(i[2]), usize::from(i[3]));
            let k = u32::from_ne_bytes([i[4], i[5], i[6], i[7]]);
            at += 1;
            let jump = |yes: bool| if yes { jt } else { jf };
            match code {
                0x20 => acc = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
                0x05 => at += k as usize,
                0x15 => at += jump(acc == k),
                0x25 => at += jump(acc > k),
                0x35 => at += jump(acc >= k),
                0x45 => at += jump(acc & k != 0),
                0x54 => acc &= k,
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    const DENY: u32 = 0x0005_0001;
    const MISSING: u32 = 0x0005_0026;

    fn ask(program: &[u8], name: &str, first: u64) -> u32 {
        run(program, syscalls::number(name).unwrap(), [first, 0, 0, 0, 0, 0])
    }

    #[test]
    fn the_default_profile_allows_and_denies() {
        let program = compile(&default_profile(0xa804_25fb).unwrap(), Foreign::Default).unwrap();
        for name in ["read", "execve", "openat", "futex", "exit_group", "mseal"] {
            assert_eq!(ask(&program, name, 0), ALLOW, "{name}");
        }
        for name in ["keyctl", "unshare", "mount", "bpf", "setns", "io_uring_setup", "kexec_load", "ptrace"] {
            let expected = if name == "ptrace" { ALLOW } else { DENY };
            assert_eq!(ask(&program, name, 0), expected, "{name}");
        }
        assert_eq!(ask(&program, "clone", 17), ALLOW);
        assert_eq!(ask(&program, "clone", 0x1000_0000), DENY);
        assert_eq!(ask(&program, "clone3", 0), MISSING);
        assert_eq!(ask(&program, "socket", 2), ALLOW);
        assert_eq!(ask(&program, "socket", 40), DENY);
        assert_eq!(ask(&program, "personality", 0xffff_ffff), ALLOW);
        assert_eq!(ask(&program, "personality", 5), DENY);
        assert_eq!(run(&program, 9999, [0; 6]), MISSING);
        let admin = compile(&default_profile(1 << CAP_SYS_ADMIN).unwrap(), Foreign::Default).unwrap();
        assert_eq!(ask(&admin, "clone3", 0), ALLOW);
        assert_eq!(ask(&admin, "mount", 0), ALLOW);
    }

    #[test]
    fn profiles_from_files() {
        let deny_list: LinuxSeccomp = serde_json::from_str(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                {"names":["mkdir","mkdirat","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
                {"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}"#,
        )
        .unwrap();
        let program = compile(&deny_list, Foreign::Nothing).unwrap();
        assert_eq!(ask(&program, "mkdirat", 0), 0x0005_000d);
        assert_eq!(ask(&program, "read", 0), ALLOW);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(ask(&program, "chmod", 0), DENY);
        let notify = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert!(compile(&serde_json::from_str(notify).unwrap(), Foreign::Nothing).is_err());
    }

    #[test]
    fn calls_of_another_architecture_are_told_apart() {
        let first = |value: u64| [value, 0, 0, 0, 0, 0];
        let program = compile(&default_profile(0xa804_25fb).unwrap(), Foreign::Default).unwrap();
        // An architecture that nobody has.
        assert_eq!(run_as(&program, 0x1234, 0, [0; 6]), MISSING);
        let strict = compile(&default_profile(0).unwrap(), Foreign::Nothing).unwrap();
        assert_eq!(run_as(&strict, I386, 4, [0; 6]), MISSING);
        if cfg!(not(target_arch = "x86_64")) {
            return;
        }
        for (name, number) in syscalls32::ALLOWED {
            assert_eq!(run_as(&program, I386, i64::from(*number), [0; 6]), ALLOW, "{name}");
        }
        // mount, reboot, keyctl, unshare, setns, bpf, io_uring_setup, and a hole in the table.
        for number in [21, 88, 288, 310, 346, 357, 425, 222] {
            assert_eq!(run_as(&program, I386, number, [0; 6]), DENY, "{number}");
        }
        let cases = [(120, 17, ALLOW), (120, 0x1000_0000, DENY), (359, 2, ALLOW), (359, 40, DENY), (136, 8, ALLOW), (136, 5, DENY)];
        for (number, argument, expected) in cases {
            assert_eq!(run_as(&program, I386, number, first(argument)), expected, "{number}({argument:#x})");
        }
        assert_eq!((run_as(&program, I386, 435, [0; 6]), run_as(&program, I386, 9999, [0; 6])), (MISSING, MISSING));
    }
}
