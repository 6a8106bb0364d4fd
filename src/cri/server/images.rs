//! ImageService, verb by verb.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tonic::{Request, Response, Status};

use super::Core;
use super::runtime::{Messages, pieces};
use crate::cri::wire::error::to_status;
use crate::cri::wire::image_service_server::ImageService;
use crate::cri::wire::{self, container, status};
use crate::cri::{CriError, RegistryAuth};
use crate::model::Timestamp;

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T, CriError>) -> Answer<T> {
    result.map(Response::new).map_err(|error| to_status(&error))
}

fn named(spec: Option<wire::ImageSpec>) -> Result<String, CriError> {
    let name = spec.map(container::image_from_wire).map(|(name, _)| name).filter(|name| !name.is_empty());
    name.ok_or_else(|| CriError::Invalid("the request names no image".into()))
}

/// Credentials; none when they say nothing.
fn auth(config: Option<wire::AuthConfig>) -> Result<Option<RegistryAuth>, CriError> {
    let Some(config) = config else { return Ok(None) };
    let (token, identity_token) = (config.registry_token, config.identity_token);
    let (mut username, mut password) = (config.username, config.password);
    if username.is_empty() && !config.auth.is_empty() {
        let wrong = || CriError::Invalid("the credentials' `auth` is not the base64 of USER:PASSWORD".into());
        let text = STANDARD.decode(config.auth.trim()).map_err(|_| wrong())?;
        let text = String::from_utf8(text).map_err(|_| wrong())?;
        let (user, rest) = text.split_once(':').ok_or_else(wrong)?;
        (username, password) = (user.to_owned(), rest.trim_end_matches('\0').to_owned());
    }
    let nothing = username.is_empty() && password.is_empty() && token.is_empty() && identity_token.is_empty();
    Ok((!nothing).then_some(RegistryAuth { username, password, token, identity_token }))
}

/// The host of an address or of an image's name, as the keyring knows it; docker.io has several names.
fn host_of(place: &str) -> String {
    let plain = place.trim_start_matches("https://").trim_start_matches("http://");
    let first = plain.split('/').next().unwrap_or_default();
    match first {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_ascii_lowercase(),
    }
}

/// The registry an image comes from. A first part that is no host is docker.io's.
fn registry_of(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => host_of(first),
        _ => "docker.io".to_owned(),
    }
}

/// Whether credentials are for this image's registry; those that name no server are for whatever is pulled.
fn is_for(server_address: &str, image: &str) -> bool {
    server_address.is_empty() || host_of(server_address) == registry_of(image)
}

impl Core {
    async fn images(&self, filter: Option<wire::ImageFilter>) -> Result<Vec<wire::Image>, CriError> {
        let wanted = filter.and_then(|filter| filter.image).map(|spec| spec.image).filter(|name| !name.is_empty());
        let found = match wanted {
            Some(name) => self.images.image_status(&name).await?.into_iter().collect(),
            None => self.images.list().await?,
        };
        Ok(found.iter().map(status::image).collect())
    }

    async fn drop_image(&self, spec: Option<wire::ImageSpec>) -> Result<wire::RemoveImageResponse, CriError> {
        // By whichever name: the image goes with all of them.
        if let Some(found) = self.images.image_status(&named(spec)?).await? {
            self.images.remove(&found.id).await?;
        }
        Ok(wire::RemoveImageResponse {})
    }
}

#[tonic::async_trait]
impl ImageService for Core {
    async fn list_images(&self, request: Request<wire::ListImagesRequest>) -> Answer<wire::ListImagesResponse> {
        let images = self.images(request.into_inner().filter).await;
        answer(images.map(|images| wire::ListImagesResponse { images }))
    }

    type StreamImagesStream = Messages<wire::StreamImagesResponse>;
    async fn stream_images(&self, request: Request<wire::StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        let all = self.images(request.into_inner().filter).await;
        answer(all.map(|all| pieces(all, |images| wire::StreamImagesResponse { images })))
    }

    async fn image_status(&self, request: Request<wire::ImageStatusRequest>) -> Answer<wire::ImageStatusResponse> {
        let request = request.into_inner();
        let look = async {
            let found = self.images.image_status(&named(request.image)?).await?;
            let mut info = BTreeMap::new();
            if let Some(image) = found.as_ref().filter(|_| request.verbose) {
                info.insert("info".to_owned(), self.images.details(&image.id).await.to_string());
            }
            Ok(wire::ImageStatusResponse { image: found.as_ref().map(status::image), info })
        };
        answer(look.await)
    }

    async fn pull_image(&self, request: Request<wire::PullImageRequest>) -> Answer<wire::PullImageResponse> {
        let request = request.into_inner();
        let pull = async {
            let handler = request.image.as_ref().map(|spec| spec.runtime_handler.clone()).unwrap_or_default();
            let name = named(request.image)?;
            // All that are known have the same images.
            if !self.runtime.handlers().await.contains(&handler) {
                return Err(CriError::Invalid(format!("no runtime for {handler:?} is configured")));
            }
            let server = request.auth.as_ref().map(|auth| auth.server_address.clone()).unwrap_or_default();
            let mut auth = auth(request.auth)?;
            if auth.is_some() && !is_for(&server, &name) {
                tracing::warn!(image = name, server, "the credentials are another registry's: pulled without");
                auth = None;
            }
            let image_ref = self.images.pull(&name, auth.as_ref()).await?;
            Ok(wire::PullImageResponse { image_ref })
        };
        answer(pull.await)
    }

    async fn remove_image(&self, request: Request<wire::RemoveImageRequest>) -> Answer<wire::RemoveImageResponse> {
        answer(self.drop_image(request.into_inner().image).await)
    }

    async fn image_fs_info(&self, _: Request<wire::ImageFsInfoRequest>) -> Answer<wire::ImageFsInfoResponse> {
        let usage = self.images.fs_info().await.map(|usage| status::filesystem(&usage, Timestamp::now()));
        // Containers' own files are beside the layers.
        answer(usage.map(|usage| wire::ImageFsInfoResponse { image_filesystems: vec![usage.clone()], container_filesystems: vec![usage] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_image_for_an_unknown_handler_is_refused() {
        use crate::cri::fake::{FakeImages, FakeRuntime, HANDLER};
        let streams = std::sync::Arc::new(crate::cri::server::stream::Streams::new("127.0.0.1:1".parse().unwrap()));
        let core = Core {
            runtime: std::sync::Arc::<FakeRuntime>::default(),
            images: std::sync::Arc::<FakeImages>::default(),
            streams,
            rates: Default::default(),
            end: Default::default(),
        };
        for (handler, expected) in [("", None), (HANDLER, None), ("nosuch", Some(tonic::Code::InvalidArgument))] {
            let image = wire::ImageSpec { image: "busybox".into(), runtime_handler: handler.into(), ..Default::default() };
            let request = wire::PullImageRequest { image: Some(image), ..Default::default() };
            let pulled = core.pull_image(Request::new(request)).await;
            assert_eq!(pulled.err().map(|status| status.code()), expected, "{handler:?}");
        }
    }

    #[test]
    fn credentials_go_to_their_own_registry_alone() {
        for (server, image) in [
            ("", "ghcr.io/a/b:1"),
            ("ghcr.io", "ghcr.io/a/b:1"),
            ("https://localhost:5000/v2/", "localhost:5000/b"),
            ("https://index.docker.io/v1/", "nginx"),
            ("docker.io", "library/nginx:1"),
        ] {
            assert!(is_for(server, image), "{server} {image}");
        }
        for (server, image) in
            [("ghcr.io", "nginx"), ("quay.io", "ghcr.io/a/b"), ("localhost:5000", "localhost:5001/b"), ("docker.io", "docker.io.evil/b")]
        {
            assert!(!is_for(server, image), "{server} {image}");
        }
    }

    #[test]
    fn credentials_come_in_three_forms() {
        let read = |config: wire::AuthConfig| auth(Some(config)).unwrap();
        let both = Some(RegistryAuth { username: "u".into(), password: "p:q".into(), ..Default::default() });
        assert!(read(wire::AuthConfig { username: "u".into(), password: "p:q".into(), ..Default::default() }) == both);
        assert!(read(wire::AuthConfig { auth: STANDARD.encode("u:p:q"), ..Default::default() }) == both);
        let token = read(wire::AuthConfig { registry_token: "t".into(), ..Default::default() });
        assert!(token == Some(RegistryAuth { token: "t".into(), ..Default::default() }));
        let identity = read(wire::AuthConfig { identity_token: "i".into(), ..Default::default() });
        assert!(identity == Some(RegistryAuth { identity_token: "i".into(), ..Default::default() }));
        assert!(read(wire::AuthConfig { server_address: "x".into(), ..Default::default() }).is_none());
        assert!(auth(Some(wire::AuthConfig { auth: "%".into(), ..Default::default() })).is_err());
    }
}
