//! A failure at the edge: one chain on stderr, a hint, an exit code.

use std::process::ExitCode;

use super::output::clean;

/// Exit code of a failure: above 1, since 1 says "there are changes".
pub const FAILED: u8 = 2;

/// What a verb ends with: the exit code to report.
pub type Outcome = anyhow::Result<u8>;

/// Prints what went wrong and turns the outcome into the process' exit code.
pub fn finish(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            anstream::eprintln!("error: {}", clean(&chain(&error)));
            if let Some(hint) = hint(&error) {
                anstream::eprintln!("hint: {hint}");
            }
            ExitCode::from(FAILED)
        }
    }
}

/// The causes, without those that the cause before already ends with. A refusal by the server is
/// its own message; below a connection that failed only the last cause says something.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut add = |message: String| {
        if text.is_empty() {
            text = message;
        } else if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
    };
    for cause in error.chain() {
        match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => {
                add(status.message.clone());
                break;
            }
            Some(kube::Error::HyperError(_) | kube::Error::Service(_)) => {
                let last = cause_of_all(cause);
                add(format!("reach the server: {last}"));
                break;
            }
            _ => add(cause.to_string()),
        }
    }
    text
}

fn cause_of_all(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied)
    };
    if error.chain().any(denied) && !rustix::process::geteuid().is_root() {
        return Some("run it as root, or say --kubeconfig FILE");
    }
    let kube = error.chain().find_map(|cause| cause.downcast_ref::<kube::Error>())?;
    match kube {
        kube::Error::Api(status) if status.code == 401 => Some("the server does not know this kubeconfig: was the server reset since?"),
        kube::Error::Api(status) if status.code == 507 => Some("free space on the server's disk; deletes still work"),
        kube::Error::HyperError(_) | kube::Error::Service(_) => Some("is the server running? `podbay up` or `systemctl status podbay`"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_refusal_is_said_once() {
        let status = kube::core::Status::failure("pods \"x\" not found", "NotFound").with_code(404);
        let error = anyhow::Error::from(kube::Error::Api(status.boxed()));
        assert_eq!(chain(&error), "pods \"x\" not found");
        assert_eq!(chain(&error.context("drain n1")), "drain n1: pods \"x\" not found");
    }

    #[test]
    fn a_cause_is_not_repeated() {
        let error = Err::<(), _>(anyhow::anyhow!("disk full")).context("write a: disk full").unwrap_err();
        assert_eq!(chain(&error), "write a: disk full");
    }
}
