//! gRPC's codes for the seam's errors, and back. PURE.

use tonic::{Code, Status};

use crate::cri::CriError;

/// Of a message in its header, which is spelled in ASCII.
const MESSAGE_LIMIT_BYTES: usize = 4000;

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
        CriError::Exhausted(_) => Code::ResourceExhausted,
    };
    // A header of HTTP/2 carries it: not without end.
    Status::new(code, cut(error.to_string()))
}

/// As much of a text as [`MESSAGE_LIMIT_BYTES`] hold; the header spells each byte that is not plain as `%XX`.
fn cut(mut text: String) -> String {
    let mut room = MESSAGE_LIMIT_BYTES;
    let too_much = text.char_indices().find(|(_, c)| {
        let plain = c.is_ascii_alphanumeric() || "-_./:,;=()".contains(*c);
        let needed = if plain { 1 } else { 3 * c.len_utf8() };
        let fits = needed <= room;
        room = room.saturating_sub(needed);
        !fits
    });
    if let Some((end, _)) = too_much {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// As a client reads it; `attempt` says what was asked for.
pub fn from_status(attempt: &str, status: &Status) -> CriError {
    let text = status.message();
    match status.code() {
        Code::NotFound => CriError::NotFound(text.trim_end_matches(" not found").to_owned()),
        Code::InvalidArgument => CriError::Invalid(text.to_owned()),
        Code::AlreadyExists => CriError::Exists(text.to_owned()),
        Code::Unimplemented => CriError::Unsupported(format!("{attempt}: {text}")),
        // Cancelled: our own limit ran out before the answer came.
        Code::DeadlineExceeded | Code::Cancelled => CriError::Timeout(attempt.to_owned()),
        Code::Unavailable => CriError::Unreachable(format!("{attempt}: {text}")),
        Code::ResourceExhausted => CriError::Exhausted(format!("{attempt}: {text}")),
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
            CriError::Exhausted("full".into()),
        ];
        for error in all {
            let back = from_status("exec", &to_status(&error));
            assert_eq!(std::mem::discriminant(&back), std::mem::discriminant(&error), "{error} became {back}");
        }
        assert_eq!(to_status(&CriError::Invalid("é".repeat(9000))).message().chars().count(), 4000 / 6 + 1);
        assert_eq!(to_status(&CriError::Invalid("a".repeat(9000))).message().chars().count(), 4001);
        assert_eq!(to_status(&CriError::Invalid("short: é".into())).message(), "short: é");
        assert!(matches!(from_status("exec", &Status::cancelled("late")), CriError::Timeout(_)));
    }
}
