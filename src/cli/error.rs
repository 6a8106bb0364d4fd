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

/// The causes, without those that the cause before already ends with.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let message = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => status.message.clone(),
            _ => cause.to_string(),
        };
        if text.is_empty() {
            text = message;
        } else if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
    }
    text
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let kube = error.chain().find_map(|cause| cause.downcast_ref::<kube::Error>())?;
    match kube {
        kube::Error::Api(status) if status.code == 401 => Some("the server does not know this kubeconfig: was the server reset since?"),
        kube::Error::Api(status) if status.code == 507 => Some("free space on the server's disk; deletes still work"),
        kube::Error::HyperError(_) | kube::Error::Service(_) => Some("is the server running? `podbay up` or `systemctl status podbay`"),
        _ => None,
    }
}
