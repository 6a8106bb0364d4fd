//! Waiting for something to happen, and giving memory back when nothing does.

use std::time::Duration;

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;

use crate::resident;

/// Quiet for so long, a process gives memory back.
const REST_AFTER: Duration = Duration::from_secs(1);

/// Waits until one of them is ready, at most for `limit`. Who waits without a limit rests meanwhile: memory is given
/// back as the last thing before the long wait, so that little of it is taken again by the way there.
pub fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<usize, Errno> {
    let timeout = limit.unwrap_or(REST_AFTER);
    let timeout = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos().into() };
    let ready = match poll(fds, Some(&timeout)) {
        Ok(0) if limit.is_none() => {
            resident::give_memory_back();
            poll(fds, None)
        }
        other => other,
    };
    match ready {
        Err(Errno::INTR) => Ok(0),
        other => other,
    }
}
