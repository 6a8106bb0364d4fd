//! Our own kind: Source. PURE.

use super::{SPEC, names, one_of};
use crate::model::rule::{Errors, Path};
use crate::model::{GitSource, Source};

pub(super) fn source(it: &Source, errors: &mut Errors) {
    let spec = &it.spec;
    match (&spec.directory, &spec.git) {
        (None, None) => errors.required(&SPEC, "must specify one of: `directory` or `git`"),
        (Some(_), Some(_)) => errors.forbidden(&SPEC.child("git"), "may not be specified when `directory` is"),
        (Some(directory), None) => {
            if !directory.starts_with('/') {
                errors.invalid(&SPEC.child("directory"), directory, "must be an absolute path");
            }
        }
        (None, Some(git)) => self::git(git, &SPEC.child("git"), errors),
    }
    if let Some(path) = &spec.path {
        let at = SPEC.child("path");
        if path.starts_with('/') {
            errors.invalid(&at, path, "must be a relative path");
        }
        if path.split('/').any(|part| part == "..") {
            errors.invalid(&at, path, "must not contain '..'");
        }
    }
    if let Some(namespace) = &spec.namespace {
        errors.all(&SPEC.child("namespace"), namespace, names::dns_label(namespace));
    }
    if let Some(seconds) = spec.interval_seconds.filter(|it| *it <= 0) {
        errors.invalid(&SPEC.child("intervalSeconds"), &seconds, "must be greater than 0");
    }
    one_of(spec.unsupported.as_deref(), &["refuse", "skip"], &SPEC.child("unsupported"), errors);
    if let Some(budget) = &spec.budget {
        let at = SPEC.child("budget");
        super::not_negative(budget.objects, &at.child("objects"), errors);
        if let Some(percent) = budget.percent.filter(|it| !(0..=100).contains(it)) {
            errors.invalid(&at.child("percent"), &percent, "must be between 0 and 100, inclusive");
        }
    }
}

fn git(it: &GitSource, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("url");
    if it.url.is_empty() {
        errors.required(&at, "");
        return;
    }
    let scheme = it.url.split_once("://").map(|(scheme, _)| scheme);
    let is_ssh = scheme == Some("ssh") || (scheme.is_none() && !it.url.starts_with('/') && it.url.contains(':'));
    match scheme {
        Some("file" | "https" | "ssh") => {}
        Some("http") if it.token_file.is_none() => {}
        Some("http") => errors.invalid(&at, &it.url, "a token is sent over https only"),
        None if is_ssh || it.url.starts_with('/') => {}
        _ => errors.invalid(&at, &it.url, "must be an absolute path, or a file://, https://, ssh:// or user@host:path URL"),
    }
    if has_password(&it.url) {
        errors.invalid(&at, "<redacted>", "must not contain a password: use `tokenFile` or `sshKeyFile`");
    }
    if is_ssh && it.known_hosts_file.is_none() {
        errors.required(&path.child("knownHostsFile"), "a host is trusted by its key only");
    }
    if it.ca_file.is_some() && scheme != Some("https") {
        errors.invalid(&path.child("caFile"), it.ca_file.as_deref().unwrap_or_default(), "is for https only");
    }
    let files = [
        ("tokenFile", &it.token_file),
        ("caFile", &it.ca_file),
        ("sshKeyFile", &it.ssh_key_file),
        ("knownHostsFile", &it.known_hosts_file),
    ];
    for (field, file) in files {
        if let Some(file) = file.as_deref().filter(|it| !it.starts_with('/')) {
            errors.invalid(&path.child(field), file, "must be an absolute path");
        }
    }
}

/// `user:password@` before the host, which may have a port.
fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    authority.and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'))
}
