//! Which images go when the disk fills up, as the kubelet's image manager decides it. PURE.

use std::collections::{BTreeMap, BTreeSet};

use crate::cri::{ContainerStatus, Image};
use crate::model::Timestamp;

/// When images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Begins when more than this much of the disk is used; 100: never.
    pub high_percent: u8,
    /// Ends when no more than this much is used.
    pub low_percent: u8,
    /// Images younger than this stay.
    pub minimum_age_seconds: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, minimum_age_seconds: 120 }
    }
}

/// What is known of an image by its id; a restart of the agent begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub first_seen: Timestamp,
    pub last_used: Option<Timestamp>,
}

/// The disk that images are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub capacity: u64,
    pub available: u64,
}

impl Space {
    /// Rounded up: a disk of which 85.1 % are used is over 85.
    pub fn used_percent(&self) -> u64 {
        let used = u128::from(self.capacity.saturating_sub(self.available)) * 100;
        u64::try_from(used.div_ceil(u128::from(self.capacity.max(1)))).unwrap_or(100)
    }

    /// Bytes that have to become free so that no more than `percent` are used.
    pub fn missing(&self, percent: u8) -> u64 {
        let wanted = u128::from(self.capacity) * u128::from(100 - percent.min(100)) / 100;
        u64::try_from(wanted).unwrap_or(u64::MAX).saturating_sub(self.available)
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Bytes to make free; 0: all is well.
    pub missing: u64,
    /// Ids of images that may go, the longest unused first, with their sizes.
    pub removable: Vec<(String, u64)>,
}

/// Images in a row of which nothing came free before a look ends: all their layers are others' too, or a pull holds them.
const FRUITLESS: u32 = 5;

/// How far a look has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Images.
    pub removed: usize,
    /// Bytes that came free, whatever the images' sizes say.
    pub freed: u64,
    fruitless: u32,
}

impl Progress {
    /// Counts one image that was removed.
    pub fn count(&mut self, before: Space, after: Space) {
        let freed = after.available.saturating_sub(before.available);
        self.removed += 1;
        self.freed = self.freed.saturating_add(freed);
        self.fruitless = if freed == 0 { self.fruitless + 1 } else { 0 };
    }

    /// Whether the next image stays until the next look.
    pub fn is_enough(&self, missing: u64) -> bool {
        self.freed >= missing || self.fruitless >= FRUITLESS
    }
}

/// Ids of images that some container was made from, or mounts, whether it runs, has ended or is yet to start.
pub fn in_use(images: &[Image], containers: &[ContainerStatus]) -> BTreeSet<String> {
    let mounted = containers.iter().flat_map(|found| &found.mounts).filter_map(|mount| mount.image.as_ref());
    let mounted = mounted.flat_map(|volume| [volume.id.as_str(), volume.image.as_str()]);
    let names: BTreeSet<&str> =
        containers.iter().flat_map(|found| [found.image_id.as_str(), found.image.as_str()]).chain(mounted).collect();
    let used =
        |image: &&Image| std::iter::once(&image.id).chain(&image.tags).chain(&image.digests).any(|name| names.contains(name.as_str()));
    images.iter().filter(used).map(|image| image.id.clone()).collect()
}

/// What is known after another look.
pub fn remember(known: &BTreeMap<String, Known>, images: &[Image], used: &BTreeSet<String>, now: Timestamp) -> BTreeMap<String, Known> {
    let look = |image: &Image| {
        let mut entry = known.get(&image.id).copied().unwrap_or(Known { first_seen: now, last_used: None });
        if used.contains(&image.id) {
            entry.last_used = Some(now);
        }
        (image.id.clone(), entry)
    };
    images.iter().map(look).collect()
}

/// Decides what may go.
pub fn plan(
    known: &BTreeMap<String, Known>,
    images: &[Image],
    used: &BTreeSet<String>,
    space: Space,
    policy: Policy,
    now: Timestamp,
) -> Plan {
    if policy.high_percent >= 100 || space.used_percent() <= u64::from(policy.high_percent) {
        return Plan::default();
    }
    let old_enough = |known: &Known| now.duration_since(known.first_seen).as_secs() >= i64::from(policy.minimum_age_seconds);
    let mut removable: Vec<(&Known, &Image)> = images
        .iter()
        .filter(|image| !image.pinned && !used.contains(&image.id))
        .filter_map(|image| Some((known.get(&image.id)?, image)))
        .filter(|(known, _)| old_enough(known))
        .collect();
    removable.sort_unstable_by_key(|(known, image)| (known.last_used, known.first_seen, &image.id));
    Plan {
        missing: space.missing(policy.low_percent),
        removable: removable.into_iter().map(|(_, image)| (image.id.clone(), image.size_bytes)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn image(id: &str) -> Image {
        let tags = vec![format!("docker.io/library/{id}:1")];
        Image { id: id.to_owned(), tags, digests: Vec::new(), size_bytes: 10, user: String::new(), pinned: false }
    }

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    const FULL: Space = Space { capacity: 1000, available: 100 };

    fn ids(plan: &Plan) -> Vec<&str> {
        plan.removable.iter().map(|(id, _)| id.as_str()).collect()
    }

    #[test]
    fn below_the_mark_nothing_goes() {
        let images = [image("a")];
        let known = remember(&BTreeMap::new(), &images, &set(&[]), at(0));
        let of = |available, high_percent| {
            let policy = Policy { high_percent, ..Policy::default() };
            plan(&known, &images, &set(&[]), Space { capacity: 1000, available }, policy, at(1000))
        };
        assert_eq!(of(150, 85), Plan::default());
        assert_eq!(of(149, 85).missing, 51);
        assert_eq!(of(0, 100), Plan::default(), "switched off");
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_stays() {
        let images = ["new", "old", "used", "never"].map(image);
        let mut known = remember(&BTreeMap::new(), &images[1..], &set(&["old"]), at(0));
        known = remember(&known, &images, &set(&["used"]), at(100));
        known = remember(&known, &images, &set(&["new", "used"]), at(200));
        let plan = plan(&known, &images, &set(&["used"]), FULL, Policy::default(), at(1000));
        assert_eq!((ids(&plan), plan.missing), (vec!["never", "old", "new"], 100));
    }

    #[test]
    fn what_the_runtime_needs_itself_stays() {
        let mut images = ["pause", "other"].map(image);
        images[0].pinned = true;
        let known = remember(&BTreeMap::new(), &images, &set(&[]), at(0));
        assert_eq!(ids(&plan(&known, &images, &set(&[]), FULL, Policy::default(), at(1000))), ["other"]);
    }

    #[test]
    fn an_image_of_which_nothing_comes_free_does_not_end_a_look() {
        let disk = |available| Space { capacity: 1000, available };
        let mut progress = Progress::default();
        for _ in 1..FRUITLESS {
            progress.count(disk(100), disk(100));
            assert!(!progress.is_enough(50));
        }
        progress.count(disk(100), disk(130));
        // Somebody wrote more than came free: that is no gain, and takes none back.
        progress.count(disk(130), disk(90));
        assert_eq!((progress.freed, progress.is_enough(30), progress.is_enough(31)), (30, true, false));
        for _ in 2..FRUITLESS {
            progress.count(disk(90), disk(90));
            assert!(!progress.is_enough(50));
        }
        progress.count(disk(90), disk(90));
        assert!(progress.is_enough(50), "not for ever");
        assert_eq!(progress.removed, 2 * FRUITLESS as usize);
    }

    #[test]
    fn what_has_just_come_stays() {
        let images = ["young", "aged"].map(image);
        let known = remember(&BTreeMap::new(), &images[1..], &set(&[]), at(0));
        let known = remember(&known, &images, &set(&[]), at(60));
        let of = |now| ids(&plan(&known, &images, &set(&[]), FULL, Policy::default(), at(now))).join(" ");
        assert_eq!((of(119), of(179), of(180)), (String::new(), "aged".to_owned(), "aged young".to_owned()));
    }

    #[test]
    fn images_of_dead_containers_are_in_use() {
        let container = |image: &str, image_id: &str| ContainerStatus {
            id: "c".into(),
            sandbox_id: "s".into(),
            metadata: crate::cri::ContainerMetadata::default(),
            state: crate::cri::ContainerState::Exited,
            created_at: at(0),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: image.into(),
            image_id: image_id.into(),
            image_ref: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            log_path: std::path::PathBuf::new(),
            mounts: Vec::new(),
            resources: crate::cri::Resources::default(),
            user: None,
            stop_signal: String::new(),
        };
        let images = ["a", "b", "c", "d", "e"].map(image);
        let mut containers = [container("whatever", "a"), container("docker.io/library/b:1", "sha256:x")];
        let volume = |image: &str, id: &str| crate::cri::Mount {
            image: Some(crate::cri::ImageVolume { image: image.into(), id: id.into(), ..Default::default() }),
            ..Default::default()
        };
        containers[0].mounts = vec![volume("whatever", "c"), volume("docker.io/library/d:1", "")];
        assert_eq!(in_use(&images, &containers), set(&["a", "b", "c", "d"]));
    }
}
