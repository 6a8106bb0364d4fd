//! Which devices a container may open: the few that every container has and those that it is given, and none by a node it
//! makes or finds itself. PURE.
//!
//! Kept by the cgroup, behind the `nodev` mounts: lines for v1's `devices` controller, a program for v2's hook
//! (`BPF_PROG_TYPE_CGROUP_DEVICE`, linux/bpf.h; bpf(2)). Making a node is left to `CAP_MKNOD`, as in every runtime: what
//! counts is opening it. Source of the list: the OCI runtime specification, config-linux.md, "Default Devices".

use std::path::PathBuf;

const READ: u32 = 2;
const WRITE: u32 = 4;
const MAKE: u32 = 1;
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// A device node of the host, and where a container has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Without links.
    pub host: PathBuf,
    pub path: PathBuf,
    pub block: bool,
    pub major: u32,
    pub minor: u32,
    /// Permissions alone.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// What may be done with it: some of `rwm`.
    pub access: String,
}

impl Node {
    /// As a line for v1's `devices.allow`.
    pub fn line(&self) -> String {
        format!("{} {}:{} {}", if self.block { 'b' } else { 'c' }, self.major, self.minor, self.access)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    kind: u32,
    /// `None`: any.
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

const fn open(major: u32, minor: Option<u32>) -> Rule {
    Rule { kind: CHARACTER, major: Some(major), minor, access: READ | WRITE | MAKE }
}

const ALLOWED: [Rule; 11] = [
    Rule { kind: CHARACTER, major: None, minor: None, access: MAKE },
    Rule { kind: BLOCK, major: None, minor: None, access: MAKE },
    open(1, Some(3)), // null
    open(1, Some(5)), // zero
    open(1, Some(7)), // full
    open(1, Some(8)), // random
    open(1, Some(9)), // urandom
    open(5, Some(0)), // tty
    open(5, Some(1)), // console
    open(5, Some(2)), // ptmx
    open(136, None),  // pts
];

impl Rule {
    fn line(&self) -> String {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let access = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')];
        let access: String = access.into_iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| letter).collect();
        format!("{} {}:{} {access}", if self.kind == BLOCK { 'b' } else { 'c' }, number(self.major), number(self.minor))
    }

    /// A line for v1's `devices.allow`. `None`: it is none, or one for everything.
    fn of_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = match words.next()? {
            "b" => BLOCK,
            "c" => CHARACTER,
            _ => return None,
        };
        let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
        let (major, minor) = words.next()?.split_once(':')?;
        let bit = |letter| [('r', READ), ('w', WRITE), ('m', MAKE)].into_iter().find(|(known, _)| *known == letter).map(|(_, bit)| bit);
        let access = words.next()?.chars().try_fold(0, |all, letter| Some(all | bit(letter)?))?;
        Some(Self { kind, major: number(major)?, minor: number(minor)?, access })
    }
}

/// What to write to `devices.allow`, after an `a` to `devices.deny`, for what every container may open.
pub(super) fn lines() -> impl Iterator<Item = String> {
    ALLOWED.iter().map(Rule::line)
}

/// Whether a line of `devices.list` is within these: the kernel puts together what is said of the same devices. A line for
/// everything (`a`) never is.
pub(super) fn covers(allowed: &[String], line: &str) -> bool {
    let Some((devices, access)) = line.rsplit_once(' ') else { return line.is_empty() };
    let named =
        |letter: char| allowed.iter().filter_map(|one| one.rsplit_once(' ')).any(|(known, may)| known == devices && may.contains(letter));
    access.chars().all(named)
}

/// One instruction of the kernel's virtual machine (linux/bpf.h, struct bpf_insn).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction { code, registers: to | (from << 4), offset, immediate: immediate.cast_signed() }
}

/// These with what every container may open; what is said of the same devices is put together, as the kernel does it for
/// v1. `None`: one of them is no such line.
fn rules(more: &[String]) -> Option<Vec<Rule>> {
    let mut all = ALLOWED.to_vec();
    for line in more {
        let rule = Rule::of_line(line)?;
        let same = |known: &&mut Rule| (known.kind, known.major, known.minor) == (rule.kind, rule.major, rule.minor);
        match all.iter_mut().find(same) {
            Some(known) => known.access |= rule.access,
            None => all.push(rule),
        }
    }
    Some(all)
}

/// Answers 1 for what may be done, also by these lines for v1's `devices.allow`, and 0 for all else. `None`: one of them is
/// no such line. Its context (struct bpf_cgroup_dev_ctx) is the kind of device in the
/// low half of a word and the access in the high one, the major and the minor number.
pub(super) fn program(more: &[String]) -> Option<Vec<Instruction>> {
    let (result, context, kind, access, major, minor, rest) = (0, 1, 2, 3, 4, 5, 6);
    let mut program = vec![
        instruction(LOAD_WORD, kind, context, 0, 0),
        instruction(MOVE_REGISTER, access, kind, 0, 0),
        instruction(AND, kind, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, access, 0, 0, 16),
        instruction(LOAD_WORD, major, context, 4, 0),
        instruction(LOAD_WORD, minor, context, 8, 0),
    ];
    for rule in &rules(more)? {
        let mut tests = vec![(kind, rule.kind)];
        tests.extend(rule.major.map(|number| (major, number)));
        tests.extend(rule.minor.map(|number| (minor, number)));
        let all = READ | WRITE | MAKE;
        // What is asked beyond the rule must be nothing.
        let narrow = rule.access != all;
        let length = tests.len() + if narrow { 3 } else { 0 } + 2;
        let mut at = 0;
        let mut put = |program: &mut Vec<Instruction>, code, register, value| {
            at += 1;
            // To the next rule: over what is left of this one.
            let over = if code == JUMP_NOT_EQUAL { i16::try_from(length - at).unwrap_or(0) } else { 0 };
            program.push(instruction(code, register, if code == MOVE_REGISTER { access } else { 0 }, over, value));
        };
        for (register, value) in tests {
            put(&mut program, JUMP_NOT_EQUAL, register, value);
        }
        if narrow {
            put(&mut program, MOVE_REGISTER, rest, 0);
            put(&mut program, AND, rest, all & !rule.access);
            put(&mut program, JUMP_NOT_EQUAL, rest, 0);
        }
        put(&mut program, MOVE, result, 1);
        put(&mut program, EXIT, 0, 0);
    }
    program.extend([instruction(MOVE, result, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    Some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers: its instructions carried out, as the kernel would.
    fn answer(more: &[String], kind: u32, major: u32, minor: u32, access: u32) -> u32 {
        let program = program(more).unwrap();
        let context = [kind | (access << 16), major, minor];
        let mut registers = [0_u32; 7];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from, value) = (usize::from(pair & 15), usize::from(pair >> 4), immediate.cast_unsigned());
            at += 1;
            match code {
                LOAD_WORD => registers[to] = context[usize::try_from(offset).unwrap() / 4],
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE => registers[to] = value,
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_NOT_EQUAL if registers[to] != value => at += usize::try_from(offset).unwrap(),
                JUMP_NOT_EQUAL => {}
                EXIT => return registers[0],
                other => panic!("no instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn what_the_kernel_lists_is_compared_with_what_was_allowed() {
        let allowed: Vec<String> = lines().chain(["c *:* rw".to_owned(), "b 8:1 r".to_owned()]).collect();
        for line in ["c 1:3 rwm", "c *:* rwm", "b 8:1 r", "b *:* m"] {
            assert!(covers(&allowed, line), "{line}");
        }
        for line in ["a *:* rwm", "b 8:1 rw", "b *:* rwm", "c 1:1 r"] {
            assert!(!covers(&allowed, line), "{line}");
        }
    }

    #[test]
    fn the_program_says_what_the_lines_say() {
        let lines: Vec<String> = lines().collect();
        assert_eq!(lines[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(lines[10], "c 136:* rwm");
        for (kind, letter) in [(CHARACTER, 'c'), (BLOCK, 'b')] {
            for (major, minor) in
                [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (1, 1), (1, 11), (5, 0), (5, 2), (5, 3), (136, 0), (136, 77), (8, 0)]
            {
                for access in 1..8 {
                    let named = lines
                        .iter()
                        .any(|line| [format!("{letter} {major}:{minor} rwm"), format!("{letter} {major}:* rwm")].contains(line));
                    let wanted = u32::from(access == MAKE || named);
                    assert_eq!(answer(&[], kind, major, minor, access), wanted, "{letter} {major}:{minor} {access}");
                }
            }
        }
    }

    #[test]
    fn the_program_lets_through_what_a_container_is_given() {
        let more = ["c 10:229 r", "b 8:* rw", "c 10:229 w", "c 1:3 r"].map(str::to_owned);
        for (kind, major, minor, access, wanted) in [
            (CHARACTER, 10, 229, READ | WRITE, 1),
            (CHARACTER, 10, 229, READ | WRITE | MAKE, 0),
            (CHARACTER, 10, 228, READ, 0),
            (BLOCK, 8, 16, WRITE, 1),
            (BLOCK, 10, 229, READ, 0),
            (CHARACTER, 8, 16, READ, 0),
            (CHARACTER, 1, 3, READ | WRITE | MAKE, 1),
        ] {
            assert_eq!(answer(&more, kind, major, minor, access), wanted, "{kind} {major}:{minor} {access}");
        }
        for line in ["a *:* rwm", "c 1:3", "c 1 rwm", "c 1:x r", "c 1:3 z", ""] {
            assert_eq!(program(&[line.to_owned()]), None, "{line:?}");
        }
        for line in lines().chain(more) {
            assert_eq!(Rule::of_line(&line).unwrap().line(), line);
        }
    }
}
