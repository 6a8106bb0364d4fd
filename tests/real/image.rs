//! The image store on a real file system, as root: what honest images become and hostile ones do not.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use podbay::cri::Images;
use podbay::runtime::image::{ImageError, ImageStore, Limits, Options, Refusal, build};

use crate::layer::{Tar, architecture, gzip, image, layout, zstd};
use crate::small_disk::SmallDisk;

struct Scene {
    directory: tempfile::TempDir,
    store: ImageStore,
}

impl Scene {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let store = ImageStore::open(&directory.path().join("store"), options).expect("open the store");
        Self { directory, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Unpacks one layer by itself.
    fn unpack(&self, layer: &[u8]) -> Result<PathBuf, ImageError> {
        let path = self.path("layer.tar");
        fs::write(&path, layer).expect("write the layer");
        self.store.import_rootfs(&path, "test:1")?;
        Ok(self.store.layers_of("test:1").expect("its layers").remove(0))
    }

    /// Unpacks a layer that must be refused, and looks that nothing of it stays.
    fn refused(&self, layer: &[u8]) -> Refusal {
        let error = self.unpack(layer).expect_err("a hostile layer must be refused");
        for directory in ["layers", "tmp", "blobs/sha256", "sizes", "counts"] {
            assert_eq!(listing(&self.path("store").join(directory)), Vec::<String>::new(), "left in {directory}");
        }
        match error {
            ImageError::Refused { why, .. } => why,
            other => panic!("refused for another reason: {other}"),
        }
    }
}

fn listing(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).expect("list").map(|entry| entry.expect("list").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut buffer).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

#[test]
fn modes_owners_times_links_and_attributes_survive() {
    let scene = Scene::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, b'\n', 0, 0, 0, 0, 0, 0];
    let long = format!("etc/{}/{}", "d".repeat(120), "f".repeat(200));
    let layer = Tar::new()
        .raw(b'5', b"./", b"", 0o751, b"")
        .directory("bin/")
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("uid", b"70000"), ("mtime", b"1234567.5")])
        .raw(b'0', b"bin/ping", b"", 0o4755, b"ping")
        .hardlink("bin/ping2", "bin/ping")
        .hardlink("bin/ping3", "/bin/ping")
        .symlink("bin/sh", "/bin/busybox")
        .raw(b'6', b"pipe", b"", 0o600, b"")
        .raw(b'3', b"dev/console", b"", 0o600, b"")
        .pax(&[("path", long.as_bytes())])
        .file("short", "long name")
        .raw(b'5', b"tmp", b"", 0o1777, b"")
        .file("tmp/x", "1")
        .file("tmp/x", "2")
        .finish();
    let root = scene.unpack(&layer).expect("unpack");
    let ping = fs::symlink_metadata(root.join("bin/ping")).expect("ping");
    assert_eq!(
        (ping.mode() & 0o7777, ping.uid(), ping.nlink(), ping.mtime(), ping.mtime_nsec()),
        (0o4755, 70000, 3, 1_234_567, 500_000_000)
    );
    assert_eq!(xattr(&root.join("bin/ping"), "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(fs::symlink_metadata(root.join("bin/ping3")).expect("ping3").ino(), ping.ino());
    assert_eq!(fs::read_link(root.join("bin/sh")).expect("link"), Path::new("/bin/busybox"));
    assert_eq!(fs::symlink_metadata(&root).expect("root").mode() & 0o7777, 0o751);
    assert!(fs::symlink_metadata(root.join("pipe")).expect("pipe").file_type().is_fifo());
    assert!(!root.join("dev/console").exists(), "nodes below /dev are left out");
    assert_eq!(fs::read_to_string(root.join(&long)).expect("long"), "long name");
    let tmp = fs::symlink_metadata(root.join("tmp")).expect("tmp");
    assert_eq!((tmp.permissions().mode() & 0o7777, tmp.mtime()), (0o1777, 1_000_000), "filled after it was made");
    assert_eq!(fs::read_to_string(root.join("tmp/x")).expect("x"), "2", "the last one counts");
}

#[test]
fn whiteouts_are_overlays_own() {
    let scene = Scene::new();
    let layer = Tar::new()
        .file("etc/.wh.gone", "")
        .file("var/.wh..wh..opq", "")
        .file("var/new", "new")
        .directory("both")
        .file("both/kept", "kept")
        .file(".wh.both", "")
        .file(".wh.again", "")
        .directory("again")
        .file("again/kept", "kept")
        .file(".wh.file", "")
        .file("file", "back")
        .file(".wh..wh.plnk", "")
        .finish();
    let root = scene.unpack(&layer).expect("unpack");
    assert!(is_whiteout(&root.join("etc/gone")));
    for opaque in ["var", "both", "again"] {
        assert_eq!(xattr(&root.join(opaque), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]), "{opaque}");
    }
    assert_eq!(fs::read_to_string(root.join("both/kept")).expect("kept"), "kept");
    assert_eq!(fs::read_to_string(root.join("file")).expect("file"), "back");
    assert_eq!(listing(&root), ["again", "both", "etc", "file", "var"]);
}

#[test]
fn layers_stack_as_an_overlay() {
    let scene = Scene::new();
    let lower = Tar::new().directory("a").file("a/one", "1").file("a/two", "2").directory("b").file("b/old", "old").finish();
    let upper = Tar::new().directory("a").file("a/.wh.one", "").file("a/three", "3").file("b/.wh..wh..opq", "").file("b/new", "n").finish();
    let parts = image(&[(gzip(&lower), lower), (zstd(&upper), upper)], &architecture());
    layout(&scene.path("oci"), &[("app:1", &parts)]);
    assert_eq!(scene.store.import(&scene.path("oci"), None).expect("import"), ["docker.io/library/app:1"]);
    let lowers: Vec<String> = scene.store.layers_of("app:1").expect("layers").iter().map(|path| path.display().to_string()).collect();
    let mountpoint = scene.path("mnt");
    fs::create_dir(&mountpoint).expect("make the mount point");
    let data = std::ffi::CString::new(format!("lowerdir={}", lowers.join(":"))).expect("no NUL");
    rustix::mount::mount("overlay", &mountpoint, "overlay", rustix::mount::MountFlags::RDONLY, Some(data.as_c_str())).expect("mount");
    let seen = std::panic::catch_unwind(|| (listing(&mountpoint.join("a")), listing(&mountpoint.join("b"))));
    rustix::mount::unmount(&mountpoint, rustix::mount::UnmountFlags::DETACH).expect("unmount");
    assert_eq!(seen.expect("list"), (vec!["three".to_owned(), "two".to_owned()], vec!["new".to_owned()]));
}

#[test]
fn symlinks_of_the_layer_lead_nowhere_outside() {
    let scene = Scene::new();
    let outside = scene.path("outside");
    fs::create_dir(&outside).expect("make a directory");
    let target = outside.display().to_string();
    // An absolute link, a relative one and a chain: each means a place inside the root.
    let layer = Tar::new()
        .directory(&target)
        .symlink("absolute", &target)
        .file("absolute/a", "caught")
        .symlink("up", "../../../../../../../../../..")
        .file(&format!("up{target}/b"), "caught")
        .symlink("chain", "up")
        .file(&format!("chain{target}/c"), "caught")
        .finish();
    let root = scene.unpack(&layer).expect("unpack");
    assert_eq!(listing(&outside), Vec::<String>::new());
    assert_eq!(listing(&root.join(target.trim_start_matches('/'))), ["a", "b", "c"]);
}

#[test]
fn a_file_replaces_a_symlink_and_does_not_follow_it() {
    let scene = Scene::new();
    let victim = scene.path("victim");
    fs::write(&victim, "untouched").expect("write");
    let layer = Tar::new().symlink("passwd", &victim.display().to_string()).file("passwd", "mine").finish();
    let root = scene.unpack(&layer).expect("unpack");
    assert_eq!(fs::read_to_string(root.join("passwd")).expect("read"), "mine");
    assert_eq!(fs::read_to_string(victim).expect("read"), "untouched");
}

#[test]
fn a_hard_link_to_a_symlink_links_the_link() {
    let scene = Scene::new();
    let victim = scene.path("victim");
    fs::write(&victim, "untouched").expect("write");
    let layer = Tar::new().symlink("link", &victim.display().to_string()).hardlink("hard", "link").file("hard", "mine").finish();
    let root = scene.unpack(&layer).expect("unpack");
    assert_eq!(fs::metadata(&victim).expect("victim").nlink(), 1);
    assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
    assert_eq!(fs::read_to_string(root.join("hard")).expect("read"), "mine");
}

#[test]
fn hostile_entries_are_refused() {
    let long = "n".repeat(300);
    let deep = "d/".repeat(2500);
    for (name, layer, why) in [
        ("dot dot", Tar::new().file("../escape", "x").finish(), Refusal::DotDot),
        ("dot dot inside", Tar::new().file("a/../../escape", "x").finish(), Refusal::DotDot),
        ("dot dot in a whiteout", Tar::new().file("../.wh.x", "").finish(), Refusal::DotDot),
        ("dot dot in a long name", Tar::new().pax(&[("path", b"../escape")]).file("x", "x").finish(), Refusal::DotDot),
        ("hard link out", Tar::new().hardlink("x", "../../etc/passwd").finish(), Refusal::DotDot),
        ("hard link to the host", Tar::new().hardlink("x", "/etc/passwd").finish(), Refusal::DanglingHardlink),
        ("hard link through a symlink", Tar::new().symlink("e", "/etc").hardlink("x", "e/passwd").finish(), Refusal::DanglingHardlink),
        ("hard link to a directory", Tar::new().directory("d").hardlink("x", "d").finish(), Refusal::HardlinkKind),
        ("hard link to the root", Tar::new().hardlink("x", "/").finish(), Refusal::HardlinkKind),
        ("hard link to a whiteout", Tar::new().file(".wh.w", "").hardlink("x", "w").finish(), Refusal::HardlinkKind),
        ("magic link", Tar::new().symlink("p", "/proc/self/root").file("p/tmp/x", "x").finish(), Refusal::Parent),
        ("file as a parent", Tar::new().file("f", "").file("f/x", "x").finish(), Refusal::Parent),
        ("loop", Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "x").finish(), Refusal::Parent),
        ("whiteout of nothing", Tar::new().file("a/.wh.", "").finish(), Refusal::Whiteout),
        ("whiteout of the parent", Tar::new().file("a/.wh...", "").finish(), Refusal::Whiteout),
        ("device", Tar::new().raw(b'3', b"null", b"", 0o666, b"").finish(), Refusal::Device),
        ("block device", Tar::new().raw(b'4', b"etc/sda", b"", 0o666, b"").finish(), Refusal::Device),
        ("NUL in a name", Tar::new().pax(&[("path", b"a\0b")]).file("x", "x").finish(), Refusal::Nul),
        ("NUL in a link", Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("x", "x").finish(), Refusal::Nul),
        ("long name", Tar::new().pax(&[("path", long.as_bytes())]).file("x", "x").finish(), Refusal::LongName),
        ("long path", Tar::new().pax(&[("path", deep.as_bytes())]).directory("x").finish(), Refusal::LongName),
        ("overlay attribute", Tar::new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/")]).file("x", "").finish(), Refusal::Xattr),
        (
            "overlay attribute of a user",
            Tar::new().pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")]).directory("x").finish(),
            Refusal::Xattr,
        ),
        ("owner that means nobody", Tar::new().pax(&[("uid", b"4294967295")]).file("x", "").finish(), Refusal::Owner),
        ("owner beyond 32 bits", Tar::new().pax(&[("gid", b"4294967296")]).file("x", "").finish(), Refusal::Owner),
        ("root as a symlink", Tar::new().symlink(".", "/etc").finish(), Refusal::Root),
        ("sparse", Tar::new().raw(b'S', b"x", b"", 0o644, b"").finish(), Refusal::Sparse),
        ("sparse by extended header", Tar::new().pax(&[("GNU.sparse.major", b"1")]).file("x", "").finish(), Refusal::Sparse),
        ("unknown type", Tar::new().raw(b'Z', b"x", b"", 0o644, b"").finish(), Refusal::Kind),
        (
            "damaged extended header",
            Tar::new().raw(b'x', b"p", b"", 0o644, b"999 path=x\n").file("x", "").finish(),
            Refusal::ExtendedHeader,
        ),
        ("huge extended header", huge(b'x'), Refusal::ExtendedHeader),
        ("huge long name", huge(b'L'), Refusal::ExtendedHeader),
        ("huge file that does not follow", huge(b'0'), Refusal::Truncated),
        ("damaged header", damaged(), Refusal::Header),
    ] {
        assert_eq!(Scene::new().refused(&layer), why, "{name}");
    }
}

/// A header that announces eight gigabytes less one.
fn huge(flag: u8) -> Vec<u8> {
    let mut tar = Tar::new();
    tar.header(flag, b"x", b"", 0o644, 0o77_777_777_777);
    tar.unfinished()
}

fn damaged() -> Vec<u8> {
    let mut bytes = Tar::new().file("x", "").finish();
    bytes[0] = b'y';
    bytes
}

#[test]
fn bombs_are_refused() {
    let limits = Limits { entries: 10, layer_bytes: 1 << 20, archive_bytes: 1 << 20, reserve: 0 };
    let scene = || Scene::with(Options { limits: limits.clone(), ..Options::default() });
    let many = (0..11).fold(Tar::new(), |tar, index| tar.file(&format!("f{index}"), "")).finish();
    assert_eq!(scene().refused(&many), Refusal::Entries);
    let zeros = Tar::new().raw(b'0', b"zeros", b"", 0o644, &vec![0; 4 << 20]).finish();
    assert_eq!(scene().refused(&gzip(&zeros)), Refusal::Bytes);
    assert_eq!(scene().refused(&zstd(&zeros)), Refusal::Bytes);
    let mut trailing = Tar::new().file("x", "x").finish();
    trailing.resize(4 << 20, 0);
    assert_eq!(scene().refused(&gzip(&trailing)), Refusal::Bytes, "behind the end of the archive");
    let small = scene();
    fs::write(small.path("bomb.tar.gz"), gzip(&vec![0; 4 << 20])).expect("write");
    let error = small.store.import(&small.path("bomb.tar.gz"), None).expect_err("too large");
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
}

#[test]
fn a_layer_does_not_take_the_last_inodes_of_a_disk() {
    let disk = SmallDisk::made_with(64 << 20, &["-N", "17000"]);
    let limits = Limits { reserve: 0, ..Limits::default() };
    let store = ImageStore::open(&disk.mount.join("store"), Options { limits, ..Options::default() }).expect("open the store");
    let inodes = || rustix::fs::statvfs(&disk.mount).expect("look at the disk");
    let all = inodes().f_files;
    let many = (0..all).fold(Tar::new(), |tar, index| tar.file(&format!("d{}/f{index}", index % 64), "")).finish();
    let file = tempfile::NamedTempFile::new().expect("make a file");
    fs::write(file.path(), gzip(&many)).expect("write the layer");
    let before = inodes().f_ffree;
    let error = store.import_rootfs(file.path(), "many:1").expect_err("more files than the disk has room for").to_string();
    assert!(error.contains("inodes are free"), "{error}");
    assert_eq!(inodes().f_ffree, before, "nothing of it stays");
}

#[tokio::test]
async fn a_layout_is_imported_listed_and_removed() {
    let scene = Scene::new();
    let shared = Tar::new().file("shared", "s").finish();
    let own = Tar::new().file("own", "o").finish();
    let one = image(&[(gzip(&shared), shared.clone())], &architecture());
    let two = image(&[(gzip(&shared), shared), (gzip(&own), own)], &architecture());
    layout(&scene.path("oci"), &[("one:1", &one), ("ghcr.io/me/two:2", &two)]);
    let names = scene.store.import(&scene.path("oci"), None).expect("import");
    assert_eq!(names, ["docker.io/library/one:1", "ghcr.io/me/two:2"]);
    assert_eq!(scene.store.import(&scene.path("oci"), None).expect("import again"), names);
    let images = scene.store.list().await.expect("list");
    assert_eq!(images.len(), 2);
    let found = scene.store.image_status("one:1").await.expect("status").expect("one");
    assert_eq!((found.tags.as_slice(), found.user.as_str()), (&["docker.io/library/one:1".to_owned()][..], "1000:1000"));
    assert_eq!(scene.store.image_status(&found.id).await.expect("status"), Some(found.clone()));
    assert_eq!(scene.store.image_status(&found.digests[0]).await.expect("by digest"), Some(found.clone()));
    assert_eq!(scene.store.image_status("other").await.expect("status"), None);
    let config = scene.store.find("one:1").expect("find").expect("one").config;
    assert_eq!(config.config().as_ref().and_then(|config| config.env().clone()), Some(vec!["A=b".to_owned()]));

    assert_eq!(listing(&scene.path("store/layers")).len(), 2);
    scene.store.remove("one:1").await.expect("remove");
    assert_eq!(listing(&scene.path("store/layers")).len(), 2, "the other image needs both");
    assert_eq!(scene.store.layers_of("ghcr.io/me/two:2").expect("layers").len(), 2);
    scene.store.remove("one:1").await.expect("removing what is not there is no error");
    scene.store.remove("ghcr.io/me/two:2").await.expect("remove");
    for directory in ["layers", "sizes", "counts", "blobs/sha256"] {
        assert_eq!(listing(&scene.path("store").join(directory)), Vec::<String>::new(), "{directory}");
    }
}

#[tokio::test]
async fn the_files_of_a_layer_are_counted_once() {
    let scene = Scene::new();
    scene.unpack(&Tar::new().directory("d/").file("d/x", "x").file("y", "y").finish()).expect("unpack");
    let counts = scene.path("store/counts");
    let kept = counts.join(&listing(&counts)[0]);
    assert_eq!(fs::read_to_string(&kept).expect("the count"), "4");
    let files = || async { scene.store.fs_info().await.expect("usage").inodes_used };
    assert_eq!(files().await, 4);
    fs::write(&kept, "77").expect("another count");
    assert_eq!(files().await, 77, "the layer is not looked at");
    // A layer of an earlier version, and one whose count a crash has cut.
    for lost in [None, Some("")] {
        fs::remove_file(&kept).expect("remove");
        if let Some(text) = lost {
            fs::write(&kept, text).expect("half a count");
        }
        assert_eq!(files().await, 4);
        assert_eq!(fs::read_to_string(&kept).expect("the count"), "4");
    }
    assert_eq!(scene.store.place().await.expect("place"), scene.path("store"));
}

#[tokio::test]
async fn a_held_image_keeps_its_layers_until_it_is_released() {
    let scene = Scene::new();
    let root = scene.unpack(&Tar::new().file("x", "x").finish()).expect("unpack");
    let id = scene.store.find("test:1").expect("find").expect("image").id;
    scene.store.hold("container-1", &id).expect("hold");
    scene.store.hold("container-2", &id).expect("hold");
    scene.store.remove("test:1").await.expect("remove");
    assert_eq!(scene.store.image_status("test:1").await.expect("status"), None);
    // As after a restart.
    let again = ImageStore::open(&scene.path("store"), Options::default()).expect("open again");
    assert!(root.join("x").exists());
    assert_eq!(again.image_status(&id.to_string()).await.expect("by id"), None, "kept for whoever has it, and there for nobody else");
    assert_eq!(again.list().await.expect("list"), []);
    again.release_others(|holder| holder == "container-2").expect("release");
    assert!(root.join("x").exists());
    again.release("container-2").expect("release");
    assert!(!root.exists());
    again.release("container-2").expect("releasing twice is no error");
    assert!(again.hold("container-3", &id).is_err(), "the image is gone");
    assert!(again.hold("../x", &id).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_gone_when_any_of_its_removers_says_so() {
    let scene = Scene::new();
    for round in 0..10 {
        scene.unpack(&Tar::new().file("x", &format!("{round}")).finish()).expect("unpack");
        let id = scene.store.find("test:1").expect("find").expect("image").id.to_string();
        let remove = |store: ImageStore, id: String| async move {
            store.remove(&id).await.expect("remove");
            store.image_status(&id).await.expect("status")
        };
        let all: Vec<_> = (0..5).map(|_| tokio::spawn(remove(scene.store.clone(), id.clone()))).collect();
        for one in all {
            assert_eq!(one.await.expect("removed"), None);
        }
    }
}

#[tokio::test]
async fn an_image_is_found_by_the_beginning_of_its_id() {
    let scene = Scene::new();
    scene.unpack(&Tar::new().file("x", "x").finish()).expect("unpack");
    let id = scene.store.find("test:1").expect("find").expect("image").id.to_string();
    let digits = id.strip_prefix("sha256:").expect("a digest");
    for part in [&digits[..13], &digits[..40], digits, &id[..20], &id] {
        let found = scene.store.image_status(part).await.expect("status").expect(part);
        assert_eq!(found.id, id);
    }
    // Too little of it is a name.
    assert_eq!(scene.store.image_status(&digits[..8]).await.expect("status"), None);
    scene.store.remove(&digits[..13]).await.expect("remove");
    assert_eq!(scene.store.list().await.expect("list"), []);
}

#[test]
fn a_crash_leaves_nothing_after_the_next_start() {
    let scene = Scene::new();
    scene.unpack(&Tar::new().file("x", "x").finish()).expect("unpack");
    let store = scene.path("store");
    fs::create_dir_all(store.join("tmp/layer-1/etc")).expect("half a layer");
    fs::write(store.join("tmp/file-1"), "{").expect("half an index");
    let orphan = "ab".repeat(32);
    fs::create_dir(store.join("layers").join(&orphan)).expect("a layer of no image");
    fs::write(store.join("blobs/sha256").join(&orphan), "").expect("a blob of no image");
    let again = ImageStore::open(&store, Options::default()).expect("open again");
    assert_eq!(listing(&store.join("tmp")), Vec::<String>::new());
    assert_eq!(listing(&store.join("layers")).len(), 1);
    assert_eq!(listing(&store.join("blobs/sha256")).len(), 1);
    assert!(again.find("test:1").expect("find").is_some());
}

#[test]
fn a_tag_moves_and_the_old_image_goes_with_its_last_name() {
    let scene = Scene::new();
    let first = scene.unpack(&Tar::new().file("x", "1").finish()).expect("unpack");
    let second = scene.unpack(&Tar::new().file("x", "2").finish()).expect("unpack");
    assert_ne!(first, second);
    assert!(!first.exists());
}

#[test]
fn an_image_that_an_index_names_again_is_imported_once() {
    let scene = Scene::new();
    let one = image(&[], &architecture());
    layout(&scene.path("oci"), &[("one:1", &one), ("one:2", &one), ("one:1", &one), ("one:1", &one)]);
    let names = scene.store.import(&scene.path("oci"), None).expect("import");
    assert_eq!(names, ["docker.io/library/one:1", "docker.io/library/one:2"]);
}

#[test]
fn a_docker_archive_is_imported() {
    let scene = Scene::new();
    let layer = Tar::new().file("hello", "world").finish();
    let parts = image(&[(layer.clone(), layer.clone())], &architecture());
    let manifest = r#"[{"Config":"c.json","RepoTags":["app:1","app:2"],"Layers":["l/layer.tar"]}]"#;
    let archive = Tar::new()
        .raw(b'0', b"blob/layer.tar", b"", 0o644, &layer)
        .symlink("l/layer.tar", "../blob/layer.tar")
        .file("c.json", &parts.config)
        .file("manifest.json", manifest)
        .finish();
    for (file, bytes) in [("a.tar", archive.clone()), ("a.tar.gz", gzip(&archive)), ("a.tar.zst", zstd(&archive))] {
        fs::write(scene.path(file), bytes).expect("write");
        let names = scene.store.import(&scene.path(file), None).expect(file);
        assert_eq!(names, ["docker.io/library/app:1", "docker.io/library/app:2"]);
    }
    let root = scene.store.layers_of("app:2").expect("layers").remove(0);
    assert_eq!(fs::read_to_string(root.join("hello")).expect("read"), "world");
    assert_eq!(scene.store.import_stream(archive.as_slice(), Some("other:3")).expect("stream"), ["docker.io/library/other:3"]);
}

#[tokio::test]
async fn a_name_that_an_archive_says_often_is_told_once_and_is_its_last_images() {
    let scene = Scene::new();
    let layer = Tar::new().file("a", "1").finish();
    let other = Tar::new().file("a", "2").finish();
    let one = image(&[(gzip(&layer), layer.clone())], &architecture());
    let two = image(&[(gzip(&other), other)], &architecture());
    layout(&scene.path("oci"), &[("app:1", &one), ("app:2", &one), ("app:1", &one), ("app:1", &two)]);
    let names = scene.store.import(&scene.path("oci"), None).expect("import");
    assert_eq!(names, ["docker.io/library/app:1", "docker.io/library/app:2"]);
    let root = scene.store.layers_of("app:1").expect("layers").remove(0);
    assert_eq!(fs::read_to_string(root.join("a")).expect("read"), "2");
    let docker = image(&[(layer.clone(), layer.clone())], &architecture());
    let archive = Tar::new()
        .raw(b'0', b"layer.tar", b"", 0o644, &layer)
        .file("c.json", &docker.config)
        .file("manifest.json", r#"[{"Config":"c.json","RepoTags":["app:3","app:3"],"Layers":["layer.tar"]}]"#)
        .finish();
    assert_eq!(scene.store.import_stream(archive.as_slice(), None).expect("stream"), ["docker.io/library/app:3"]);
}

#[test]
fn what_is_not_what_it_says_is_refused() {
    let scene = Scene::new();
    let layer = Tar::new().file("x", "x").finish();
    let other = Tar::new().file("x", "y").finish();
    // The right blob, but another content than the configuration says.
    let wrong = image(&[(gzip(&other), layer.clone())], &architecture());
    layout(&scene.path("wrong"), &[("a:1", &wrong)]);
    assert!(matches!(scene.store.import(&scene.path("wrong"), None), Err(ImageError::Digest { .. })));
    // A blob that was changed.
    let mut parts = image(&[(gzip(&layer), layer.clone())], &architecture());
    layout(&scene.path("changed"), &[("a:1", &parts)]);
    let blob = podbay::runtime::image::Digest::of(&parts.layers[0]);
    fs::write(scene.path("changed/blobs/sha256").join(blob.hex()), gzip(&other)).expect("write");
    assert!(matches!(scene.store.import(&scene.path("changed"), None), Err(ImageError::Digest { .. })));
    // Another platform.
    parts = image(&[(gzip(&layer), layer.clone())], "s390x");
    layout(&scene.path("platform"), &[("a:1", &parts)]);
    let error = scene.store.import(&scene.path("platform"), None).expect_err("another platform");
    assert!(error.to_string().contains("linux/s390x"), "{error}");
    // A blob that is a link to a file of the host.
    parts = image(&[(gzip(&layer), layer)], &architecture());
    layout(&scene.path("link"), &[("a:1", &parts)]);
    let blob = scene.path("link/blobs/sha256").join(podbay::runtime::image::Digest::of(&parts.layers[0]).hex());
    fs::remove_file(&blob).expect("remove");
    std::os::unix::fs::symlink("/etc/passwd", &blob).expect("link");
    assert!(scene.store.import(&scene.path("link"), None).is_err());
    assert_eq!(listing(&scene.path("store/layers")), Vec::<String>::new());
}

#[test]
fn an_image_is_built_from_a_directory_and_found_in_the_images_directory() {
    let scene = Scene::new();
    let root = scene.path("root");
    fs::create_dir_all(root.join("bin")).expect("make");
    fs::write(root.join("bin/busybox"), "#!").expect("write");
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).expect("mode");
    fs::hard_link(root.join("bin/busybox"), root.join("bin/ls")).expect("link");
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("link");
    fs::create_dir(scene.path("images")).expect("make");
    let config = oci_spec::image::ConfigBuilder::default().cmd(vec!["/bin/sh".to_owned()]).build().expect("config");
    let archive = scene.path("images/busybox.tar");
    let digest = build::from_directory(&root, "busybox:demo", config.clone(), &archive).expect("build");
    assert_eq!(digest, build::from_directory(&root, "busybox:demo", config, &scene.path("again.tar")).expect("build"), "same bytes");
    fs::write(scene.path("images/broken.tar"), "no tar").expect("write");
    let outcomes = scene.store.import_dir(&scene.path("images")).expect("import");
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes[0].1.is_err());
    assert_eq!(outcomes[1].1.as_ref().expect("busybox"), &["docker.io/library/busybox:demo"]);
    let image = scene.store.find("busybox:demo").expect("find").expect("image");
    let sh = image.layers[0].join("bin/sh");
    assert_eq!(fs::read_to_string(&sh).expect("read"), "#!");
    assert_eq!(fs::metadata(sh).expect("meta").nlink(), 2);
    assert_eq!(image.summary.digests, [format!("docker.io/library/busybox@{digest}")]);
    scene.store.import_rootfs(&root, "plain:1").expect("rootfs");
    assert!(scene.store.layers_of("plain:1").expect("layers")[0].join("bin/ls").exists());
    assert!(scene.store.import_dir(&scene.path("nowhere")).expect("no directory").is_empty());
}

#[test]
fn the_demos_image_is_one() {
    let scene = Scene::new();
    let archive = scene.path("busybox.tar");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/build-image");
    let status = std::process::Command::new(script).arg("podbay.local/busybox:demo").arg(&archive).status().expect("run build-image");
    assert!(status.success());
    assert_eq!(scene.store.import(&archive, None).expect("import"), ["podbay.local/busybox:demo"]);
    let root = scene.store.layers_of("podbay.local/busybox:demo").expect("layers").remove(0);
    assert_eq!(fs::read_link(root.join("bin/sh")).expect("applet"), Path::new("busybox"));
}
