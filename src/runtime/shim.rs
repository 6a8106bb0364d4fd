//! The engine's side of the shim: starts one, and talks to one that runs.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net;

use super::socket;
use super::wire::{Failed, Hello, Init, Lone, Process, Request, Response, VERSION, Wire};

/// A shim cannot be started, reached, or says no.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    #[error("read the shim's program {path}: {cause}")]
    Program { path: PathBuf, cause: io::Error },
    #[error("start a shim: {0}")]
    Start(io::Error),
    #[error("talk to the shim in {directory}: {cause}")]
    Talk { directory: PathBuf, cause: io::Error },
    #[error("the shim in {0} does not answer")]
    Silent(PathBuf),
    #[error("{}: {}", .0.attempt, .0.cause)]
    Refused(Failed),
    #[error("the shim in {0} answered something else")]
    Confused(PathBuf),
    #[error("the shim in {0} is of an older podbay, which cannot do this: its pod can when it is made anew")]
    Older(PathBuf),
    #[error(
        "the shim in {directory} is of a newer podbay (format {found}; this one knows up to {VERSION}): \
         its pod is left alone, start the newer podbay again"
    )]
    Newer { directory: PathBuf, found: u32 },
}

impl ShimError {
    /// Whether nobody is there (any more).
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Talk { .. })
    }

    /// Whether somebody is there who says nothing.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Silent(_))
    }

    fn talk(directory: &Path, cause: io::Error) -> Self {
        match cause.kind() {
            // How a socket's time limits show.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent(directory.to_owned()),
            _ => Self::Talk { directory: directory.to_owned(), cause },
        }
    }
}

/// A shim answers at once, unless it hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Only a program may take long to start, where its mounts do: longer than the shim itself waits for it.
const START_LIMIT: Duration = Duration::from_secs(150);

/// The shim's program: a sealed copy in memory where possible, so that no container can ever reach a file of the
/// host through `/proc/PID/exe` of a process on its way in.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    sealed: Option<OwnedFd>,
}

impl Program {
    pub fn load(path: &Path) -> Result<Self, ShimError> {
        let fail = |cause| ShimError::Program { path: path.to_owned(), cause };
        let bytes = std::fs::read(path).map_err(fail)?;
        Ok(Self { path: path.to_owned(), sealed: seal(&bytes).ok() })
    }

    /// Starts a shim; returns its process id when its pod's namespaces are there.
    pub fn spawn(&self, init: &Init) -> Result<i32, ShimError> {
        let memory = self.sealed.as_ref().map(|fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())));
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        // Hosts may forbid programs in memory (vm.memfd_noexec).
        for program in memory.iter().chain([&self.path]) {
            match self.spawn_from(program, init) {
                Err(ShimError::Start(cause)) if cause.kind() == io::ErrorKind::PermissionDenied => last = cause,
                result => return result,
            }
        }
        Err(ShimError::Start(last))
    }

    /// Starts the program for a container without a pod, on the caller's standard streams; returns the socket on which it
    /// answers. It ends when the container's first process is there, which has `more` of our descriptors from 3 on.
    pub fn spawn_lone(&self, lone: &Lone, fds: &[BorrowedFd<'_>], more: u32) -> Result<(UnixStream, Child), ShimError> {
        let (ours, theirs) = UnixStream::pair().map_err(ShimError::Start)?;
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(|errno| ShimError::Start(errno.into()))?;
        let memory = self.sealed.as_ref().map(|fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())));
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for program in memory.iter().chain([&self.path]) {
            let mut command = Command::new(program);
            command.arg0("podbay-shim").arg("lone").arg(theirs.as_raw_fd().to_string()).arg(more.to_string()).env_clear();
            match command.spawn() {
                Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => last = cause,
                spawned => {
                    let child = spawned.map_err(ShimError::Start)?;
                    socket::send(&ours, lone, fds).map_err(ShimError::Start)?;
                    return Ok((ours, child));
                }
            }
        }
        Err(ShimError::Start(last))
    }

    fn spawn_from(&self, program: &Path, init: &Init) -> Result<i32, ShimError> {
        let mut child = Command::new(program)
            .arg0("podbay-shim")
            .arg(&init.title)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(ShimError::Start)?;
        let write = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&init.to_bytes()));
        let mut head = [0; 4];
        let response = write.and_then(|()| {
            let stdout = child.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
            stdout.read_exact(&mut head)?;
            let mut bytes = vec![0; u32::from_le_bytes(head) as usize];
            stdout.read_exact(&mut bytes)?;
            Response::from_bytes(&bytes).map_err(io::Error::other)
        });
        // The started process ends at once; the shim is its child.
        child.wait().map_err(ShimError::Start)?;
        match response.map_err(ShimError::Start)? {
            Response::Hello(hello) => understood(Path::new(&init.directory), &hello).map(|()| hello.pid),
            Response::Failed(failed) => Err(ShimError::Refused(failed)),
            _ => Err(ShimError::Confused(PathBuf::from(&init.directory))),
        }
    }
}

fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("podbay-shim", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    // Executed through a descriptor that cannot write: else the kernel says "text file busy".
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("/proc/self/fd/{}", file.as_raw_fd()), flags, Mode::empty())?)
}

/// A connection on which the shim has said hello.
#[derive(Debug)]
pub struct Connection {
    pub socket: UnixStream,
    pub shim_pid: i32,
    hello: Hello,
}

/// Connects to the shim of a run directory, without waiting for it. Nothing on the connection takes long.
fn reach(directory: &Path) -> Result<UnixStream, ShimError> {
    let fail = |cause: io::Error| ShimError::talk(directory, cause);
    let connect = |path| {
        let socket = net::socket_with(net::AddressFamily::UNIX, net::SocketType::STREAM, net::SocketFlags::CLOEXEC, None)?;
        // Before it connects: where many wait for a shim that hangs, that takes time, too.
        net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Send, Some(ANSWER_LIMIT))?;
        net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Recv, Some(ANSWER_LIMIT))?;
        net::connect(&socket, &net::SocketAddrUnix::new(path)?)?;
        Ok(UnixStream::from(socket))
    };
    socket::by_short_name(&directory.join("shim.sock"), connect).map_err(fail)
}

/// Older shims are driven as they are; what a newer one would make of our requests nobody knows.
fn understood(directory: &Path, hello: &Hello) -> Result<(), ShimError> {
    if hello.version > VERSION {
        return Err(ShimError::Newer { directory: directory.to_owned(), found: hello.version });
    }
    Ok(())
}

fn greeted(directory: &Path, socket: UnixStream) -> Result<Connection, ShimError> {
    match socket::receive::<Response>(&socket).map_err(|cause| ShimError::talk(directory, cause))? {
        (Response::Hello(hello), _) => understood(directory, &hello).map(|()| Connection { socket, shim_pid: hello.pid, hello }),
        _ => Err(ShimError::Confused(directory.to_owned())),
    }
}

/// Connects to the shim of a run directory.
pub fn connect(directory: &Path) -> Result<Connection, ShimError> {
    greeted(directory, reach(directory)?)
}

/// Tells the shim something it need not answer.
pub fn tell(directory: &Path, request: &Request) -> Result<(), ShimError> {
    let socket = reach(directory)?;
    socket::send(&socket, request, &[]).map_err(|cause| ShimError::talk(directory, cause))
}

/// An answer, what came along it, and the connection for what may follow.
#[derive(Debug)]
pub struct Answer {
    pub response: Response,
    pub fds: Vec<OwnedFd>,
    pub socket: UnixStream,
}

/// The last request that the shims of the first version know, which do not say so.
const FIRST_REQUESTS: u8 = 7;

fn knows(hello: &Hello, request: &Request) -> bool {
    request.tag() <= hello.requests.max(FIRST_REQUESTS)
}

/// What a shim has to heed (`HEEDS`) that is not to let a process do more than it may; 0: nothing.
fn heed(request: &Request) -> u8 {
    let of = |process: &Process| u8::from(!process.apparmor.is_empty() || process.user.exact);
    match request {
        // It would be among the host's.
        Request::Run(run) if run.launch.commands.is_none() && !run.launch.processes_of.is_empty() => 2,
        Request::Run(run) if run.launch.commands.is_none() => of(&run.launch.process),
        Request::Exec(exec) if exec.commands.is_none() => of(&exec.process),
        _ => 0,
    }
}

/// Asks the shim of a run directory for something.
pub fn ask(directory: &Path, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Answer, ShimError> {
    let fail = |cause: io::Error| ShimError::talk(directory, cause);
    let socket = reach(directory)?;
    let send = |socket: &UnixStream| socket::send(socket, request, fds).map_err(fail);
    let Connection { socket, hello, .. } = if heed(request) > 0 {
        let connection = greeted(directory, socket)?;
        if connection.hello.heeds < heed(request) {
            return Err(ShimError::Older(directory.to_owned()));
        }
        send(&connection.socket)?;
        connection
    } else {
        // Request and greeting cross: the shim wakes up once.
        send(&socket)?;
        greeted(directory, socket)?
    };
    if matches!(request, Request::Run(_) | Request::Exec(_)) {
        socket.set_read_timeout(Some(START_LIMIT)).map_err(fail)?;
    }
    match socket::receive::<Response>(&socket).map_err(fail)? {
        (Response::Failed(_), _) if !knows(&hello, request) => Err(ShimError::Older(directory.to_owned())),
        (Response::Failed(failed), _) => Err(ShimError::Refused(failed)),
        (response, fds) => Ok(Answer { response, fds, socket }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::wire::{Commands, Exec, Join, Launch, List, REQUESTS, ReopenLog, Run, User};

    #[test]
    fn what_an_older_shim_does_not_know_is_told_by_its_own_tag() {
        let hello = |requests| Hello { requests, ..Hello::default() };
        let (join, reopen, list) = (Join::default().into(), ReopenLog::default().into(), List::default().into());
        for (requests, known) in [(0, [false, false, true]), (8, [true, false, true]), (REQUESTS, [true; 3])] {
            assert_eq!([&join, &reopen, &list].map(|request| knows(&hello(requests), request)), known, "{requests}");
        }
    }

    #[test]
    fn what_an_older_shim_would_let_do_more_is_strict() {
        let exec = |process, commands| heed(&Exec { process, commands, ..Exec::default() }.into());
        let labelled = Process { apparmor: "profile".into(), ..Process::default() };
        let exact = Process { user: User { exact: true, ..User::default() }, ..Process::default() };
        assert_eq!((exec(labelled.clone(), None), exec(exact, None)), (1, 1));
        assert_eq!(exec(labelled, Some(Commands::default())), 0, "that is another runtime's to heed");
        assert_eq!(exec(Process::default(), None), 0);
        let among = |commands| Launch { processes_of: "other".into(), commands, ..Launch::default() };
        let run = |commands| heed(&Run { launch: among(commands), ..Run::default() }.into());
        assert_eq!((run(None), run(Some(Commands::default()))), (2, 0));
    }
}
