//! The numbers of the system calls by name, and which of them an ordinary container may use. PURE.
//!
//! The default is the common one of container engines: what a program needs that is not root on the host, and
//! nothing that reaches the kernel's less travelled parts (keys, BPF, mounts, modules, io_uring, user faults).

/// (name, number on x86-64, number on aarch64); -1: that architecture has no such call. From the kernel's tables
/// (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h); what came after 423 has one number everywhere.
#[rustfmt::skip]
const CALLS: &[(&str, i16, i16)] = &[
    ("_sysctl", 156, -1), ("accept", 43, 202), ("accept4", 288, 242), ("access", 21, -1), ("acct", 163, 89),
    ("add_key", 248, 217), ("adjtimex", 159, 171), ("afs_syscall", 183, -1), ("alarm", 37, -1), ("arch_prctl", 158, -1),
    ("bind", 49, 200), ("bpf", 321, 280), ("brk", 12, 214), ("cachestat", 451, 451), ("capget", 125, 90),
    ("capset", 126, 91), ("chdir", 80, 49), ("chmod", 90, -1), ("chown", 92, -1), ("chroot", 161, 51),
    ("clock_adjtime", 305, 266), ("clock_getres", 229, 114), ("clock_gettime", 228, 113), ("clock_nanosleep", 230, 115),
    ("clock_settime", 227, 112), ("clone", 56, 220), ("clone3", 435, 435), ("close", 3, 57), ("close_range", 436, 436),
    ("connect", 42, 203), ("copy_file_range", 326, 285), ("creat", 85, -1), ("create_module", 174, -1),
    ("delete_module", 176, 106), ("dup", 32, 23), ("dup2", 33, -1), ("dup3", 292, 24), ("epoll_create", 213, -1),
    ("epoll_create1", 291, 20), ("epoll_ctl", 233, 21), ("epoll_ctl_old", 214, -1), ("epoll_pwait", 281, 22),
    ("epoll_pwait2", 441, 441), ("epoll_wait", 232, -1), ("epoll_wait_old", 215, -1), ("eventfd", 284, -1),
    ("eventfd2", 290, 19), ("execve", 59, 221), ("execveat", 322, 281), ("exit", 60, 93), ("exit_group", 231, 94),
    ("faccessat", 269, 48), ("faccessat2", 439, 439), ("fadvise64", 221, 223), ("fallocate", 285, 47),
    ("fanotify_init", 300, 262), ("fanotify_mark", 301, 263), ("fchdir", 81, 50), ("fchmod", 91, 52),
    ("fchmodat", 268, 53), ("fchmodat2", 452, 452), ("fchown", 93, 55), ("fchownat", 260, 54), ("fcntl", 72, 25),
    ("fdatasync", 75, 83), ("fgetxattr", 193, 10), ("finit_module", 313, 273), ("flistxattr", 196, 13),
    ("flock", 73, 32), ("fork", 57, -1), ("fremovexattr", 199, 16), ("fsconfig", 431, 431), ("fsetxattr", 190, 7),
    ("fsmount", 432, 432), ("fsopen", 430, 430), ("fspick", 433, 433), ("fstat", 5, 80), ("fstatfs", 138, 44),
    ("fsync", 74, 82), ("ftruncate", 77, 46), ("futex", 202, 98), ("futex_requeue", 456, 456), ("futex_wait", 455, 455),
    ("futex_waitv", 449, 449), ("futex_wake", 454, 454), ("futimesat", 261, -1), ("get_kernel_syms", 177, -1),
    ("get_mempolicy", 239, 236), ("get_robust_list", 274, 100), ("get_thread_area", 211, -1), ("getcpu", 309, 168),
    ("getcwd", 79, 17), ("getdents", 78, -1), ("getdents64", 217, 61), ("getegid", 108, 177), ("geteuid", 107, 175),
    ("getgid", 104, 176), ("getgroups", 115, 158), ("getitimer", 36, 102), ("getpeername", 52, 205),
    ("getpgid", 121, 155), ("getpgrp", 111, -1), ("getpid", 39, 172), ("getpmsg", 181, -1), ("getppid", 110, 173),
    ("getpriority", 140, 141), ("getrandom", 318, 278), ("getresgid", 120, 150), ("getresuid", 118, 148),
    ("getrlimit", 97, 163), ("getrusage", 98, 165), ("getsid", 124, 156), ("getsockname", 51, 204),
    ("getsockopt", 55, 209), ("gettid", 186, 178), ("gettimeofday", 96, 169), ("getuid", 102, 174),
    ("getxattr", 191, 8), ("getxattrat", 464, 464), ("init_module", 175, 105), ("inotify_add_watch", 254, 27),
    ("inotify_init", 253, -1), ("inotify_init1", 294, 26), ("inotify_rm_watch", 255, 28), ("io_cancel", 210, 3),
    ("io_destroy", 207, 1), ("io_getevents", 208, 4), ("io_pgetevents", 333, 292), ("io_setup", 206, 0),
    ("io_submit", 209, 2), ("io_uring_enter", 426, 426), ("io_uring_register", 427, 427), ("io_uring_setup", 425, 425),
    ("ioctl", 16, 29), ("ioperm", 173, -1), ("iopl", 172, -1), ("ioprio_get", 252, 31), ("ioprio_set", 251, 30),
    ("kcmp", 312, 272), ("kexec_file_load", 320, 294), ("kexec_load", 246, 104), ("keyctl", 250, 219),
    ("kill", 62, 129), ("landlock_add_rule", 445, 445), ("landlock_create_ruleset", 444, 444),
    ("landlock_restrict_self", 446, 446), ("lchown", 94, -1), ("lgetxattr", 192, 9), ("link", 86, -1),
    ("linkat", 265, 37), ("listen", 50, 201), ("listmount", 458, 458), ("listxattr", 194, 11),
    ("listxattrat", 465, 465), ("llistxattr", 195, 12), ("lookup_dcookie", 212, 18), ("lremovexattr", 198, 15),
    ("lseek", 8, 62), ("lsetxattr", 189, 6), ("lsm_get_self_attr", 459, 459), ("lsm_list_modules", 461, 461),
    ("lsm_set_self_attr", 460, 460), ("lstat", 6, -1), ("madvise", 28, 233), ("map_shadow_stack", 453, 453),
    ("mbind", 237, 235), ("membarrier", 324, 283), ("memfd_create", 319, 279), ("memfd_secret", 447, 447),
    ("migrate_pages", 256, 238), ("mincore", 27, 232), ("mkdir", 83, -1), ("mkdirat", 258, 34), ("mknod", 133, -1),
    ("mknodat", 259, 33), ("mlock", 149, 228), ("mlock2", 325, 284), ("mlockall", 151, 230), ("mmap", 9, 222),
    ("modify_ldt", 154, -1), ("mount", 165, 40), ("mount_setattr", 442, 442), ("move_mount", 429, 429),
    ("move_pages", 279, 239), ("mprotect", 10, 226), ("mq_getsetattr", 245, 185), ("mq_notify", 244, 184),
    ("mq_open", 240, 180), ("mq_timedreceive", 243, 183), ("mq_timedsend", 242, 182), ("mq_unlink", 241, 181),
    ("mremap", 25, 216), ("mseal", 462, 462), ("msgctl", 71, 187), ("msgget", 68, 186), ("msgrcv", 70, 188),
    ("msgsnd", 69, 189), ("msync", 26, 227), ("munlock", 150, 229), ("munlockall", 152, 231), ("munmap", 11, 215),
    ("name_to_handle_at", 303, 264), ("nanosleep", 35, 101), ("newfstatat", 262, 79), ("nfsservctl", 180, 42),
    ("open", 2, -1), ("open_by_handle_at", 304, 265), ("open_tree", 428, 428), ("openat", 257, 56),
    ("openat2", 437, 437), ("pause", 34, -1), ("perf_event_open", 298, 241), ("personality", 135, 92),
    ("pidfd_getfd", 438, 438), ("pidfd_open", 434, 434), ("pidfd_send_signal", 424, 424), ("pipe", 22, -1),
    ("pipe2", 293, 59), ("pivot_root", 155, 41), ("pkey_alloc", 330, 289), ("pkey_free", 331, 290),
    ("pkey_mprotect", 329, 288), ("poll", 7, -1), ("ppoll", 271, 73), ("prctl", 157, 167), ("pread64", 17, 67),
    ("preadv", 295, 69), ("preadv2", 327, 286), ("prlimit64", 302, 261), ("process_madvise", 440, 440),
    ("process_mrelease", 448, 448), ("process_vm_readv", 310, 270), ("process_vm_writev", 311, 271),
    ("pselect6", 270, 72), ("ptrace", 101, 117), ("putpmsg", 182, -1), ("pwrite64", 18, 68), ("pwritev", 296, 70),
    ("pwritev2", 328, 287), ("query_module", 178, -1), ("quotactl", 179, 60), ("quotactl_fd", 443, 443),
    ("read", 0, 63), ("readahead", 187, 213), ("readlink", 89, -1), ("readlinkat", 267, 78), ("readv", 19, 65),
    ("reboot", 169, 142), ("recvfrom", 45, 207), ("recvmmsg", 299, 243), ("recvmsg", 47, 212),
    ("remap_file_pages", 216, 234), ("removexattr", 197, 14), ("removexattrat", 466, 466), ("rename", 82, -1),
    ("renameat", 264, 38), ("renameat2", 316, 276), ("request_key", 249, 218), ("restart_syscall", 219, 128),
    ("rmdir", 84, -1), ("rseq", 334, 293), ("rt_sigaction", 13, 134), ("rt_sigpending", 127, 136),
    ("rt_sigprocmask", 14, 135), ("rt_sigqueueinfo", 129, 138), ("rt_sigreturn", 15, 139), ("rt_sigsuspend", 130, 133),
    ("rt_sigtimedwait", 128, 137), ("rt_tgsigqueueinfo", 297, 240), ("sched_get_priority_max", 146, 125),
    ("sched_get_priority_min", 147, 126), ("sched_getaffinity", 204, 123), ("sched_getattr", 315, 275),
    ("sched_getparam", 143, 121), ("sched_getscheduler", 145, 120), ("sched_rr_get_interval", 148, 127),
    ("sched_setaffinity", 203, 122), ("sched_setattr", 314, 274), ("sched_setparam", 142, 118),
    ("sched_setscheduler", 144, 119), ("sched_yield", 24, 124), ("seccomp", 317, 277), ("security", 185, -1),
    ("select", 23, -1), ("semctl", 66, 191), ("semget", 64, 190), ("semop", 65, 193), ("semtimedop", 220, 192),
    ("sendfile", 40, 71), ("sendmmsg", 307, 269), ("sendmsg", 46, 211), ("sendto", 44, 206),
    ("set_mempolicy", 238, 237), ("set_mempolicy_home_node", 450, 450), ("set_robust_list", 273, 99),
    ("set_thread_area", 205, -1), ("set_tid_address", 218, 96), ("setdomainname", 171, 162), ("setfsgid", 123, 152),
    ("setfsuid", 122, 151), ("setgid", 106, 144), ("setgroups", 116, 159), ("sethostname", 170, 161),
    ("setitimer", 38, 103), ("setns", 308, 268), ("setpgid", 109, 154), ("setpriority", 141, 140),
    ("setregid", 114, 143), ("setresgid", 119, 149), ("setresuid", 117, 147), ("setreuid", 113, 145),
    ("setrlimit", 160, 164), ("setsid", 112, 157), ("setsockopt", 54, 208), ("settimeofday", 164, 170),
    ("setuid", 105, 146), ("setxattr", 188, 5), ("setxattrat", 463, 463), ("shmat", 30, 196), ("shmctl", 31, 195),
    ("shmdt", 67, 197), ("shmget", 29, 194), ("shutdown", 48, 210), ("sigaltstack", 131, 132), ("signalfd", 282, -1),
    ("signalfd4", 289, 74), ("socket", 41, 198), ("socketpair", 53, 199), ("splice", 275, 76), ("stat", 4, -1),
    ("statfs", 137, 43), ("statmount", 457, 457), ("statx", 332, 291), ("swapoff", 168, 225), ("swapon", 167, 224),
    ("symlink", 88, -1), ("symlinkat", 266, 36), ("sync", 162, 81), ("sync_file_range", 277, 84), ("syncfs", 306, 267),
    ("sysfs", 139, -1), ("sysinfo", 99, 179), ("syslog", 103, 116), ("tee", 276, 77), ("tgkill", 234, 131),
    ("time", 201, -1), ("timer_create", 222, 107), ("timer_delete", 226, 111), ("timer_getoverrun", 225, 109),
    ("timer_gettime", 224, 108), ("timer_settime", 223, 110), ("timerfd_create", 283, 85), ("timerfd_gettime", 287, 87),
    ("timerfd_settime", 286, 86), ("times", 100, 153), ("tkill", 200, 130), ("truncate", 76, 45), ("tuxcall", 184, -1),
    ("umask", 95, 166), ("umount2", 166, 39), ("uname", 63, 160), ("unlink", 87, -1), ("unlinkat", 263, 35),
    ("unshare", 272, 97), ("uselib", 134, -1), ("userfaultfd", 323, 282), ("ustat", 136, -1), ("utime", 132, -1),
    ("utimensat", 280, 88), ("utimes", 235, -1), ("vfork", 58, -1), ("vhangup", 153, 58), ("vmsplice", 278, 75),
    ("vserver", 236, -1), ("wait4", 61, 260), ("waitid", 247, 95), ("write", 1, 64), ("writev", 20, 66),
];

/// The first number this table knows nothing of: such calls do not exist here (ENOSYS), so that programs fall
/// back to older ones.
pub const FIRST_UNKNOWN: u32 = 467;

/// Whose numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    Aarch64,
}

/// The one this program was built for.
pub const NATIVE: Architecture = if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };

/// The number of a system call, if this architecture has it.
pub fn number(name: &str, architecture: Architecture) -> Option<u32> {
    let found = CALLS.binary_search_by(|(known, ..)| known.cmp(&name)).ok()?;
    let (_, x86_64, aarch64) = CALLS[found];
    u32::try_from(match architecture {
        Architecture::X86_64 => x86_64,
        Architecture::Aarch64 => aarch64,
    })
    .ok()
}

/// May always be used.
#[rustfmt::skip]
pub const ALLOWED: &[&str] = &[
    "accept", "accept4", "adjtimex", "bind", "brk", "capget", "capset", "chdir", "clock_adjtime", "clock_getres",
    "clock_gettime", "clock_nanosleep", "close", "close_range", "connect", "copy_file_range", "dup", "dup3",
    "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "eventfd2", "execve", "execveat", "exit",
    "exit_group", "faccessat", "faccessat2", "fadvise64", "fallocate", "fanotify_mark", "fchdir", "fchmod",
    "fchmodat", "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fremovexattr",
    "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "futex", "futex_waitv", "get_robust_list", "getcpu",
    "getcwd", "getdents64", "getegid", "geteuid", "getgid", "getgroups", "getitimer", "getpeername", "getpgid",
    "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresuid", "getrusage", "getsid",
    "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getxattr", "inotify_add_watch",
    "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit",
    "ioctl", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lgetxattr", "linkat", "listen", "listxattr", "llistxattr", "lremovexattr", "lseek",
    "lsetxattr", "madvise", "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdirat", "mknodat", "mlock",
    "mlock2", "mlockall", "mmap", "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive",
    "mq_timedsend", "mq_unlink", "mremap", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock",
    "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "openat", "openat2", "pidfd_open",
    "pidfd_send_signal", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "ppoll", "prctl", "pread64",
    "preadv", "preadv2", "prlimit64", "process_mrelease", "process_vm_readv",
    "process_vm_writev", "pselect6", "ptrace", "pwrite64", "pwritev", "pwritev2",
    "read", "readahead", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg", "remap_file_pages",
    "removexattr", "renameat2", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "semctl", "semget", "semop", "semtimedop", "sendfile",
    "sendmmsg", "sendmsg", "sendto", "set_robust_list", "set_tid_address", "setfsgid", "setfsuid", "setgid",
    "setgroups", "setitimer", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid", "setsid",
    "setsockopt", "setuid", "setxattr", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack",
    "signalfd4", "socketpair", "splice", "statfs", "statx", "symlinkat", "sync", "syncfs", "sysinfo", "tee",
    "tgkill", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime",
    "timerfd_create", "timerfd_gettime", "timerfd_settime", "times", "tkill", "truncate", "umask", "uname",
    "unlinkat", "utimensat", "vmsplice", "wait4", "waitid", "write", "writev", "access", "alarm", "arch_prctl",
    "chmod", "chown", "creat", "dup2", "epoll_create", "epoll_wait", "eventfd", "fork", "futimesat",
    "get_thread_area", "getdents", "getpgrp", "getrlimit", "inotify_init", "lchown", "link", "lstat", "mkdir",
    "mknod", "modify_ldt", "open", "pause", "pipe", "poll", "readlink", "rename", "renameat", "rmdir", "select",
    "set_thread_area", "setrlimit", "signalfd", "stat", "symlink", "sync_file_range", "time", "unlink", "utime",
    "utimes", "vfork", "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue",
    "statmount", "listmount", "lsm_get_self_attr", "lsm_list_modules", "mseal", "setxattrat", "getxattrat",
    "listxattrat", "removexattrat",
];

/// May be used with a capability, by its bit.
pub const WITH_CAPABILITY: &[(u8, &[&str])] = &[
    (2, &["open_by_handle_at"]),
    (16, &["delete_module", "init_module", "finit_module"]),
    (17, &["iopl", "ioperm"]),
    (18, &["chroot"]),
    (19, &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev"]),
    (20, &["acct"]),
    (
        21,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "swapoff",
            "swapon",
            "syslog",
            "umount2",
            "unshare",
        ],
    ),
    (22, &["reboot", "kexec_load", "kexec_file_load"]),
    (23, &["get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"]),
    (25, &["settimeofday", "clock_settime"]),
    (26, &["vhangup"]),
    (34, &["syslog"]),
    (38, &["perf_event_open"]),
    (39, &["bpf"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;

    #[test]
    fn every_name_in_the_lists_has_a_number() {
        let conditional = WITH_CAPABILITY.iter().flat_map(|(_, names)| names.iter());
        for name in ALLOWED.iter().chain(conditional) {
            assert!(number(name, Architecture::X86_64).is_some(), "{name}");
        }
        assert_eq!(number("no_such_call", NATIVE), None);
    }

    #[test]
    fn the_tables_agree_where_the_kernels_do() {
        assert!(CALLS.is_sorted_by(|(a, ..), (b, ..)| a < b));
        for architecture in [Architecture::X86_64, Architecture::Aarch64] {
            let mut numbers: Vec<u32> = CALLS.iter().filter_map(|(name, ..)| number(name, architecture)).collect();
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count, "{architecture:?}: a number twice");
            assert!(numbers.iter().all(|number| *number < FIRST_UNKNOWN), "{architecture:?}");
        }
        for (name, x86_64, aarch64) in CALLS {
            let newer = *x86_64 >= 424 || *aarch64 >= 424;
            assert!(!newer || x86_64 == aarch64, "{name} has one number everywhere");
        }
    }

    /// What only x86-64 has must have a younger brother that both have and that is allowed as well: programs use that one.
    #[test]
    fn what_is_allowed_on_one_architecture_can_be_done_on_the_other() {
        let successors = [
            ("access", "faccessat"),
            ("alarm", "setitimer"),
            ("chmod", "fchmodat"),
            ("chown", "fchownat"),
            ("creat", "openat"),
            ("dup2", "dup3"),
            ("epoll_create", "epoll_create1"),
            ("epoll_wait", "epoll_pwait"),
            ("eventfd", "eventfd2"),
            ("fork", "clone"),
            ("futimesat", "utimensat"),
            ("getdents", "getdents64"),
            ("getpgrp", "getpgid"),
            ("inotify_init", "inotify_init1"),
            ("lchown", "fchownat"),
            ("link", "linkat"),
            ("lstat", "newfstatat"),
            ("mkdir", "mkdirat"),
            ("mknod", "mknodat"),
            ("open", "openat"),
            ("pause", "ppoll"),
            ("pipe", "pipe2"),
            ("poll", "ppoll"),
            ("readlink", "readlinkat"),
            ("rename", "renameat"),
            ("rmdir", "unlinkat"),
            ("select", "pselect6"),
            ("signalfd", "signalfd4"),
            ("stat", "newfstatat"),
            ("symlink", "symlinkat"),
            ("time", "clock_gettime"),
            ("unlink", "unlinkat"),
            ("utime", "utimensat"),
            ("utimes", "utimensat"),
            ("vfork", "clone"),
        ];
        // Parts of the processor that the other one does not have.
        let of_x86 = ["arch_prctl", "get_thread_area", "modify_ldt", "set_thread_area"];
        for name in ALLOWED.iter().filter(|name| number(name, Architecture::Aarch64).is_none() && !of_x86.contains(name)) {
            let younger = successors.iter().find(|(old, _)| old == name).map(|(_, younger)| *younger).unwrap_or_default();
            assert!(number(younger, Architecture::Aarch64).is_some(), "{name} has no counterpart");
            assert!(ALLOWED.contains(&younger) || younger == "clone", "{younger} is allowed");
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_c_library() {
        macro_rules! same {
            ($($name:ident)*) => { $( assert_eq!(
                number(stringify!($name).trim_start_matches("SYS_"), NATIVE), u32::try_from(libc::$name).ok(), stringify!($name)
            ); )* };
        }
        same!(SYS_read SYS_openat SYS_newfstatat SYS_fstat SYS_mmap SYS_clone SYS_execve SYS_exit_group SYS_futex SYS_socket SYS_ptrace
              SYS_mount SYS_umount2 SYS_setns SYS_unshare SYS_bpf SYS_keyctl SYS_personality SYS_clone3 SYS_close_range SYS_openat2
              SYS_renameat SYS_renameat2 SYS_sync_file_range SYS_getrlimit SYS_setrlimit SYS_fadvise64 SYS_sendfile SYS_seccomp
              SYS_memfd_secret SYS_process_mrelease SYS_futex_waitv SYS_set_mempolicy_home_node SYS_io_uring_setup SYS_userfaultfd);
    }
}
