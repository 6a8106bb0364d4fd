//! The image store as the engine's source of root file systems.

use super::image::{Digest, ImageError, ImageStore, Reference};
use super::{ImageRoot, Rootfs};
use crate::cri::CriError;

impl Rootfs for ImageStore {
    fn prepare(&self, image: &str) -> Result<ImageRoot, CriError> {
        let found = self.find(image).map_err(|error| failed("find image", image, &error))?;
        let found = found.ok_or_else(|| CriError::NotFound(format!("image {image}")))?;
        let digest = digest_for(&found.summary.digests, image);
        Ok(ImageRoot { id: found.id.to_string(), digest, config: found.config, layers: found.layers })
    }

    fn hold(&self, container: &str, image_id: &str) -> Result<(), CriError> {
        let digest: Digest = image_id.parse().map_err(|error| failed("keep image", image_id, &error))?;
        Self::hold(self, container, &digest).map_err(|error| failed("keep image", image_id, &error))
    }

    fn release(&self, container: &str) -> Result<(), CriError> {
        Self::release(self, container).map_err(|error| failed("let go of the image of container", container, &error))
    }

    fn release_others(&self, alive: &dyn Fn(&str) -> bool) -> Result<(), CriError> {
        Self::release_others(self, alive).map_err(|error| failed("let go of", "images nobody uses", &error))
    }
}

/// Of an image with several, that of the repository it is asked for by.
fn digest_for(digests: &[String], name: &str) -> String {
    let repository = name.parse::<Reference>().map(|name| name.repository()).unwrap_or_default();
    let asked = digests.iter().find(|digest| digest.split_once('@').is_some_and(|(of, _)| of == repository));
    asked.or(digests.first()).cloned().unwrap_or_default()
}

fn failed(attempt: &str, subject: &str, error: &ImageError) -> CriError {
    CriError::failed(format!("{attempt} {subject}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_the_repository_that_was_asked_for() {
        let digests = ["docker.io/library/nginx@sha256:1", "registry.test/nginx@sha256:2"].map(str::to_owned);
        assert_eq!(digest_for(&digests, "registry.test/nginx:1"), digests[1]);
        assert_eq!(digest_for(&digests, "nginx"), digests[0]);
        assert_eq!(digest_for(&digests, "sha256:3"), digests[0], "by its id");
        assert_eq!(digest_for(&[], "nginx"), "");
    }
}
