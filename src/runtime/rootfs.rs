//! The image store as the engine's source of root file systems.

use super::image::{Digest, ImageError, ImageStore};
use super::{ImageRoot, Rootfs};
use crate::cri::CriError;

impl Rootfs for ImageStore {
    fn prepare(&self, image: &str) -> Result<ImageRoot, CriError> {
        let found = self.find(image).map_err(|error| failed("find image", image, &error))?;
        let found = found.ok_or_else(|| CriError::NotFound(format!("image {image}")))?;
        Ok(ImageRoot { id: found.id.to_string(), config: found.config, layers: found.layers })
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

fn failed(attempt: &str, subject: &str, error: &ImageError) -> CriError {
    CriError::failed(format!("{attempt} {subject}"), error)
}
