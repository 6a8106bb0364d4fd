//! ImageService of the runtime behind the socket.

use async_trait::async_trait;

use super::{Client, done, got, request};
use crate::cri::wire::container::image_spec;
use crate::cri::wire::{self, status};
use crate::cri::{CriError, FilesystemUsage, Image, Images, RegistryAuth};

#[async_trait]
impl Images for Client {
    async fn list(&self) -> Result<Vec<Image>, CriError> {
        let answer = self.shared.images().list_images(request(wire::ListImagesRequest { filter: None })).await;
        Ok(got("list images", answer)?.images.into_iter().map(status::image_from_wire).collect())
    }

    async fn image_status(&self, reference: &str) -> Result<Option<Image>, CriError> {
        let question = wire::ImageStatusRequest { image: Some(image_spec(reference)), verbose: false };
        let answer = self.shared.images().image_status(request(question)).await;
        Ok(got(&format!("look for image {reference}"), answer)?.image.map(status::image_from_wire))
    }

    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<String, CriError> {
        let auth = auth.map(|auth| wire::AuthConfig {
            username: auth.username.clone(),
            password: auth.password.clone(),
            registry_token: auth.token.clone(),
            identity_token: auth.identity_token.clone(),
            ..wire::AuthConfig::default()
        });
        let question = wire::PullImageRequest { image: Some(image_spec(reference)), auth, sandbox_config: None };
        // Without a limit: it takes what the registry and the line take.
        let answer = self.shared.images().pull_image(question).await;
        match got(&format!("pull {reference}"), answer) {
            Ok(answer) => Ok(answer.image_ref),
            Err(CriError::NotFound(cause)) => {
                let repeated = format!("pull {reference}: ");
                let cause = cause.strip_prefix(&repeated).unwrap_or(&cause).to_owned();
                Err(CriError::Pull { reference: reference.to_owned(), cause })
            }
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, reference: &str) -> Result<(), CriError> {
        let question = wire::RemoveImageRequest { image: Some(image_spec(reference)) };
        let answer = self.shared.images().remove_image(request(question)).await;
        done(&format!("remove image {reference}"), answer)
    }

    async fn fs_info(&self) -> Result<FilesystemUsage, CriError> {
        let answer = self.shared.images().image_fs_info(request(wire::ImageFsInfoRequest {})).await;
        let first = got("measure the image store", answer)?.image_filesystems.into_iter().next();
        first.map(status::filesystem_from_wire).ok_or_else(|| CriError::failed("measure the image store", "the runtime says nothing"))
    }
}
