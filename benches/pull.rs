//! Pull and unpack of an image of about 250 MB in some 13,000 files, from Debian's docker-registry on the loopback:
//! podbay beside podman, containerd, and the floor (`gzip -dc | tar x`), turn by turn, each time into a fresh
//! directory on a disk that has nothing left to write.
//!
//! The files are this host's own, below /usr: of real sizes, and as compressible as programs and texts are.
#![allow(clippy::unwrap_used)] // a panic is how a bench fails

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use podbay::runtime::image::{Digest, ImageStore, Options, Platform, RegistryOptions};
use serde_json::json;
use sha2::{Digest as _, Sha256};

const ROUNDS: usize = 3;
const FILES: usize = 13_500;
const BYTES: u64 = 267 << 20;
/// Larger files would make the mean too large.
const LARGEST: u64 = 8 << 20;
/// Of the files, lowest layer first.
const SHARES: [usize; 3] = [60, 30, 10];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Not in memory: what a disk costs is part of it.
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let registry = Registry::start(place.path());
    let image = format!("{}/bench:1", registry.address);
    let layers = build(place.path());
    runtime.block_on(push(&image, &layers));
    let mut rows: [(&str, Vec<Duration>); 4] =
        [("podbay", vec![]), ("podman", vec![]), ("containerd", vec![]), ("gzip -dc | tar x", vec![])];
    for round in 0..ROUNDS {
        for (name, times) in &mut rows {
            let fresh = place.path().join(format!("{}-{round}", name.split(' ').next().unwrap()));
            fs::create_dir(&fresh).unwrap();
            nix::unistd::sync();
            times.push(match *name {
                "podbay" => podbay(&runtime, &fresh, &image, &registry.address),
                "podman" => podman(&fresh, &image),
                "containerd" => containerd(&fresh, &image),
                _ => floor(&fresh, &layers),
            });
        }
    }
    println!("pull and unpack, {ROUNDS} rounds, milliseconds: least, median (ratio of medians to podbay's)");
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_millis()
    };
    let ours = median(&mut rows[0].1);
    for (name, times) in &mut rows {
        let middle = median(times);
        println!("  {name:<18} {:>6} {middle:>6}   {:.2}", times[0].as_millis(), middle as f64 / ours as f64);
    }
}

fn podbay(runtime: &tokio::runtime::Runtime, fresh: &Path, image: &str, address: &str) -> Duration {
    let plain = RegistryOptions { plain_http: true, ..RegistryOptions::default() };
    let options = Options { registries: [(address.to_owned(), plain)].into(), ..Options::default() };
    let start = Instant::now();
    let store = ImageStore::open(fresh, options).unwrap();
    runtime.block_on(store.fetch(&image.parse().unwrap(), None)).unwrap();
    start.elapsed()
}

fn podman(fresh: &Path, image: &str) -> Duration {
    let start = Instant::now();
    run(Command::new("podman")
        .args(["--storage-driver", "overlay", "--root"])
        .arg(fresh.join("root"))
        .arg("--runroot")
        .arg(fresh.join("run"))
        .args(["pull", "--quiet", "--tls-verify=false", image]));
    let took = start.elapsed();
    // Its storage is mounted onto itself.
    let _ = Command::new("umount").arg(fresh.join("root/overlay")).stderr(Stdio::null()).status();
    took
}

fn containerd(fresh: &Path, image: &str) -> Duration {
    let socket = fresh.join("socket");
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {socket:?}\n",
        fresh.join("root"),
        fresh.join("state")
    );
    let file = fresh.join("config.toml");
    fs::write(&file, config).unwrap();
    let daemon = Command::new("containerd").arg("--config").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _daemon = Killed(daemon.expect("start containerd (tests/setup bench)"));
    let begun = Instant::now();
    while !Command::new("ctr")
        .arg("--address")
        .arg(&socket)
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
    {
        assert!(begun.elapsed() < Duration::from_secs(30), "containerd does not answer");
    }
    let start = Instant::now();
    run(Command::new("ctr").arg("--address").arg(&socket).args(["images", "pull", "--plain-http", "--snapshotter", "overlayfs", image]));
    start.elapsed()
}

fn floor(fresh: &Path, layers: &[Layer]) -> Duration {
    let start = Instant::now();
    for layer in layers {
        let script = "gzip -dc \"$0\" | tar -x -C \"$1\"";
        run(Command::new("sh").args(["-c", script]).arg(&layer.file).arg(fresh));
    }
    start.elapsed()
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Registry {
    _child: Killed,
    address: String,
}

impl Registry {
    fn start(place: &Path) -> Self {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = json!({
            "version": "0.1", "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": place.join("registry")}}, "http": {"addr": address},
        });
        let file = place.join("registry.yml");
        fs::write(&file, config.to_string()).unwrap();
        let child = Command::new("docker-registry").arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = Killed(child.expect("start docker-registry (tests/setup bench)"));
        let begun = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "docker-registry does not answer");
            std::thread::yield_now();
        }
        Self { _child: child, address }
    }
}

struct Layer {
    file: PathBuf,
    diff_id: String,
}

/// Files of this host in an order that only their names decide.
fn choose() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = ["/usr/bin", "/usr/lib", "/usr/share"].iter().map(PathBuf::from).collect();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.is_file() && meta.size() <= LARGEST {
                found.push((Sha256::digest(entry.path().as_os_str().as_encoded_bytes()), entry.path(), meta.size()));
            }
        }
    }
    found.sort();
    // Whatever this host has, the mean is that of the whole: a file that is too large for now is passed over.
    let (mut chosen, mut bytes) = (Vec::new(), 0);
    for (_, path, size) in found {
        let budget = BYTES * (chosen.len() as u64 + 1) / FILES as u64 + LARGEST;
        if bytes + size <= budget && chosen.len() < FILES {
            bytes += size;
            chosen.push(path);
        }
    }
    chosen
}

fn build(place: &Path) -> Vec<Layer> {
    let mut files = choose();
    let all = files.len();
    let mut layers = Vec::new();
    let mut sum = 0;
    for (index, share) in SHARES.iter().enumerate() {
        let rest = files.split_off(files.len().min(all * share / 100));
        let mut plain = tar::Builder::new(Vec::new());
        plain.follow_symlinks(false);
        for file in &files {
            plain.append_path_with_name(file, file.strip_prefix("/").unwrap()).unwrap();
        }
        let plain = plain.into_inner().unwrap();
        sum += plain.len();
        let file = place.join(format!("layer-{index}.tar.gz"));
        let mut gzip = flate2::write::GzEncoder::new(fs::File::create(&file).unwrap(), flate2::Compression::default());
        gzip.write_all(&plain).unwrap();
        gzip.finish().unwrap();
        layers.push(Layer { file, diff_id: Digest::of(&plain).to_string() });
        files = rest;
    }
    let compressed: u64 = layers.iter().map(|layer| layer.file.metadata().unwrap().len()).sum();
    println!("image: {all} files, {} MB, {} MB compressed, {} layers", sum / 1_000_000, compressed / 1_000_000, layers.len());
    layers
}

async fn push(image: &str, layers: &[Layer]) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
    let reference: Reference = image.parse().unwrap();
    client.auth(&reference, &RegistryAuth::Anonymous, RegistryOperation::Push).await.unwrap();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = json!({
        "os": "linux", "architecture": Platform::host().architecture, "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let mut descriptors = Vec::new();
    let kinds = std::iter::once(("config.v1+json", config.to_string().into_bytes()));
    let blobs = kinds.chain(layers.iter().map(|layer| ("layer.v1.tar+gzip", fs::read(&layer.file).unwrap())));
    for (kind, blob) in blobs {
        let digest = Digest::of(&blob).to_string();
        descriptors.push(json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": blob.len()}));
        client.push_blob(&reference, blob, &digest).await.unwrap();
    }
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": descriptors[0], "layers": descriptors[1..]});
    let header = http::HeaderValue::from_static(media_type);
    client.push_manifest_raw(&reference, manifest.to_string().into_bytes(), header).await.unwrap();
}
