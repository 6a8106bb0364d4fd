//! One blob from a registry to a file that grows, over as many connections as it takes.

use std::time::{Duration, Instant};

use http::{StatusCode, header};

use super::Patience;
use super::error::ImageError;
use super::import::Blob;
use super::partial::Partial;
use super::progress::Progress;
use super::pull::pause;
use super::registry::{Answer, Registry};

/// Less than this is no progress: it does not earn another attempt.
const PROGRESS: u64 = 64 << 10;
/// A layer that comes slower than this, with some time on top, is given up for now.
const LEAST_A_SECOND: u64 = 32 << 10;
const AT_LEAST: Duration = Duration::from_secs(600);

/// How long one layer may take: whoever sends just enough not to be silent holds a pull no longer than that.
fn deadline(size: u64) -> Duration {
    AT_LEAST.saturating_add(Duration::from_secs(size / LEAST_A_SECOND))
}

/// What is downloaded, and from where.
pub(super) struct Download<'a> {
    pub registry: &'a Registry,
    pub patience: &'a Patience,
    pub progress: &'a Progress,
    /// Where to begin; those behind it are asked when it fails.
    pub place: usize,
    pub blob: &'a Blob,
    pub what: &'a str,
    /// Among the layers.
    pub index: usize,
}

impl Download<'_> {
    /// Goes on from what is there until it is whole and verified.
    pub async fn run(&self, partial: &mut Partial) -> Result<(), ImageError> {
        let most = deadline(self.blob.size);
        let outcome = match tokio::time::timeout(most, self.fetch(partial)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ImageError::Unreachable(format!("{} did not come within {} s", self.what, most.as_secs()))),
        };
        if let Err(error) = &outcome {
            partial.fail(error);
        }
        outcome
    }

    async fn fetch(&self, partial: &mut Partial) -> Result<(), ImageError> {
        let mut place = self.place;
        let mut attempt = 0;
        while partial.written() < self.blob.size {
            let before = partial.written();
            let Err(error) = self.stretch(partial, place).await else { continue };
            if partial.written() - before >= PROGRESS {
                attempt = 0;
            }
            let elsewhere = place + 1 < self.registry.places();
            let theirs = !matches!(error, ImageError::Io { .. });
            if elsewhere && theirs {
                tracing::warn!(mirror = self.registry.host(place), %error, "the mirror does not serve the layer");
                place += 1;
                continue;
            }
            if !pause(self.patience, &mut attempt, &error).await {
                return Err(error);
            }
            tracing::debug!(%error, at = partial.written(), "the download goes on");
        }
        partial.finish(self.what, &self.blob.digest)
    }

    /// As much as one connection gives.
    async fn stretch(&self, partial: &mut Partial, place: usize) -> Result<(), ImageError> {
        let from = partial.written();
        let mut answer = self.registry.blob(place, &self.blob.digest, from, self.what).await?;
        if from > 0 && passed_over(&answer, from).is_none() {
            // It cannot begin there, or does not say where: once more, from the start.
            answer = self.registry.blob(place, &self.blob.digest, 0, self.what).await?;
        }
        let skip = passed_over(&answer, from);
        let mut skip = skip.ok_or_else(|| ImageError::Registry(format!("{}: another part than was asked for", self.what)))?;
        let mut pace = Pace { since: Instant::now(), bytes: 0 };
        while let Some(mut chunk) = answer.chunk().await? {
            pace.take(chunk.len() as u64, self)?;
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            bytes::Buf::advance(&mut chunk, known);
            skip -= known as u64;
            if partial.written() + chunk.len() as u64 > self.blob.size {
                return Err(ImageError::TooLarge { what: self.what.to_owned(), limit: self.blob.size });
            }
            partial.append(&chunk)?;
            self.progress.downloaded(self.index, partial.written());
        }
        if partial.written() < self.blob.size {
            let (what, got, all) = (self.what, partial.written(), self.blob.size);
            return Err(ImageError::Unreachable(format!("{what}: it ended after {got} of {all} bytes")));
        }
        Ok(())
    }
}

/// What comes drop by drop is as good as nothing.
struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn take(&mut self, bytes: u64, of: &Download<'_>) -> Result<(), ImageError> {
        self.bytes += bytes;
        if self.since.elapsed() < of.patience.silence {
            return Ok(());
        }
        if self.bytes < of.patience.least_bytes {
            let (what, got, time) = (of.what, self.bytes, of.patience.silence.as_secs());
            return Err(ImageError::Unreachable(format!("{what}: only {got} bytes came in {time} s")));
        }
        *self = Self { since: Instant::now(), bytes: 0 };
        Ok(())
    }
}

/// What of an answer is here already; `None` when it does not serve.
fn passed_over(answer: &Answer, from: u64) -> Option<u64> {
    match answer.status {
        StatusCode::PARTIAL_CONTENT => from.checked_sub(begins_at(answer)?),
        StatusCode::RANGE_NOT_SATISFIABLE => None,
        // It cannot begin in the middle.
        _ => Some(from),
    }
}

fn begins_at(answer: &Answer) -> Option<u64> {
    let range = answer.headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_its_time() {
        assert_eq!(deadline(0), Duration::from_secs(600));
        assert_eq!(deadline(32 << 20), Duration::from_secs(600 + 1024));
        assert!(deadline(u64::MAX) > deadline(1 << 40));
    }
}
