//! ImageService: what every implementation must do without a registry.

use super::super::{CriError, Images};
use super::must;

/// `present`: the full name of an image that is there. It is not there afterwards.
///
/// # Panics
/// When the implementation does not do what it must.
pub async fn image_suite(images: &dyn Images, present: &str) {
    let found = must(images.image_status(present).await);
    let Some(found) = found else { panic!("{present} is not there") };
    assert!(found.id.starts_with("sha256:") && found.size_bytes > 0, "{found:?}");
    assert!(found.tags.iter().any(|tag| tag == present), "{found:?}");
    for name in std::iter::once(&found.id).chain(&found.tags).chain(&found.digests) {
        assert_eq!(must(images.image_status(name).await).as_ref(), Some(&found), "by {name}");
    }
    let all = must(images.list().await);
    assert_eq!(all.iter().filter(|image| image.id == found.id).count(), 1, "{all:?}");
    let missing = "docker.io/library/not-there:1";
    assert_eq!(must(images.image_status(missing).await), None);
    must(images.remove(missing).await);
    let usage = must(images.fs_info().await);
    assert!(usage.mount_point.is_absolute(), "{usage:?}");
    assert_eq!(must(images.place().await), usage.mount_point);
    let nonsense = images.image_status("UPPER CASE").await;
    assert!(matches!(nonsense, Ok(None) | Err(CriError::Invalid(_) | CriError::Failed { .. } | CriError::NotFound(_))), "{nonsense:?}");
    // At once, and again: whoever is told that it is removed finds it no more.
    let remove = || async {
        must(images.remove(&found.id).await);
        assert_eq!(must(images.image_status(&found.id).await), None);
    };
    tokio::join!(remove(), remove(), remove());
    must(images.remove(&found.id).await);
    assert_eq!(must(images.image_status(present).await), None);
}
