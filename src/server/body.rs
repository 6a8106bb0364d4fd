//! Request bodies: bounded, and JSON, YAML or protobuf.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use super::fault::Fault;
use super::protobuf;
use crate::model::manifest;

/// Kubernetes' own limit for an object.
pub const OBJECT_LIMIT: usize = 3 * 1024 * 1024;

/// For a whole body, however slowly it comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads a body to its end.
///
/// # Errors
/// 413 when it is larger than `limit`, 408 when it takes too long.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, Fault> {
    read_within(body, limit, PATIENCE).await
}

async fn read_within(body: Body, limit: usize, patience: Duration) -> Result<Bytes, Fault> {
    let whole = tokio::time::timeout(patience, Limited::new(body, limit).collect()).await;
    let whole = whole.map_err(|_| Fault::new(408, "Timeout", format!("the request's body did not end within {} s", patience.as_secs())))?;
    match whole {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Fault::too_large(limit)),
        Err(error) => Err(Fault::bad_request(format!("the body broke off: {error}"))),
    }
}

/// An object body; `None` where there is none.
///
/// # Errors
/// 415 for a format that is not taken, 400 for text that is not of its format.
pub fn decode(content_type: &str, bytes: &Bytes) -> Result<Option<Value>, Fault> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    match content_type {
        "" | "application/json" | "text/json" | "*/*" => json(bytes).map(Some),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(bytes).map(Some),
        "application/vnd.kubernetes.protobuf" => {
            protobuf::decode(bytes).map(Some).map_err(|error| Fault::bad_request(format!("the body is not an object in protobuf: {error}")))
        }
        other => {
            let taken = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
            Err(Fault::unsupported_media_type(other, taken))
        }
    }
}

/// # Errors
/// 400.
pub fn json(bytes: &Bytes) -> Result<Value, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::bad_request(format!("the body is not JSON: {error}")))
}

/// JSON is YAML: most clients send JSON under either name.
///
/// # Errors
/// 400, with every fault of the text.
pub fn yaml(bytes: &Bytes) -> Result<Value, Fault> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut documents = manifest::parse("body.yaml", bytes).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Fault::bad_request(format!("the body is not YAML: {}", problems.join("; ")))
    })?;
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) => Ok(document.value),
        _ => Err(Fault::bad_request("the body must be one YAML document")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let fault = read_within(endless, OBJECT_LIMIT, Duration::ZERO).await.unwrap_err();
        assert_eq!(fault.code, 408);
        assert_eq!(read(Body::from("{}"), 2).await.unwrap(), "{}");
        assert_eq!(read(Body::from("{} "), 2).await.unwrap_err().code, 413);
    }
}
