//! Verbs on this host's own state, which need no daemon: `down`, `reset`, `image`.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::sweep::{is_mounted, remove, unmount_below};
use super::{daemon, host_config, node, pull_bars};
use crate::agent::config::Layout;
use crate::agent::record;
use crate::agent::volume::made;
use crate::cli::args::{HostArgs, ImageVerb, ResetArgs};
use crate::cli::error::{FAILED, Outcome};
use crate::cli::output;
use crate::config::Config;
use crate::cri::{Image, Images as _};
use crate::model::pod::is_terminal;
use crate::network::NodeNetwork as _;

/// What Podbay keeps in its data directory: `reset` removes these and nothing else.
const DATA: [&str; 14] = [
    "store",
    "pki",
    "git",
    "admin.kubeconfig",
    "images",
    "images-store",
    "network",
    "agent",
    "pods",
    "volumes",
    "runtime",
    "runtime-client",
    "logs",
    "seccomp",
];
/// The same for the run directory.
const RUN: [&str; 3] = ["admin.kubeconfig", "pods", "cri.sock"];
/// In both directories.
const LOCKS: [&str; 2] = ["server.lock", "agent.lock"];
/// Further entries of the data directory that hold pods rather than state worth keeping.
const PODS: [&str; 5] = ["pods", "runtime", "runtime-client", "network", LOGS];
const LOGS: &str = "logs";

/// Stops the daemon and the pods of this host. What a later start needs stays, and so do the logs of pods that have ended:
/// none of these is started again.
pub async fn down(config: &Config) -> Outcome {
    daemon::demand_root("down")?;
    daemon::stop(&[&config.run_dir, &config.data_dir])?;
    let _closed = keep_closed(config)?;
    let ended = ended_logs(&Layout { data_dir: config.data_dir.clone() });
    remove_pods(config, &ended).await?;
    output::print("the pods of this host are stopped; the data stays (`podbay up` starts them again)\n");
    Ok(0)
}

/// Removes everything of ours from this host.
pub async fn reset(config: &Config, args: &ResetArgs) -> Outcome {
    daemon::demand_root("reset")?;
    if !args.yes && !confirmed(config, args.keep_data)? {
        anstream::eprintln!("nothing was removed");
        return Ok(FAILED);
    }
    daemon::stop(&[&config.run_dir, &config.data_dir])?;
    let _closed = keep_closed(config)?;
    remove_pods(config, &BTreeSet::new()).await?;
    if !args.keep_data {
        // By the notes of what was made, also where its disk is somebody's.
        made::remove_all(&Layout { data_dir: config.data_dir.clone() }).context("remove the volumes that were made here")?;
    }
    let data: &[&str] = if args.keep_data { &PODS } else { &DATA };
    for name in data {
        let path = config.data_dir.join(name);
        // A disk of its own is somebody's, for other hosts too perhaps.
        if matches!(*name, "images" | "volumes") && is_mounted(&path)? {
            anstream::eprintln!("{}", output::clean(&format!("left: {} is mounted, and not by podbay", path.display())));
        } else {
            remove(&path)?;
        }
    }
    for name in RUN {
        remove(&config.run_dir.join(name))?;
    }
    for dir in [&config.data_dir, &config.run_dir] {
        for name in LOCKS {
            remove(&dir.join(name))?;
        }
        // Left in place when somebody keeps files of their own in it.
        let _ = std::fs::remove_dir(dir);
    }
    let left = if args.keep_data { "; the data stays" } else { " and what Podbay kept here" };
    output::print(&format!("removed the pods of this host{left}\n"));
    Ok(0)
}

/// While this lives no daemon starts: a service manager may be about to start one again.
fn keep_closed(config: &Config) -> anyhow::Result<[daemon::Lock; 2]> {
    let dirs: [&Path; 2] = [&config.run_dir, &config.data_dir];
    Ok([daemon::Lock::take(&dirs, "server")?, daemon::Lock::take(&dirs, "agent")?])
}

fn confirmed(config: &Config, keep_data: bool) -> anyhow::Result<bool> {
    let data = if keep_data { String::new() } else { format!(" and everything in {}", config.data_dir.display()) };
    anstream::eprint!("This stops the daemon and removes all pods of this host{data}. Go on? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Where the logs of pods are that have ended, as far as this host knows.
fn ended_logs(layout: &Layout) -> BTreeSet<PathBuf> {
    let ended = record::load(&layout.records()).into_iter().filter(is_terminal);
    let logs = ended.map(|pod| {
        let [namespace, name, uid] = [pod.metadata.namespace, pod.metadata.name, pod.metadata.uid].map(Option::unwrap_or_default);
        layout.logs(&namespace, &name, &uid)
    });
    logs.filter(|path| path.is_dir()).collect()
}

/// Removes a directory but for these entries; the whole of it where there are none.
fn remove_but(dir: &Path, kept: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    if kept.is_empty() {
        return remove(dir);
    }
    let read = || format!("read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(read)? {
        let path = entry.with_context(read)?.path();
        if !kept.contains(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Pods, their network, their cgroups, their mounts, their logs but for the kept ones. Nothing to remove is no error.
async fn remove_pods(config: &Config, kept_logs: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    node::reset_engine(config).await.context("remove the pods")?;
    let network = node::open_network(config)?;
    network.remove_all().await.context("remove the network")?;
    // Ours are in these alone: a disk that the host has mounted on or in our directories is the host's.
    for dir in [config.data_dir.join("pods"), config.data_dir.join("runtime"), config.run_dir.join("pods")] {
        unmount_below(&dir)?;
    }
    for name in PODS {
        let path = config.data_dir.join(name);
        if name == LOGS { remove_but(&path, kept_logs)? } else { remove(&path)? }
    }
    Ok(())
}

/// `podbay image …` on this host's image store; a running agent sees the change.
pub async fn image(verb: &ImageVerb) -> Outcome {
    match verb {
        ImageVerb::List(host) => {
            let images = open_images(host)?.list().await?;
            output::print(&output::table(&["NAME", "ID", "SIZE"], images.iter().flat_map(image_rows)));
        }
        ImageVerb::Pull { host, reference, quiet } => {
            let id = pull_bars::pull(&open_images(host)?, reference, *quiet).await?;
            let text = if *quiet { format!("{id}\n") } else { format!("{reference}: {id}\n") };
            output::print(&output::clean(&text));
        }
        ImageVerb::Import { host, path, name } => {
            let images = open_images(host)?;
            let (path, name) = (path.clone(), name.clone());
            let names = tokio::task::spawn_blocking(move || images.import(&path, name.as_deref())).await??;
            if names.is_empty() {
                bail!("the archive holds no image with a name: say --name");
            }
            names.iter().for_each(|name| output::print(&output::clean(&format!("{name}\n"))));
        }
        ImageVerb::Remove { host, reference } => {
            let images = open_images(host)?;
            if images.image_status(reference).await?.is_none() {
                bail!("there is no image {reference}");
            }
            images.remove(reference).await?;
            output::print(&output::clean(&format!("{reference} removed\n")));
        }
    }
    Ok(0)
}

/// A row for each of its names: for each tag, and for each digest of a repository of which it has no tag.
fn image_rows(image: &Image) -> Vec<Vec<String>> {
    let is_tagged = |repository: &str| image.tags.iter().any(|tag| tag.rsplit_once(':').is_some_and(|(of, _)| of == repository));
    let alone = image.digests.iter().filter(|digest| !digest.split_once('@').is_some_and(|(of, _)| is_tagged(of)));
    let mut names: Vec<String> = image.tags.iter().chain(alone).cloned().collect();
    if names.is_empty() {
        names.push("<none>".to_owned());
    }
    let id = image.id.trim_start_matches("sha256:");
    let id = id.get(..12).unwrap_or(id);
    let size = format!("{:.1} MiB", image.size_bytes as f64 / f64::from(1 << 20));
    names.into_iter().map(|name| vec![name, id.to_owned(), size.clone()]).collect()
}

fn open_images(host: &HostArgs) -> anyhow::Result<crate::runtime::image::ImageStore> {
    crate::tls::install_provider();
    node::open_images(&host_config(host, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_listed_by_each_of_its_names() {
        let listed = |tags: &[&str], digests: &[&str]| {
            let [tags, digests] = [tags, digests].map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            let image =
                Image { id: "sha256:0123456789abcdef".into(), tags, digests, size_bytes: 3 << 19, user: String::new(), pinned: false };
            let rows = image_rows(&image);
            assert!(rows.iter().all(|row| row[1..] == ["0123456789ab", "1.5 MiB"]), "{rows:?}");
            rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>()
        };
        assert_eq!(listed(&["a.test/bb:v1", "a.test/bb:v2"], &["a.test/bb@sha256:1"]), ["a.test/bb:v1", "a.test/bb:v2"]);
        assert_eq!(
            listed(&["a.test:5000/bb:v1"], &["a.test:5000/bb@sha256:1", "b.test/bb@sha256:1"]),
            ["a.test:5000/bb:v1", "b.test/bb@sha256:1"]
        );
        assert_eq!(listed(&[], &["a.test/bb@sha256:1", "a.test/bb@sha256:2"]), ["a.test/bb@sha256:1", "a.test/bb@sha256:2"]);
        assert_eq!(listed(&[], &[]), ["<none>"]);
    }

    #[test]
    fn logs_stay_with_the_pods_that_have_ended() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().to_owned() };
        assert!(ended_logs(&layout).is_empty());
        remove_but(&layout.all_logs(), &BTreeSet::new()).unwrap();
        for (uid, phase) in [("a", Some("Running")), ("b", Some("Succeeded")), ("c", Some("Failed")), ("d", None), ("e", Some("Failed"))] {
            if let Some(phase) = phase {
                let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "web", "uid": uid}, "status": {"phase": phase}});
                record::save(&layout.records(), &serde_json::from_value(pod).unwrap()).unwrap();
            }
            if uid != "e" {
                std::fs::create_dir_all(layout.logs("web", "p", uid).join("main")).unwrap();
            }
        }
        remove_but(&layout.all_logs(), &ended_logs(&layout)).unwrap();
        let left = std::fs::read_dir(layout.all_logs()).unwrap().map(|entry| entry.unwrap().path());
        assert_eq!(left.collect::<BTreeSet<_>>(), [layout.logs("web", "p", "b"), layout.logs("web", "p", "c")].into());
        remove_but(&layout.all_logs(), &BTreeSet::new()).unwrap();
        assert!(!layout.all_logs().exists());
    }

    #[test]
    fn only_what_is_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        std::fs::write(dir.path().join("store/file"), "x").unwrap();
        std::fs::write(dir.path().join("theirs"), "x").unwrap();
        for name in DATA {
            remove(&dir.path().join(name)).unwrap();
        }
        assert!(!dir.path().join("store").exists());
        assert!(dir.path().join("theirs").exists());
    }
}
