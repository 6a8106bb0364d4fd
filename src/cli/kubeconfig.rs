//! Which kubeconfig a client uses; `podbay kubeconfig` prints the administrator's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use kube::config::Kubeconfig;
use serde_json::Value;

use super::args::{ClientArgs, HostArgs, KubeconfigArgs};
use super::error::Outcome;
use super::output;
use crate::config::{Config, DEFAULT_DATA_DIR, DEFAULT_RUN_DIR, Flags};
use crate::tls::kubeconfig::read;

/// The kubeconfig the daemon leaves in its data directory, and links in the default run directory.
pub const ADMIN: &str = "admin.kubeconfig";

/// Prints the administrator's kubeconfig, as `kubectl config view --raw` would.
///
/// # Errors
/// There is none, it cannot be read, or `--server` is no address.
pub fn run(args: &KubeconfigArgs) -> Outcome {
    let file = of_host(&args.host)?;
    let text = std::fs::read_to_string(&file).with_context(|| format!("read kubeconfig {}", file.display()))?;
    let mut config: Value = serde_json::from_str(&text).map_err(|_| anyhow!("{} is not as the server writes it", file.display()))?;
    if let Some(url) = &args.server {
        config["clusters"][0]["cluster"]["server"] = address(url)?.into();
    }
    output::print(&serde_yaml::to_string(&config)?);
    Ok(0)
}

/// Where others reach the server: by TLS only, and the name in its certificate is said beside the address.
fn address(url: &str) -> anyhow::Result<String> {
    let is_good = |uri: &Uri| uri.scheme_str() == Some("https") && uri.authority().is_some_and(|it| !it.as_str().contains('@'));
    match url.parse::<Uri>() {
        Ok(uri) if is_good(&uri) => Ok(url.trim_end_matches('/').to_owned()),
        _ => bail!("--server {url:?}: not of the form https://HOST:PORT"),
    }
}

/// The file of the daemon whose directories or configuration are named, else of the one the client verbs find.
fn of_host(host: &HostArgs) -> anyhow::Result<PathBuf> {
    if let (None, None, None) = (&host.config, &host.data_dir, &host.run_dir)
        && let Ok(file) = of_daemon(&ClientArgs::default())
    {
        return Ok(file);
    }
    let flags = Flags { config: host.config.clone(), data_dir: host.data_dir.clone(), run_dir: host.run_dir.clone(), ..Flags::default() };
    let data_dir = Config::load(&flags)?.data_dir;
    of_daemon(&ClientArgs { data_dir: Some(data_dir), ..ClientArgs::default() })
}

/// The kubeconfig that the flags, the environment or the daemon on this host name, and what to call it.
///
/// # Errors
/// There is none, or it cannot be read.
pub(super) fn load(args: &ClientArgs) -> anyhow::Result<(Kubeconfig, String)> {
    match (&args.kubeconfig, listed(std::env::var_os("KUBECONFIG").as_deref())) {
        (Some(file), _) => Ok((read(file)?, file.display().to_string())),
        // Who names a daemon's file means that daemon, whatever the environment says.
        (None, list) if list.is_empty() || args.config.is_some() => {
            let file = of_daemon(args)?;
            Ok((read(&file)?, file.display().to_string()))
        }
        (None, list) => Ok((merged(&list)?, list.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "))),
    }
}

/// The files of `$KUBECONFIG`, which is a list as `$PATH` is one. Empty is unset, as kubectl takes it
/// (Kubernetes: Concepts, Organizing Cluster Access Using kubeconfig Files).
fn listed(variable: Option<&OsStr>) -> Vec<PathBuf> {
    let all = variable.into_iter().flat_map(|list| std::env::split_paths(list).collect::<Vec<_>>());
    all.filter(|file| !file.as_os_str().is_empty()).collect()
}

/// Where several files set the same, the first one's counts; of several, those that do not exist are passed over.
fn merged(files: &[PathBuf]) -> anyhow::Result<Kubeconfig> {
    let mut whole: Option<Kubeconfig> = None;
    for file in files {
        if files.len() > 1 && matches!(file.try_exists(), Ok(false)) {
            continue;
        }
        let next = read(file)?;
        whole = Some(match whole {
            Some(before) => before.merge(next).with_context(|| format!("merge kubeconfig {}", file.display()))?,
            None => next,
        });
    }
    whole.ok_or_else(|| anyhow!("no file that KUBECONFIG names is there: {}", std::env::join_paths(files).unwrap_or_default().display()))
}

fn of_daemon(args: &ClientArgs) -> anyhow::Result<PathBuf> {
    let places = match (&args.config, &args.data_dir) {
        (Some(_), _) => {
            let flags = Flags { config: args.config.clone(), data_dir: args.data_dir.clone(), ..Flags::default() };
            vec![Config::load(&flags)?.data_dir.join(ADMIN)]
        }
        (None, Some(dir)) => vec![dir.join(ADMIN)],
        (None, None) => vec![Path::new(DEFAULT_RUN_DIR).join(ADMIN), Path::new(DEFAULT_DATA_DIR).join(ADMIN)],
    };
    // Whether it may be read is told by reading it.
    let there = |path: &&PathBuf| !matches!(path.try_exists(), Ok(false));
    places.iter().find(there).cloned().ok_or_else(|| {
        anyhow!(
            "no daemon on this host ({} is not there): start one with `podbay up`, or say --kubeconfig, --config or --data-dir",
            places[places.len() - 1].display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
        let file = dir.join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn the_variable_is_a_list_and_empty_is_unset() {
        let rows: [(Option<&str>, &[&str]); 5] =
            [(None, &[]), (Some(""), &[]), (Some(":"), &[]), (Some("/a"), &["/a"]), (Some("/a::/b"), &["/a", "/b"])];
        for (variable, files) in rows {
            assert_eq!(listed(variable.map(OsStr::new)), files.iter().map(PathBuf::from).collect::<Vec<_>>(), "{variable:?}");
        }
    }

    #[test]
    fn the_daemon_is_found_by_its_file_and_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let config = file(dir.path(), "podbay.toml", &format!("data-dir = {:?}\n", dir.path().join("one")));
        for place in ["one", "two"] {
            std::fs::create_dir(dir.path().join(place)).unwrap();
            file(dir.path(), &format!("{place}/{ADMIN}"), "");
        }
        let found = |config: Option<&PathBuf>, data_dir: Option<&str>| {
            let data_dir = data_dir.map(|name| dir.path().join(name));
            of_daemon(&ClientArgs { config: config.cloned(), data_dir, ..ClientArgs::default() }).unwrap()
        };
        assert_eq!(found(Some(&config), None), dir.path().join("one").join(ADMIN));
        assert_eq!(found(None, Some("two")), dir.path().join("two").join(ADMIN));
        assert_eq!(found(Some(&config), Some("two")), dir.path().join("two").join(ADMIN), "a flag wins over the file");
    }

    #[test]
    fn of_a_list_the_first_counts_and_what_is_missing_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let one = file(dir.path(), "one", "current-context: one\ncontexts: [{name: one, context: {cluster: c}}]\n");
        let two = file(dir.path(), "two", "current-context: two\ncontexts: [{name: two, context: {cluster: c}}]\n");
        let gone = dir.path().join("gone");
        let all = merged(&[gone.clone(), one, two]).unwrap();
        assert_eq!(all.current_context.as_deref(), Some("one"));
        assert_eq!(all.contexts.iter().map(|context| context.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        let unset = file(dir.path(), "unset", "current-context: \"\"\nclusters: [{name: c, cluster: {certificate-authority: ca.pem}}]\n");
        let named = file(dir.path(), "named", "current-context: named\nusers: [{name: u, user: {client-key: /k.pem, tokenFile: t}}]\n");
        let both = merged(&[unset, named]).unwrap();
        assert_eq!(both.current_context.as_deref(), Some("named"));
        let path = |name: &str| Some(dir.path().join(name).display().to_string());
        assert_eq!(both.clusters[0].cluster.as_ref().unwrap().certificate_authority, path("ca.pem"));
        let user = both.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!((user.client_key.as_deref(), &user.token_file), (Some("/k.pem"), &path("t")));
        let why = |files: &[PathBuf]| merged(files).unwrap_err().to_string();
        assert!(why(&[gone.clone(), gone.clone()]).starts_with("no file that KUBECONFIG names is there: "));
        assert!(why(std::slice::from_ref(&gone)).starts_with("read kubeconfig "), "one alone is what is meant");
    }
}
