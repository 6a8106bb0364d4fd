//! Other programs, run to their ends. What hangs is killed.

use std::io;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::memory;

/// A daemon's own may lack some.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of what it says when it fails, so many bytes are passed on.
const SAID_BYTES: usize = 4096;
/// What is killed ends at once, unless the kernel hangs with it.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// Runs a program with `input` on its standard input.
///
/// # Errors
/// It does not start, takes longer than `patience`, or fails: what it says on its standard error then, or its status.
pub fn run(command: &mut Command, input: &str, patience: Duration) -> Result<(), String> {
    let failed = |cause: io::Error| cause.to_string();
    // No pipes, at which it or we would wait when the other does not read.
    let [told, said] = [input, ""].map(memory::file_of);
    let (told, said) = (told.map_err(failed)?, said.map_err(failed)?);
    command.env_clear().env("PATH", PATH).stdin(told).stdout(Stdio::null()).stderr(said.try_clone().map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let status = end(&mut child, Some(patience)).map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let mut bytes = vec![0; SAID_BYTES];
    let count = said.read_at(&mut bytes, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..count]);
    Err(if text.trim().is_empty() { status.to_string() } else { text.trim().to_owned() })
}

/// Waits for a program's end; no `patience`: for ever.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`]: it took longer, and was killed.
pub fn end(child: &mut Child, patience: Option<Duration>) -> io::Result<ExitStatus> {
    if let Some(status) = wait(child, patience)? {
        return Ok(status);
    }
    child.kill()?;
    // One that the kernel keeps all the same is left to it.
    wait(child, Some(KILL_PATIENCE))?;
    Err(io::ErrorKind::TimedOut.into())
}

fn wait(child: &mut Child, patience: Option<Duration>) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        match child.try_wait()? {
            None if patience.is_none_or(|patience| begun.elapsed() < patience) => std::thread::sleep(Duration::from_millis(2)),
            ended => return Ok(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn script(text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn what_a_program_says_when_it_fails_is_passed_on_and_no_more() {
        assert_eq!(run(&mut script("cat >&2"), "unheard", LONG), Ok(()));
        assert_eq!(run(&mut script("cat >&2; exit 1"), " heard\n", LONG), Err("heard".to_owned()));
        assert_eq!(run(&mut script("exit 3"), "", LONG), Err("exit status: 3".to_owned()));
        // More than a pipe holds, both ways.
        let much = "x".repeat(1 << 20);
        assert_eq!(run(&mut script("cat >&2; exit 1"), &much, LONG), Err("x".repeat(SAID_BYTES)));
        assert_eq!(run(&mut script("exit 1"), &much, LONG), Err("exit status: 1".to_owned()));
        assert!(run(&mut Command::new("/not/there"), "", LONG).is_err_and(|cause| cause.contains("No such file")));
    }

    #[test]
    fn what_hangs_is_killed() {
        let short = Duration::from_millis(20);
        assert_eq!(run(&mut script("exec sleep 1000"), "", short), Err(io::Error::from(io::ErrorKind::TimedOut).to_string()));
        let mut child = script("exec sleep 1000").spawn().unwrap();
        assert_eq!(end(&mut child, Some(short)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(child.try_wait().unwrap().and_then(|status| status.signal()), Some(9));
    }
}
