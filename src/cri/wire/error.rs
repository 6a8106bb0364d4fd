//! gRPC's codes for the seam's errors, and back. PURE.

use tonic::{Code, Status};

use crate::cri::CriError;

/// As a server answers.
pub fn to_status(error: &CriError) -> Status {
    let code = match error {
        CriError::NotFound(_) | CriError::Pull { .. } => Code::NotFound,
        CriError::Failed { .. } => Code::Unknown,
        CriError::Invalid(_) => Code::InvalidArgument,
        CriError::Exists(_) => Code::AlreadyExists,
        CriError::Unsupported(_) => Code::Unimplemented,
        CriError::Timeout(_) => Code::DeadlineExceeded,
        CriError::Unreachable(_) => Code::Unavailable,
    };
    // A header of HTTP/2 carries it: not without end.
    let mut text = error.to_string();
    if let Some((end, _)) = text.char_indices().nth(4000) {
        text.truncate(end);
        text.push('…');
    }
    Status::new(code, text)
}

/// As a client reads it; `attempt` says what was asked for.
pub fn from_status(attempt: &str, status: &Status) -> CriError {
    let text = status.message();
    match status.code() {
        Code::NotFound => CriError::NotFound(text.trim_end_matches(" not found").to_owned()),
        Code::InvalidArgument => CriError::Invalid(text.to_owned()),
        Code::AlreadyExists => CriError::Exists(text.to_owned()),
        Code::Unimplemented => CriError::Unsupported(format!("{attempt}: {text}")),
        Code::DeadlineExceeded => CriError::Timeout(attempt.to_owned()),
        Code::Unavailable => CriError::Unreachable(format!("{attempt}: {text}")),
        _ => CriError::failed(attempt, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_way() {
        let all = [
            CriError::NotFound("container x".into()),
            CriError::failed("start", "no"),
            CriError::Invalid("nonsense".into()),
            CriError::Exists("there".into()),
            CriError::Timeout("exec".into()),
            CriError::Unreachable("gone".into()),
            CriError::Unsupported("dance".into()),
        ];
        for error in all {
            let back = from_status("exec", &to_status(&error));
            assert_eq!(std::mem::discriminant(&back), std::mem::discriminant(&error), "{error} became {back}");
        }
        assert!(to_status(&CriError::Invalid("é".repeat(9000))).message().len() < 9000);
    }
}
