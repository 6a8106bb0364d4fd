//! Seccomp filters: the default profile as an OCI profile, and OCI profiles as BPF. PURE.

use std::collections::BTreeMap;

use nix::libc::sock_filter;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator,
    LinuxSyscall, LinuxSyscallBuilder,
};

use super::{syscalls, syscalls32};

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
    pub(super) fn new(cause: impl std::fmt::Display) -> Self {
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
    // Families but AF_VSOCK, which reaches the hypervisor around every network policy. Programs of 32 bits have
    // `socketcall` too, whose arguments are behind a pointer, so this binds only those of 64 bits.
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
        .architectures(own_architectures())
        .syscalls(rules)
        .build()
        .map_err(SeccompError::new)
}

/// For other runtimes, which kill a program of 32 bits where its architecture is not named.
fn own_architectures() -> Vec<Arch> {
    if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]
    }
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

/// What becomes of one system call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Verdict {
    /// The first whose conditions all hold; else the default.
    conditional: Vec<(Vec<LinuxSeccompArg>, u32)>,
    /// This whatever the conditions say, as with libseccomp.
    always: Option<u32>,
}

/// Compiles a profile to the bytes of its BPF program. System calls this architecture lacks are left out.
pub fn compile(profile: &LinuxSeccomp, foreign: Foreign) -> Result<Vec<u8>, SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut calls: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in profile.syscalls().as_deref().unwrap_or_default() {
        let (wanted, conditions) = (action(rule.action(), rule.errno_ret())?, rule.args().clone().unwrap_or_default());
        if conditions.len() > CONDITIONS {
            return Err(SeccompError(format!("a rule has {} conditions: {CONDITIONS} at most", conditions.len())));
        }
        if wanted == default {
            // Says nothing, so it comes before nothing: runc and crun pass it over too.
            continue;
        }
        let alternatives = alternatives(&conditions);
        for number in rule.names().iter().filter_map(|name| syscalls::number(name, syscalls::NATIVE)) {
            let verdict = calls.entry(number).or_default();
            match verdict.always {
                _ if !conditions.is_empty() => verdict.conditional.extend(alternatives.iter().map(|one| (one.clone(), wanted))),
                // The first one counts, as with libseccomp: podman's own profile says two things about some calls.
                Some(_) => {}
                None => verdict.always = Some(wanted),
            }
        }
    }
    for verdict in calls.values_mut().filter(|verdict| verdict.always.is_some()) {
        verdict.conditional.clear();
    }
    let mut program = prelude(default);
    for (first, last, verdict) in ranges(calls, default) {
        let body = body(&verdict, default)?;
        let over = u32::try_from(body.len()).unwrap_or(u32::MAX);
        // A jump by condition is short.
        match (u8::try_from(over), first == last) {
            (Ok(over), true) => program.push(step(JUMP_EQUAL, 0, over, first)),
            _ => {
                let skip = [step(JUMP_GREATER_EQUAL, 0, 1, first), step(JUMP_GREATER, 0, 1, last), step(JUMP, 0, 0, over)];
                program.extend(skip);
            }
        }
        program.extend(body);
    }
    program.push(step(RETURN, 0, 0, default));
    let whole: Vec<sock_filter> = architectures(foreign).chain(program).collect();
    if whole.len() > INSTRUCTIONS {
        return Err(SeccompError(format!("it needs {} instructions, and the kernel takes {INSTRUCTIONS}", whole.len())));
    }
    Ok(bytes(whole.into_iter()))
}

/// Conditions that hold together; where one argument has several, each alone is enough, as with runc and crun.
fn alternatives(conditions: &[LinuxSeccompArg]) -> Vec<Vec<LinuxSeccompArg>> {
    let repeats = conditions.iter().enumerate().any(|(at, one)| conditions[..at].iter().any(|before| before.index() == one.index()));
    if repeats { conditions.iter().map(|one| vec![*one]).collect() } else { vec![conditions.to_vec()] }
}

/// Neighbours of which the same is said, together; those that the default is for, not at all.
fn ranges(calls: BTreeMap<u32, Verdict>, default: u32) -> Vec<(u32, u32, Verdict)> {
    let mut all: Vec<(u32, u32, Verdict)> = Vec::new();
    for (number, verdict) in calls {
        let plain = verdict.conditional.is_empty();
        if plain && verdict.always.is_none_or(|always| always == default) {
            continue;
        }
        match all.last_mut() {
            Some((_, last, before)) if plain && *last + 1 == number && *before == verdict => *last = number,
            _ => all.push((number, number, verdict)),
        }
    }
    all
}

/// What decides about one call; ends with an answer in any case.
fn body(verdict: &Verdict, default: u32) -> Result<Vec<sock_filter>, SeccompError> {
    let mut all = Vec::new();
    for (conditions, wanted) in &verdict.conditional {
        let mut chain: Vec<Instruction> = Vec::new();
        for condition in conditions {
            let part = holds(condition, *wanted)?;
            let end = chain.len() + part.len();
            chain.extend(part.into_iter().map(|one| one.with_end(end)));
        }
        chain.push(Instruction::plain(RETURN, *wanted));
        let end = chain.len();
        let resolved = chain.into_iter().enumerate().map(|(at, one)| one.resolve(at, end)).collect::<Option<Vec<_>>>();
        all.extend(resolved.ok_or_else(|| SeccompError::new("a rule has too many conditions"))?);
    }
    all.push(step(RETURN, 0, 0, verdict.always.unwrap_or(default)));
    Ok(all)
}

/// Where a comparison leads.
#[derive(Debug, Clone, Copy)]
enum Goto {
    Next,
    /// The condition holds.
    Holds,
    /// Its place in the chain, once known.
    At(usize),
    /// The rule is not for this call.
    Fails,
}

struct Instruction {
    code: u16,
    k: u32,
    yes: Goto,
    no: Goto,
}

impl Instruction {
    fn plain(code: u16, k: u32) -> Self {
        Self { code, k, yes: Goto::Next, no: Goto::Next }
    }

    fn jump(code: u16, k: u32, yes: Goto, no: Goto) -> Self {
        Self { code, k, yes, no }
    }

    fn with_end(self, end: usize) -> Self {
        let place = |goto| if matches!(goto, Goto::Holds) { Goto::At(end) } else { goto };
        Self { yes: place(self.yes), no: place(self.no), ..self }
    }

    /// `end`: where the chain ends.
    fn resolve(self, at: usize, end: usize) -> Option<sock_filter> {
        let offset = |goto| match goto {
            Goto::Next | Goto::Holds => Some(0),
            Goto::At(place) => u8::try_from(place - at - 1).ok(),
            Goto::Fails => u8::try_from(end - at - 1).ok(),
        };
        Some(step(self.code, offset(self.yes)?, offset(self.no)?, self.k))
    }
}

/// Compares an argument, which has 64 bits where the machine's words have 32. `wanted`: the answer when it holds.
fn holds(arg: &LinuxSeccompArg, wanted: u32) -> Result<Vec<Instruction>, SeccompError> {
    use Goto::{Fails, Holds, Next};
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| SeccompError(format!("there is no argument {}", arg.index())))?;
    let low_at = FIRST_ARGUMENT + index * 8;
    let parts = |value: u64| (u32::try_from(value >> 32).unwrap_or(0), u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0));
    let (high, low) = parts(arg.value());
    let load_high = || Instruction::plain(LOAD, low_at + 4);
    let load_low = || Instruction::plain(LOAD, low_at);
    // What lies above in the upper half decides; what is equal there is compared below.
    let ordered = |above, below, last: Instruction| {
        let beyond = Instruction::jump(JUMP_GREATER, high, above, Next);
        vec![load_high(), beyond, Instruction::jump(JUMP_EQUAL, high, Next, below), load_low(), last]
    };
    Ok(match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => {
            let equal = |k| Instruction::jump(JUMP_EQUAL, k, Next, Fails);
            vec![load_high(), equal(high), load_low(), equal(low)]
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (wanted_high, wanted_low) = parts(arg.value_two().unwrap_or(0) & arg.value());
            let equal = |k| Instruction::jump(JUMP_EQUAL, k, Next, Fails);
            let masked = |load, mask, wanted| [load, Instruction::plain(AND, mask), equal(wanted)];
            masked(load_high(), high, wanted_high).into_iter().chain(masked(load_low(), low, wanted_low)).collect()
        }
        // Where a value is excluded from what is allowed, the kernel may look at the lower half only, and so does the filter.
        LinuxSeccompOperator::ScmpCmpNe if high == 0 && matches!(wanted, RET_ALLOW | RET_LOG) => {
            vec![load_low(), Instruction::jump(JUMP_EQUAL, low, Fails, Next)]
        }
        LinuxSeccompOperator::ScmpCmpNe => {
            let other = Instruction::jump(JUMP_EQUAL, high, Next, Holds);
            vec![load_high(), other, load_low(), Instruction::jump(JUMP_EQUAL, low, Fails, Next)]
        }
        LinuxSeccompOperator::ScmpCmpGt => ordered(Holds, Fails, Instruction::jump(JUMP_GREATER, low, Next, Fails)),
        LinuxSeccompOperator::ScmpCmpGe => ordered(Holds, Fails, Instruction::jump(JUMP_GREATER_EQUAL, low, Next, Fails)),
        LinuxSeccompOperator::ScmpCmpLt => ordered(Fails, Holds, Instruction::jump(JUMP_GREATER_EQUAL, low, Fails, Next)),
        LinuxSeccompOperator::ScmpCmpLe => ordered(Fails, Holds, Instruction::jump(JUMP_GREATER, low, Fails, Next)),
    })
}

/// What the filter answers (linux/seccomp.h).
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    let number = |default: u32| errno.unwrap_or(default) & 0xffff;
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => RET_ALLOW,
        LinuxSeccompAction::ScmpActErrno => RET_ERRNO | number(EPERM),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActLog => RET_LOG,
        LinuxSeccompAction::ScmpActTrap => RET_TRAP,
        LinuxSeccompAction::ScmpActTrace => RET_TRACE | number(EPERM),
        other => return Err(SeccompError(format!("action {other} is not supported"))),
    })
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const AND: u16 = 0x54;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
/// Conditions of one rule: short jumps lead over them.
const CONDITIONS: usize = 24;
/// BPF_MAXINSNS (linux/bpf_common.h).
const INSTRUCTIONS: usize = 4096;
/// Calls by the numbers of x32, which no profile names.
const X32: u32 = 0x4000_0000;
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

/// ENOSYS for calls nobody knew when this was written, unless everything is allowed that is not named.
fn prelude(default: u32) -> Vec<sock_filter> {
    let lenient = matches!(default, RET_ALLOW | RET_LOG);
    let unknown = if lenient { X32 } else { syscalls::FIRST_UNKNOWN };
    vec![step(LOAD, 0, 0, NUMBER), step(JUMP_GREATER_EQUAL, 0, 1, unknown), step(RETURN, 0, 0, RET_ERRNO | ENOSYS)]
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
        run(program, i64::from(syscalls::number(name, syscalls::NATIVE).unwrap()), [first, 0, 0, 0, 0, 0])
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
        assert_eq!(run(&program, 0x4000_0053, [0; 6]), MISSING, "by another number");
        let notify = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert!(compile(&serde_json::from_str(notify).unwrap(), Foreign::Nothing).is_err());
    }

    #[test]
    fn conditions_compare_all_64_bits() {
        let big = 0x1_0000_0005u64;
        // Operator, value and second value; arguments of which it holds, and of which not.
        type Case<'a> = (&'a str, u64, u64, &'a [u64], &'a [u64]);
        let table: [Case<'_>; 8] = [
            ("SCMP_CMP_EQ", big, 0, &[big], &[5, big + 1, 0x2_0000_0005]),
            ("SCMP_CMP_NE", big, 0, &[5, big + 1, 0x2_0000_0005], &[big]),
            ("SCMP_CMP_NE", 40, 0, &[2, 0x1_0000_0002], &[40, 0x1_0000_0028]),
            ("SCMP_CMP_LT", big, 0, &[0, 5, big - 1, 0xffff_ffff], &[big, big + 1, 0x2_0000_0000]),
            ("SCMP_CMP_LE", big, 0, &[0, big], &[big + 1, 0x2_0000_0000]),
            ("SCMP_CMP_GT", big, 0, &[big + 1, 0x2_0000_0000], &[big, 5, 0xffff_ffff]),
            ("SCMP_CMP_GE", big, 0, &[big, 0x2_0000_0000], &[big - 1, 0xffff_ffff]),
            ("SCMP_CMP_MASKED_EQ", 0x1_0000_00ff, 5, &[5, 0x2_0000_0105], &[big, 6]),
        ];
        for (op, value, two, yes, no) in table {
            let rule = serde_json::json!({"names": ["mkdirat"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": value, "valueTwo": two, "op": op}]});
            let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
            let program = compile(&serde_json::from_value(profile).unwrap(), Foreign::Nothing).unwrap();
            let mkdirat = i64::from(syscalls::number("mkdirat", syscalls::NATIVE).unwrap());
            let say = |first: u64, second: u64| run(&program, mkdirat, [first, second, 0, 0, 0, 0]);
            yes.iter().for_each(|first| assert_eq!(say(*first, 7), ALLOW, "{first:#x} {op} {value:#x}"));
            no.iter().for_each(|first| assert_eq!(say(*first, 7), DENY, "{first:#x} {op} {value:#x}"));
            yes.iter().for_each(|first| assert_eq!(say(*first, 8), DENY, "both must hold"));
        }
    }

    #[test]
    fn an_argument_with_several_conditions_needs_one_of_them_and_a_denial_looks_at_all_bits() {
        let of = |default: &str, action: &str, args: serde_json::Value| {
            let rules = serde_json::json!([{"names": ["mkdirat"], "action": action, "args": args}]);
            let profile = serde_json::json!({"defaultAction": default, "syscalls": rules});
            compile(&serde_json::from_value(profile).unwrap(), Foreign::Nothing).unwrap()
        };
        let equal = |value: u64| serde_json::json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
        let either = of("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", serde_json::json!([equal(1), equal(2)]));
        assert_eq!([1, 2, 3].map(|first| ask(&either, "mkdirat", first)), [ALLOW, ALLOW, DENY]);
        let other = serde_json::json!([{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]);
        let denied = of("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", other);
        assert_eq!([40, 41, 0x1_0000_0028].map(|first| ask(&denied, "mkdirat", first)), [ALLOW, DENY, DENY]);
    }

    #[test]
    fn several_rules_for_one_call_are_tried_in_their_order() {
        let rule = |action: &str, value: Option<u64>| {
            let args: Vec<_> = value.into_iter().map(|v| serde_json::json!({"index": 0, "value": v, "op": "SCMP_CMP_EQ"})).collect();
            serde_json::json!({"names": ["mkdirat"], "action": action, "args": args})
        };
        let of = |rules: Vec<serde_json::Value>| {
            let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
            compile(&serde_json::from_value(profile).unwrap(), Foreign::Nothing)
        };
        let kill = "SCMP_ACT_KILL_PROCESS";
        let program = of(vec![rule("SCMP_ACT_LOG", Some(3)), rule(kill, Some(1)), rule("SCMP_ACT_ERRNO", Some(2))]).unwrap();
        assert_eq!([1, 2, 3, 4].map(|first| ask(&program, "mkdirat", first)), [RET_KILL_PROCESS, DENY, RET_LOG, ALLOW]);
        let always = of(vec![rule("SCMP_ACT_LOG", None), rule(kill, Some(1))]).unwrap();
        assert_eq!(ask(&always, "mkdirat", 1), RET_LOG, "one without conditions comes before those with some");
        let nothing = of(vec![rule("SCMP_ACT_ALLOW", None), rule(kill, Some(1))]).unwrap();
        assert_eq!([1, 2].map(|first| ask(&nothing, "mkdirat", first)), [RET_KILL_PROCESS, ALLOW], "the default is no rule");
        let many = (0..2000).map(|value| rule(kill, Some(value))).collect();
        assert!(of(many).unwrap_err().to_string().contains("instructions"));
        let twice = of(vec![rule(kill, None), rule("SCMP_ACT_LOG", None)]).unwrap();
        assert_eq!(ask(&twice, "mkdirat", 1), RET_KILL_PROCESS, "the first one counts");
        // More between two numbers than a short jump leads over.
        let long = of((0..100).map(|value| rule(kill, Some(value))).collect()).unwrap();
        assert_eq!([99, 100].map(|first| ask(&long, "mkdirat", first)), [RET_KILL_PROCESS, ALLOW]);
        assert_eq!(ask(&long, "statx", 5), ALLOW);
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
