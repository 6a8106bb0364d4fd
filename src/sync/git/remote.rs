//! A repository elsewhere: a shallow bare clone, kept between fetches, made anew when it is broken
//! or has grown.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use git2::{CertificateCheckStatus, Cred, Direction, FetchOptions, Oid, RemoteCallbacks, RemoteRedirect, Repository};

use super::hosts::KnownHosts;
use super::read::full_id;
use super::url::{Place, origin, printable, ssh_port, ssh_user};
use super::wire::Request;

/// Where the fetched commit is kept.
const TARGET: &str = "refs/podbay/target";
/// Every fetch adds a pack; libgit2 never joins them.
const PACKS: usize = 50;

/// Credentials and the checks on the other end.
struct Access {
    token: Option<String>,
    key_file: Option<PathBuf>,
    hosts: Option<KnownHosts>,
    url: String,
    received_bytes: usize,
    /// Our own reason for a refusal: libgit2 replaces what a callback says.
    refused: RefCell<Option<String>>,
}

/// Brings the newest commit of the request's reference into the clone.
pub(super) fn fetch(request: &Request, place: &Place) -> Result<(Repository, Oid), String> {
    let access = Access::of(request, place)?;
    let directory = Path::new(&request.clone_dir);
    sweep(directory);
    if is_spent(directory, request.bounds.clone_bytes) {
        remove(directory)?;
    }
    let first = attempt(directory, request, &access);
    let result = match first {
        // The other end refused, or we did: a new clone would be refused as well.
        Err(Failure::There(why)) => Err(why),
        Err(Failure::Here(why)) if access.refused.borrow().is_some() => Err(why),
        Err(Failure::Here(_)) => {
            remove(directory)?;
            attempt(directory, request, &access).map_err(|failure| match failure {
                Failure::Here(why) | Failure::There(why) => why,
            })
        }
        Ok(found) => Ok(found),
    };
    if result.is_err() {
        sweep(directory);
    }
    result.map_err(|why| access.scrub(&access.refused.take().unwrap_or(why)))
}

/// What a fetch that was cut off leaves behind: packs half received.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory.join("objects/pack")).into_iter().flatten().flatten() {
        let path = entry.path();
        let whole = path.extension().is_some_and(|it| ["pack", "idx", "rev", "keep"].iter().any(|whole| it == *whole));
        if !whole {
            // What cannot be removed counts against the clone's bound.
            let _ = fs::remove_file(path);
        }
    }
}

/// Whose fault it was: the clone's, or the other end's.
enum Failure {
    Here(String),
    There(String),
}

fn here(error: git2::Error) -> Failure {
    Failure::Here(error.message().to_owned())
}

fn there(error: git2::Error) -> Failure {
    Failure::There(error.message().to_owned())
}

fn attempt(directory: &Path, request: &Request, access: &Access) -> Result<(Repository, Oid), Failure> {
    let repository = match Repository::open_bare(directory) {
        Ok(repository) => repository,
        Err(_) if !directory.exists() => Repository::init_bare(directory).map_err(here)?,
        Err(error) => return Err(here(error)),
    };
    // With a token only to the same host. `connect_auth` takes this from the configuration.
    let follow = if access.token.is_some() { "false" } else { "initial" };
    repository.config().and_then(|mut config| config.set_str("http.followRedirects", follow)).map_err(here)?;
    let mut remote = repository.remote_anonymous(&request.url).map_err(there)?;
    let mut connection = remote.connect_auth(Direction::Fetch, Some(access.callbacks()), None).map_err(there)?;
    let heads: Vec<(String, Oid)> = connection.list().map_err(there)?.iter().map(|head| (head.name().to_owned(), head.oid())).collect();
    let (from, wanted) = find(&heads, request.reference.as_deref()).map_err(Failure::There)?;
    let kept = repository.refname_to_id(TARGET).ok();
    if kept != Some(wanted) || repository.find_object(wanted, None).is_err() {
        let mut options = FetchOptions::new();
        let redirects = if access.token.is_some() { RemoteRedirect::None } else { RemoteRedirect::Initial };
        options.remote_callbacks(access.callbacks()).depth(1).follow_redirects(redirects);
        options.download_tags(git2::AutotagOption::None).update_fetchhead(false);
        connection.remote().fetch(&[format!("+{from}:{TARGET}")], Some(&mut options), None).map_err(|error| match error.class() {
            git2::ErrorClass::Odb | git2::ErrorClass::Indexer | git2::ErrorClass::Os | git2::ErrorClass::Zlib => here(error),
            _ => there(error),
        })?;
    }
    drop(connection);
    drop(remote);
    let commit = repository.find_object(wanted, None).and_then(|object| object.peel_to_commit()).map_err(here)?.id();
    Ok((repository, commit))
}

/// The remote name to fetch and the object it stands for now.
fn find(heads: &[(String, Oid)], reference: Option<&str>) -> Result<(String, Oid), String> {
    let named = |full: &str| heads.iter().find(|(name, _)| name == full).cloned();
    let Some(name) = reference else {
        return named("HEAD").ok_or_else(|| "the repository is empty: it has no HEAD".to_owned());
    };
    let full = if name.starts_with("refs/") { named(name) } else { None };
    full.or_else(|| named(&format!("refs/heads/{name}")))
        .or_else(|| named(&format!("refs/tags/{name}")))
        .or_else(|| full_id(name).map(|id| (name.to_owned(), id)))
        .ok_or_else(|| format!("there is no branch, tag or full commit id `{}`", name.escape_debug()))
}

impl Access {
    fn of(request: &Request, place: &Place) -> Result<Self, String> {
        let token = match &request.token_file {
            Some(file) => {
                let text = fs::read_to_string(file).map_err(|error| format!("read the token file {file}: {error}"))?;
                Some(text.trim().to_owned()).filter(|token| !token.is_empty())
            }
            None => None,
        };
        if let Some(file) = &request.ca_file {
            let text = fs::read_to_string(file).map_err(|error| format!("read the certificate authority {file}: {error}"))?;
            if !text.contains("-----BEGIN CERTIFICATE-----") {
                return Err(format!("the certificate authority {file} holds no PEM certificate"));
            }
        }
        let hosts = match (&request.known_hosts_file, place) {
            (Some(file), Place::Ssh) => {
                let text = fs::read_to_string(file).map_err(|error| format!("read the known hosts file {file}: {error}"))?;
                prepare_home(request, &text)?;
                Some(KnownHosts::parse(&text))
            }
            _ => None,
        };
        Ok(Self {
            token,
            key_file: request.ssh_key_file.as_ref().map(PathBuf::from),
            hosts,
            url: request.url.clone(),
            received_bytes: request.bounds.received_bytes,
            refused: RefCell::default(),
        })
    }

    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        let mut asked = 0;
        callbacks.credentials(move |url, user, allowed| {
            let refuse = |why: String| {
                *self.refused.borrow_mut() = Some(why.clone());
                Err(git2::Error::from_str(&why))
            };
            // libgit2 asks again when it was refused; ssh asks for the user's name first.
            let times = if allowed.is_user_pass_plaintext() { 1 } else { 3 };
            asked += 1;
            if asked > times {
                return refuse("the server refuses the source's credentials".to_owned());
            }
            if self.token.is_some() && origin(url) != origin(&self.url) {
                return refuse(format!("redirected to {}, which is not given the token", printable(url)));
            }
            if allowed.is_username() {
                return Cred::username(&ssh_user(&self.url));
            }
            match (&self.token, &self.key_file) {
                (Some(token), _) if allowed.is_user_pass_plaintext() => Cred::userpass_plaintext(user.unwrap_or("git"), token),
                (_, Some(key)) if allowed.is_ssh_key() => Cred::ssh_key(user.unwrap_or(&ssh_user(&self.url)), None, key, None),
                _ => refuse("the server asks for credentials (or the repository does not exist): name a tokenFile".to_owned()),
            }
        });
        callbacks.certificate_check(|certificate, host| match (&self.hosts, certificate.as_hostkey()) {
            (Some(hosts), Some(key)) => {
                let known = key.hostkey().is_some_and(|key| hosts.knows(host, ssh_port(&self.url), key));
                if known {
                    Ok(CertificateCheckStatus::CertificateOk)
                } else {
                    let why = format!("the key of host {} is not in the known hosts file", host.escape_debug());
                    *self.refused.borrow_mut() = Some(why.clone());
                    Err(git2::Error::from_str(&why))
                }
            }
            // TLS is checked by the library against the system's authorities.
            _ => Ok(CertificateCheckStatus::CertificatePassthrough),
        });
        callbacks.transfer_progress(|progress| {
            let fits = progress.received_bytes() <= self.received_bytes;
            if !fits {
                *self.refused.borrow_mut() =
                    Some(format!("the repository is too large: more than {} bytes were sent", self.received_bytes));
            }
            fits
        });
        callbacks
    }

    /// Whatever a library put into a message: not the token.
    fn scrub(&self, message: &str) -> String {
        match &self.token {
            Some(token) => message.replace(token.as_str(), "(token)"),
            None => message.to_owned(),
        }
    }
}

/// libgit2 takes from `HOME/.ssh/known_hosts` which kind of key to ask the host for.
fn prepare_home(request: &Request, known_hosts: &str) -> Result<(), String> {
    let home = PathBuf::from(format!("{}.home/.ssh", request.clone_dir));
    let file = home.join("known_hosts");
    if fs::read_to_string(&file).is_ok_and(|text| text == known_hosts) {
        return Ok(());
    }
    fs::create_dir_all(&home).and_then(|()| fs::write(&file, known_hosts)).map_err(|error| format!("write {}: {error}", file.display()))
}

fn remove(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("remove {}: {error}", directory.display())),
        _ => Ok(()),
    }
}

/// Grown beyond its bound, in bytes or packs.
fn is_spent(directory: &Path, limit: u64) -> bool {
    let (mut bytes, mut packs) = (0, 0);
    let mut todo = vec![directory.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => todo.push(entry.path()),
                Ok(meta) => {
                    bytes += meta.len();
                    packs += usize::from(entry.path().extension().is_some_and(|extension| extension == "pack"));
                }
                Err(_) => {}
            }
        }
    }
    bytes > limit || packs > PACKS
}
