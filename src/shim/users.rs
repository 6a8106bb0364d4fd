//! The pod's user namespace: root in the pod is an ordinary user of the host, whose files and processes are nobody's else.
//!
//! The shim stays outside. It holds the namespace by a descriptor and sends each process of the pod into it at the end of
//! its way, when everything is mounted: in the mount namespace that process then makes, whatever was mounted before is
//! locked, so that nothing hidden from the container can be uncovered, and nothing read-only be made writable, in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Gid, Uid, WaitOptions};
use rustix::thread::{CapabilitySet, ThreadNameSpaceType};

use crate::step::{Attempt, refuse};
use crate::wire::{Failed, IdMap, IdRange, Step};
use crate::{mount, socket, sys};

/// A user namespace and its ids.
pub struct Users {
    namespace: OwnedFd,
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
}

/// Its first process: makes the namespaces that belong to it, and sets what only it may set there.
pub struct Founder {
    socket: UnixStream,
    pid: i32,
}

/// What a founder is told to do.
type Sysctls = Vec<(String, String)>;

/// Makes a user namespace of one range and, in it, the namespaces of `flags`, which this process enters.
pub fn found(range: &IdRange, flags: CloneFlags) -> Result<(Users, Founder), Failed> {
    if range.host == 0 || range.length == 0 || range.host.checked_add(range.length).is_none() {
        let cause = format!("{} ids from {} on are no range for a pod", range.length, range.host);
        return Err(refuse("make the pod's user namespace", cause));
    }
    let all = [IdMap { inside: 0, host: range.host, length: range.length }];
    make(&all, &all, flags)
}

/// The same with any ids.
pub fn make(uids: &[IdMap], gids: &[IdMap], flags: CloneFlags) -> Result<(Users, Founder), Failed> {
    let (founder, pidfd) = Founder::start(libc::CLONE_NEWUSER as u64, None, flags)?;
    for (file, all) in [("uid_map", uids), ("gid_map", gids)] {
        let lines: String = all.iter().map(|map| format!("{} {} {}\n", map.inside, map.host, map.length)).collect();
        // In one piece: the kernel takes no second one.
        std::fs::write(format!("/proc/{}/{file}", founder.pid), &lines).attempt(|| format!("map ids ({file}: {})", lines.trim_end()))?;
    }
    founder.establish(&pidfd, flags)
}

/// The same in a user namespace that is there.
pub fn join(namespace: &OwnedFd, flags: CloneFlags) -> Result<(Users, Founder), Failed> {
    let (founder, pidfd) = Founder::start(0, Some(namespace), flags)?;
    founder.establish(&pidfd, flags)
}

fn read_map(path: &str) -> Result<Vec<IdMap>, Failed> {
    let text = std::fs::read_to_string(path).attempt(|| format!("read {path}"))?;
    let map = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some(IdMap { inside: numbers.next()??, host: numbers.next()??, length: numbers.next()?? })
    };
    text.lines().map(|line| map(line).ok_or_else(|| refuse(format!("read {path}"), "it has other lines"))).collect()
}

/// What an id inside is outside.
fn on_host(all: &[IdMap], id: u32) -> Option<u32> {
    let map = all.iter().find(|map| id.checked_sub(map.inside).is_some_and(|above| above < map.length))?;
    map.host.checked_add(id - map.inside)
}

impl Founder {
    /// Forks it; `within`: a namespace to enter first.
    fn start(fork: u64, within: Option<&OwnedFd>, flags: CloneFlags) -> Result<(Self, OwnedFd), Failed> {
        let what = || "make a user namespace";
        let (ours, theirs) = UnixStream::pair().attempt(what)?;
        match sys::fork(fork, None).attempt(what)? {
            sys::Side::Parent { pid, pidfd } => Ok((Self { socket: ours, pid }, pidfd)),
            sys::Side::Child => {
                drop(ours);
                live(&theirs, within, flags);
                sys::exit_now(0)
            }
        }
    }

    /// Has it make its namespaces, and enters them.
    fn establish(self, pidfd: &OwnedFd, flags: CloneFlags) -> Result<(Users, Self), Failed> {
        self.order(&Sysctls::new())?;
        let path = format!("/proc/{}/ns/user", self.pid);
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(|| "open the user namespace")?;
        let types = ThreadNameSpaceType::from_bits_retain(u32::try_from(flags.bits()).unwrap_or(0));
        if !types.is_empty() {
            rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), types).attempt(|| "enter the user namespace's own")?;
        }
        let [uids, gids] = ["uid_map", "gid_map"].map(|file| read_map(&format!("/proc/{}/{file}", self.pid)));
        Ok((Users { namespace, uids: uids?, gids: gids? }, self))
    }

    fn order(&self, sysctls: &Sysctls) -> Result<(), Failed> {
        let what = || "found the pod's namespaces";
        socket::send(&self.socket, sysctls, &[]).attempt(what)?;
        let (outcome, _) = socket::receive::<Failed>(&self.socket).attempt(what)?;
        if outcome == Failed::default() { Ok(()) } else { Err(outcome) }
    }

    /// Sets what is the pod's own; nothing more is asked of it.
    pub fn finish(self, sysctls: &Sysctls) -> Result<(), Failed> {
        let done = self.order(sysctls);
        drop(self.socket);
        rustix::process::waitpid(rustix::process::Pid::from_raw(self.pid), WaitOptions::empty()).ok();
        done
    }
}

/// The founder's life: it answers twice, with an empty failure where all went well.
fn live(socket: &UnixStream, within: Option<&OwnedFd>, flags: CloneFlags) {
    let enter = |namespace: &OwnedFd| {
        let entered = rustix::thread::move_into_thread_name_spaces(namespace.as_fd(), ThreadNameSpaceType::USER);
        entered.attempt(|| "enter the user namespace")
    };
    let mut first = true;
    while let Ok((sysctls, _)) = socket::receive::<Sysctls>(socket) {
        let done = if std::mem::take(&mut first) {
            let entered = within.map_or(Ok(()), enter).and_then(|()| become_root());
            entered.and_then(|()| unshare(flags).attempt(|| "make the user namespace's own"))
        } else {
            sysctls.iter().try_for_each(|(name, value)| write_sysctl(name, value))
        };
        if socket::send(socket, &done.err().unwrap_or_default(), &[]).is_err() {
            return;
        }
    }
}

/// Sets a sysctl of the namespaces this process is in.
pub fn write_sysctl(name: &str, value: &str) -> Result<(), Failed> {
    std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value).attempt(|| format!("set {name}={value}"))
}

/// Root of the namespace this process is in. It keeps its capabilities there.
fn become_root() -> Result<(), Failed> {
    let what = || "become root of the user namespace";
    rustix::thread::set_thread_groups(&[]).attempt(what)?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).attempt(what)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).attempt(what)
}

impl Users {
    /// Its root, outside.
    fn root(&self) -> Result<(u32, u32), Failed> {
        let ids = on_host(&self.uids, 0).zip(on_host(&self.gids, 0));
        ids.ok_or_else(|| refuse("use the user namespace", "it has no id 0"))
    }

    /// Goes in for good; `flags`: namespaces to make there.
    pub fn enter(&self, standard: &[BorrowedFd<'_>], flags: CloneFlags) -> Result<(), Failed> {
        self.hand_over(standard)?;
        let what = || "enter the user namespace";
        rustix::thread::move_into_thread_name_spaces(self.namespace.as_fd(), ThreadNameSpaceType::USER).attempt(what)?;
        become_root()?;
        unshare(flags).attempt(what)
    }

    /// Gives its root the streams of a process there.
    pub fn hand_over(&self, standard: &[BorrowedFd<'_>]) -> Result<(), Failed> {
        let (uid, gid) = self.root()?;
        for fd in standard {
            // A pipe of ours is to be opened by its name (/dev/stdout): somebody in the pod has to own it.
            if rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo) {
                let given = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                given.attempt(|| "hand the standard streams over")?;
            }
        }
        Ok(())
    }

    /// What this process makes from now on in file systems belongs to that root. It gives up nothing.
    pub fn make_files_as_root(&self) -> Result<(), Failed> {
        let (uid, gid) = self.root()?;
        nix::unistd::setfsgid(nix::unistd::Gid::from_raw(gid));
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(uid));
        let what = || "make files for the user namespace's root";
        let mut sets = rustix::thread::capabilities(None).attempt(what)?;
        sets.effective = sets.permitted & CapabilitySet::all();
        rustix::thread::set_capabilities(None, sets).attempt(what)
    }

    /// Makes the owners in a step, which are ids inside, those outside: it is carried out there.
    pub fn translate(&self, step: &mut Step) -> Result<(), Failed> {
        let find = |all: &[IdMap], id: u32| {
            on_host(all, id).ok_or_else(|| refuse("carry out the plan", format!("{id} is no id of the user namespace")))
        };
        match step {
            Step::Filesystem(fs) => {
                for (name, value) in &mut fs.options {
                    let all = match name.as_str() {
                        "uid" => &self.uids,
                        "gid" => &self.gids,
                        _ => continue,
                    };
                    if let Ok(id) = value.parse() {
                        *value = find(all, id)?.to_string();
                    }
                }
                Ok(())
            }
            Step::Node(node) => {
                (node.uid, node.gid) = (find(&self.uids, node.uid)?, find(&self.gids, node.gid)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Shows the files of a mount, which nothing else sees yet, with the pod's ids.
    pub fn map(&self, mount: BorrowedFd<'_>, path: &str) -> Result<(), Failed> {
        let what = || format!("show {path} with the pod's ids");
        match mount::id_map(mount, self.namespace.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Err(refuse(what(), "its file system, or this kernel, cannot map ids: it is no volume for a pod with `hostUsers: false`"))
            }
            result => result.attempt(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Filesystem, Node};

    #[test]
    fn ids_in_steps_become_the_hosts() {
        let uids = vec![IdMap { inside: 0, host: 1000, length: 1 }, IdMap { inside: 1, host: 100_000, length: 9 }];
        let gids = vec![IdMap { inside: 0, host: 2000, length: 10 }];
        assert_eq!([0, 1, 9, 10, u32::MAX].map(|id| on_host(&uids, id)), [Some(1000), Some(100_000), Some(100_008), None, None]);
        let namespace = std::fs::File::open("/proc/self/ns/user").unwrap().into();
        let users = Users { namespace, uids, gids };
        let options =
            |uid: &str| vec![("mode".to_owned(), "5".to_owned()), ("uid".to_owned(), uid.to_owned()), ("gid".to_owned(), "5".to_owned())];
        let mut step = Step::from(Filesystem { options: options("2"), ..Filesystem::default() });
        users.translate(&mut step).unwrap();
        let Step::Filesystem(made) = &step else { panic!() };
        assert_eq!(made.options[1..].iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["100001", "2005"]);
        let mut node = Step::from(Node { gid: 3, ..Node::default() });
        users.translate(&mut node).unwrap();
        assert!(matches!(node, Step::Node(Node { uid: 1000, gid: 2003, .. })));
        assert!(users.translate(&mut Filesystem { options: options("10"), ..Filesystem::default() }.into()).is_err());
    }
}
