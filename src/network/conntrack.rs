//! The kernel's table of flows, by netlink, in the network namespace of the calling thread.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use super::flows::{self, Answer, Flow};
use super::{NetworkError, Wanted};

/// As in errno.h: it ended by itself.
const ENOENT: i32 = 2;
/// The kernel answers at once or never.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of one answer of the kernel, which writes at most half of it.
const ANSWER_BYTES: usize = 64 << 10;

/// Forgets the UDP flows that lead to where no Service and no port of this host leads any more. Returns how many.
pub(super) fn forget_stale(wanted: &Wanted, local: &BTreeSet<Ipv4Addr>) -> Result<usize, NetworkError> {
    let fail = |cause: io::Error| NetworkError::failed("forget UDP flows to endpoints that are gone", cause);
    let socket = open().map_err(fail)?;
    let mut stale = Vec::new();
    let end = ask(&socket, &flows::list(), |flow| {
        if flows::is_stale(&flow, wanted, local) {
            stale.push(flow);
        }
    });
    end.map_err(fail)?;
    for flow in &stale {
        match ask(&socket, &flows::forget(flow), |_| {}) {
            Err(error) if error.raw_os_error() == Some(ENOENT) => {}
            outcome => outcome.map_err(fail)?,
        }
    }
    Ok(stale.len())
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

fn ask(socket: &OwnedFd, request: &[u8], mut take: impl FnMut(Flow)) -> io::Result<()> {
    send(socket, request, SendFlags::empty())?;
    let mut buffer = vec![0; ANSWER_BYTES];
    loop {
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let Answer { flows, end } = flows::read(&buffer[..length]);
        flows.into_iter().for_each(&mut take);
        match end {
            Some(0) => return Ok(()),
            Some(code) => return Err(io::Error::from_raw_os_error(code)),
            None if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    }
}
