//! What the engine and a pod's shim say to each other, and how it is written. PURE.
//!
//! Shared by both programs. Every struct is a length and its fields in order: a reader that knows fewer
//! fields skips the rest, one that knows more takes defaults. So new fields go at the end, fields and tags
//! never change their meaning, and an old shim understands a newer agent as far as it can.

/// The format's version, said in the first message of either side.
pub const VERSION: u32 = 1;

/// The tag of the last request there is.
pub const REQUESTS: u8 = 9;

/// From 1 on: AppArmor's label, and that groups are exact. From 2 on: whose processes a container is among.
pub const HEEDS: u8 = 2;

/// A message is at most this long.
pub const MESSAGE_LIMIT_BYTES: usize = 4 << 20;

/// The bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Has a form in bytes.
pub trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(input: &mut &[u8]) -> Result<Self, Malformed>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }
    fn from_bytes(mut bytes: &[u8]) -> Result<Self, Malformed> {
        Self::get(&mut bytes)
    }
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (head, rest) = input.split_at_checked(count).ok_or(Malformed("cut short"))?;
    *input = rest;
    Ok(head)
}

macro_rules! number {
    ($($type:ty)*) => { $(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
                let bytes = take(input, size_of::<Self>())?;
                Ok(Self::from_le_bytes(bytes.try_into().map_err(|_| Malformed("number"))?))
            }
        }
    )* };
}
number!(u8 u32 u64 i32 i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(u8::get(input)? != 0)
    }
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    // Messages are bounded far below 4 GiB; a longer one would be refused when sent.
    u32::try_from(length).unwrap_or(u32::MAX).put(out);
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        let length = u32::get(input)? as usize;
        Self::from_utf8(take(input, length)?.to_vec()).map_err(|_| Malformed("text is not UTF-8"))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        self.iter().for_each(|item| item.put(out));
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        let count = u32::get(input)?;
        // Every item takes a byte at least: a wrong count ends with the input.
        (0..count).map(|_| T::get(input)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(if bool::get(input)? { Some(T::get(input)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok((A::get(input)?, B::get(input)?))
    }
}

/// Writes what `body` writes, behind its length.
fn put_framed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_length(0, out);
    body(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn get_frame<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = u32::get(input)? as usize;
    take(input, length)
}

macro_rules! message {
    ($($(#[$meta:meta])* $name:ident { $($(#[$note:meta])* $field:ident: $type:ty,)* })*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$note])* pub $field: $type,)* }

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                put_framed(out, |_out| { $(self.$field.put(_out);)* });
            }
            fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
                let mut _body = get_frame(input)?;
                Ok(Self { $($field: if _body.is_empty() { Default::default() } else { Wire::get(&mut _body)? },)* })
            }
        }
    )* };
}

macro_rules! choice {
    ($($(#[$meta:meta])* $name:ident { $($(#[$note:meta])* $tag:literal $variant:ident,)* })*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$note])* $variant($variant),)* }

        impl $name {
            pub fn tag(&self) -> u8 {
                match self { $(Self::$variant(_) => $tag,)* }
            }
        }

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(self.tag());
                match self { $(Self::$variant(value) => value.put(out),)* }
            }
            fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
                match u8::get(input)? {
                    $($tag => Ok(Self::$variant(Wire::get(input)?)),)*
                    _ => Err(Malformed(concat!("unknown ", stringify!($name)))),
                }
            }
        }

        $(impl From<$variant> for $name {
            fn from(value: $variant) -> Self { Self::$variant(value) }
        })*
    )* };
}

message! {
    /// What a shim is started with, on its standard input.
    Init {
        version: u32,
        /// Existing directory in which `shim.sock` is made.
        directory: String,
        new_network: bool,
        new_ipc: bool,
        /// Containers see each other's processes.
        shared_pid: bool,
        /// Empty: the host's, in the host's namespace.
        hostname: String,
        /// (`net.ipv4.ip_forward`, `1`)
        sysctls: Vec<(String, String)>,
        cgroup: Cgroup,
        oom_score_adj: i32,
        /// The pod, for people who read process lists.
        title: String,
        /// Set where the host lets us.
        optional_sysctls: Vec<(String, String)>,
        /// The pod has a user namespace of its own, which its other namespaces belong to, but a PID namespace: that is the
        /// host's, as its first process is there before it enters.
        users: Option<IdRange>,
    }

    /// Ids of a user namespace, from 0 on, and where they begin outside.
    IdRange {
        host: u32,
        length: u32,
    }

    /// How to enter a cgroup.
    Cgroup {
        /// A directory of the one hierarchy (v2). Empty: `tasks` are written to.
        unified: String,
        /// One `tasks` file a hierarchy (v1).
        tasks: Vec<String>,
    }

    /// Starts a container.
    Run {
        id: String,
        launch: Launch,
    }

    /// Everything about a container's first process.
    Launch {
        /// Where the exit record goes.
        record: String,
        log: LogFile,
        cgroup: Cgroup,
        /// Counts out-of-memory kills as `oom_kill N`; empty: not known.
        oom_file: String,
        /// A PID namespace of its own; else the pod's shared one or the host's.
        new_pid: bool,
        new_cgroup_namespace: bool,
        /// Its standard input stays open; else it is /dev/null.
        stdin: bool,
        steps: Vec<Step>,
        process: Process,
        /// Another OCI runtime starts it; of the process only the terminal counts then.
        commands: Option<Commands>,
        /// Its standard input ends with the first client that has it, when that closes it or leaves; a terminal's does not.
        stdin_once: bool,
        /// The container in whose first process' PID namespace it is; empty: as `new_pid` says.
        processes_of: String,
    }

    /// What another OCI runtime is told, in the shim's place on the host.
    Commands {
        /// Programs with their arguments, one after the other until one fails.
        all: Vec<Vec<String>>,
        /// Holds the number of the process that they have started, and left to the shim.
        pid_file: String,
        /// Existing directory for the socket `tty`, to which a terminal is handed; empty: there is none.
        console: String,
        /// Where the runtime says why it failed.
        log: String,
    }

    /// A log file in CRI's format. An empty path: no log.
    LogFile {
        directory: String,
        /// Below the directory; links on the way are refused.
        path: String,
        max_bytes: u64,
        max_files: u32,
    }

    /// A process to execute.
    Process {
        args: Vec<String>,
        env: Vec<String>,
        cwd: String,
        user: User,
        /// Bits of the bounding set, and for uid 0 of effective and permitted.
        capabilities: u64,
        no_new_privs: bool,
        /// sock_filter instructions; empty: none.
        seccomp: Vec<u8>,
        /// (resource, soft, hard): lowered to what is allowed.
        rlimits: Vec<Rlimit>,
        oom_score_adj: Option<i32>,
        tty: bool,
        /// Other sets than those that follow from `capabilities`.
        sets: Option<Sets>,
        umask: Option<u32>,
        /// It outlives whoever started it.
        free: bool,
        /// AppArmor's label; empty: none.
        apparmor: String,
    }

    /// Sets of capabilities, by bits.
    Sets {
        effective: u64,
        permitted: u64,
        inheritable: u64,
        ambient: u64,
    }

    Rlimit {
        resource: u32,
        soft: u64,
        hard: u64,
    }

    /// Who it runs as.
    User {
        uid: Option<u32>,
        gid: Option<u32>,
        /// `user[:group]`, names or numbers, looked up in the container where no uid (gid) is given.
        name: String,
        groups: Vec<u32>,
        /// Refuse uid 0.
        non_root: bool,
        /// No other groups than those given.
        exact: bool,
    }

    /// Runs a command in a running container. Standard input, output and error come along as descriptors,
    /// unless it has a terminal.
    Exec {
        container: String,
        cgroup: Cgroup,
        process: Process,
        commands: Option<Commands>,
    }

    /// Sends a signal.
    Kill {
        container: String,
        /// To this exec (its pid) instead of the first process.
        exec: i32,
        signal: i32,
    }

    /// Asks for the containers.
    List {}

    /// Keeps this connection and writes an `Exited` for each end.
    Watch {}

    /// Lets go of a container that has ended.
    Forget {
        id: String,
    }

    /// Kills every container and ends.
    Shutdown {}

    /// Attaches to a container's streams. For each one wanted a pipe's other end comes along, in this order. Answered
    /// with `Started` (and the terminal, for its size), and with `Exited` at the container's end; who closes the
    /// connection has left.
    Join {
        container: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    }

    /// Writes on into a new file at the log's path.
    ReopenLog {
        container: String,
    }

    /// The shim's first message on each connection.
    Hello {
        version: u32,
        pid: i32,
        /// The last request it knows; not said (0) by those that know none after `Shutdown`.
        requests: u8,
        /// What it heeds of a process: [`HEEDS`]. Not said (0) by those that might pass over AppArmor's label and that groups
        /// are exact.
        heeds: u8,
    }

    Done {}

    /// It did not work.
    Failed {
        attempt: String,
        cause: String,
        /// The kernel's number, where it was the kernel.
        errno: i32,
    }

    /// A process runs.
    Started {
        pid: i32,
        at_ns: i64,
    }

    /// Every container since the shim's start that was not forgotten.
    Containers {
        all: Vec<Running>,
    }

    Running {
        id: String,
        pid: i32,
        started_at_ns: i64,
        exit: Option<Exit>,
    }

    /// Everything of a log is on file.
    LogEnded {
        id: String,
    }

    /// A log has a new file, or why not.
    LogReopened {
        id: String,
        failure: Option<Failed>,
    }

    /// A container ended, or (in the answer to `Exec`) a command.
    Exited {
        id: String,
        exit: Exit,
    }

    Exit {
        /// 128 + signal where a signal ended it.
        code: i32,
        signal: i32,
        oom_killed: bool,
        started_at_ns: i64,
        finished_at_ns: i64,
    }
}

choice! {
    Request {
        1 Run,
        2 Exec,
        3 Kill,
        4 List,
        5 Watch,
        6 Forget,
        7 Shutdown,
        8 Join,
        9 ReopenLog,
    }

    Response {
        1 Done,
        2 Failed,
        3 Started,
        4 Containers,
        5 Exited,
        6 Hello,
    }

    /// What the log writer says to its shim.
    LogNews {
        1 LogEnded,
        2 LogReopened,
    }

    /// One thing to do on the way into a container, in order.
    Step {
        1 OpenTree,
        2 MakePrivate,
        3 Overlay,
        4 Filesystem,
        5 Attach,
        6 Symlink,
        7 Directory,
        8 Mask,
        9 ReadOnly,
        10 Pivot,
        11 Seal,
        12 Root,
        13 Node,
        14 Remount,
        15 MapIds,
    }
}

message! {
    /// Takes a copy of a tree of the host, for a later `Attach`. Before `MakePrivate`, so that it may propagate.
    OpenTree {
        slot: u32,
        source: String,
        recursive: bool,
        /// Its files are shown with the ids of the pod's user namespace.
        id_mapped: bool,
        /// Where there is nothing, an empty directory is made first.
        make: bool,
    }

    /// Nothing we mount reaches the host, and nothing of the host reaches us.
    MakePrivate {
        /// But what the host mounts from now on.
        let_in: bool,
    }

    /// The root file system.
    Overlay {
        /// Topmost first.
        lower: Vec<String>,
        upper: String,
        work: String,
        /// Existing empty directory.
        at: String,
        /// MOUNT_ATTR_* bits.
        attributes: u64,
        /// The layers are shown with the ids of the pod's user namespace.
        id_mapped: bool,
    }

    /// A new file system instance in the container.
    Filesystem {
        kind: String,
        /// (`mode`, `755`); an empty value is a flag.
        options: Vec<(String, String)>,
        attributes: u64,
        target: String,
        /// No failure when the kernel has none of it.
        optional: bool,
        /// Begins with a copy of what it hides.
        copy_up: bool,
    }

    /// Puts an opened tree into the container.
    Attach {
        slot: u32,
        target: String,
        /// MOUNT_ATTR_* bits to set, on all mounts below as well.
        attributes: u64,
        /// MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE.
        propagation: u64,
        /// Links of the image are followed (inside it); else refused.
        follow: bool,
        /// Those of the attributes that are set on the mount itself alone.
        only_top: u64,
    }

    Symlink {
        content: String,
        path: String,
    }

    Directory {
        path: String,
        mode: u32,
    }

    /// Hides a file (behind our /dev/null) or directory, if it is there.
    Mask {
        path: String,
    }

    /// Makes what is there read-only, if it is there.
    ReadOnly {
        path: String,
    }

    /// Makes the container's root the root.
    Pivot {}

    /// Makes the root's own mount read-only.
    Seal {
        /// Made before that as far as it is missing, wherever links lead in the root: where the process is to begin.
        directory: String,
    }

    /// A directory that is there as the root file system, with what is mounted below it.
    Root {
        path: String,
    }

    /// Makes a device node or pipe.
    Node {
        path: String,
        /// S_IFCHR, S_IFBLK or S_IFIFO and the permissions.
        mode: u32,
        major: u32,
        minor: u32,
        uid: u32,
        gid: u32,
    }

    /// Shows what is at a path of the host with the ids of the pod's user namespace, in this mount namespace.
    MapIds {
        path: String,
    }

    /// Changes a mount that is there.
    Remount {
        path: String,
        /// MOUNT_ATTR_* bits.
        set: u64,
        clear: u64,
    }
}

message! {
    /// A container without a pod, or a command in one: what `podbay oci` says to this program on a socket. Its answers
    /// are `Started` with the number of the process, and after a `Go` `Done` when it waits to be started.
    Lone {
        version: u32,
        /// Namespaces to enter: their files, and their CLONE_NEW* bits.
        join: Vec<(String, u32)>,
        /// CLONE_NEW* bits of those to make.
        new: u32,
        hostname: String,
        domainname: String,
        sysctls: Vec<(String, String)>,
        launch: Launch,
        /// Existing directory in which `start.sock` is made, where it waits to be started; empty: it does not wait.
        directory: String,
        create_container: Vec<Hook>,
        start_container: Vec<Hook>,
        /// Stay as its parent and end with its exit code.
        stay: bool,
        /// Of its terminal; 0: not said.
        columns: u32,
        rows: u32,
        /// Ids of the user namespace to make, or that the one to enter is to have; of it are the ids in the steps, too.
        uids: Vec<IdMap>,
        gids: Vec<IdMap>,
    }

    /// Ids from `inside` on of a user namespace, and where they begin outside.
    IdMap {
        inside: u32,
        host: u32,
        length: u32,
    }

    /// A program to run at some moment.
    Hook {
        path: String,
        args: Vec<String>,
        env: Vec<String>,
        /// 0: as long as it wants.
        timeout_seconds: u32,
    }

    /// Go on. What hooks are told of the container's state (JSON).
    Go {
        state: String,
    }
}

/// An exit record's text: a line a field, `version` first.
pub fn record_text(id: &str, exit: &Exit) -> String {
    format!(
        "version {VERSION}\nid {id}\ncode {}\nsignal {}\noom_killed {}\nstarted_at_ns {}\nfinished_at_ns {}\n",
        exit.code,
        exit.signal,
        u8::from(exit.oom_killed),
        exit.started_at_ns,
        exit.finished_at_ns
    )
}

/// Reads an exit record, of this version or a later one.
pub fn parse_record(text: &str) -> Option<Exit> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    field("version")?.parse::<u32>().ok()?;
    Some(Exit {
        code: field("code")?.parse().ok()?,
        signal: field("signal")?.parse().ok()?,
        oom_killed: field("oom_killed")? == "1",
        started_at_ns: field("started_at_ns")?.parse().ok()?,
        finished_at_ns: field("finished_at_ns")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Run {
            id: "c1".into(),
            launch: Launch {
                steps: vec![MakePrivate::default().into(), Symlink { content: "a".into(), path: "/b".into() }.into()],
                process: Process { args: vec!["sh".into()], oom_score_adj: Some(-5), ..Process::default() },
                ..Launch::default()
            },
        }
        .into()
    }

    #[test]
    fn what_is_written_is_read() {
        let request = request();
        assert_eq!(Request::from_bytes(&request.to_bytes()), Ok(request));
    }

    #[test]
    fn every_cut_message_is_an_error_and_none_panics() {
        let bytes = request().to_bytes();
        for end in 0..bytes.len() {
            assert!(Request::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_reader_takes_defaults_for_fields_it_misses_and_skips_those_it_does_not_know() {
        let old = {
            let mut out = Vec::new();
            put_framed(&mut out, |out| 7i32.put(out));
            out
        };
        assert_eq!(Started::from_bytes(&old), Ok(Started { pid: 7, at_ns: 0 }));
        let mut newer = Vec::new();
        put_framed(&mut newer, |out| {
            7i32.put(out);
            8i64.put(out);
            "more".to_owned().put(out);
        });
        assert_eq!(Started::from_bytes(&newer), Ok(Started { pid: 7, at_ns: 8 }));
    }

    #[test]
    fn records_survive_the_disk_and_torn_ones_are_none() {
        let exit = Exit { code: 137, signal: 9, oom_killed: true, started_at_ns: 1, finished_at_ns: 2 };
        assert_eq!(parse_record(&record_text("c", &exit)), Some(exit));
        assert_eq!(parse_record("version 1\nid c\ncode 1"), None);
        assert_eq!(parse_record(""), None);
    }
}
