//! `meta/v1 ListOptions`, `CreateOptions` and their like: what a request asks besides. PURE.

use super::fault::Fault;
use super::request::{Query, Verb};
use crate::model::{Errors, Path, Timestamp};

const MATCH: Path<'_> = Path::root("resourceVersionMatch");

/// Which state a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    Newest,
    /// The newest one, which must not be older than this.
    NotOlderThan(u64),
    Exact(u64),
    /// Where the page before ended: a `continue` token.
    Page(String),
}

/// What a list asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOptions {
    pub at: At,
    /// Objects a page.
    pub limit: Option<usize>,
}

impl ListOptions {
    /// # Errors
    /// 400 for text that is no number, 422 for parameters that exclude one another.
    pub fn read(query: &Query) -> Result<Self, Fault> {
        let (version, wanted) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
        let revision = query.number::<u64>("resourceVersion")?;
        let limit = query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|&limit| limit > 0);
        let next = query.get("continue");
        let mut errors = Errors::default();
        if query.get("sendInitialEvents").is_some() {
            errors.forbidden(&Path::root("sendInitialEvents"), "sendInitialEvents is forbidden for list");
        }
        if let Some(wanted) = wanted {
            if version.is_none() {
                errors.forbidden(&MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if next.is_some() {
                errors.forbidden(&MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
            match wanted {
                "Exact" if revision == Some(0) => {
                    errors.forbidden(&MATCH, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
                }
                "Exact" | "NotOlderThan" => {}
                other => errors.unsupported(&MATCH, other, &["Exact", "NotOlderThan", ""]),
            }
        }
        refuse("ListOptions", errors)?;
        if let Some(next) = next {
            if revision.is_some_and(|revision| revision > 0) {
                return Err(Fault::bad_request("specifying resource version is not allowed when using continue"));
            }
            return Ok(Self { at: At::Page(next.to_owned()), limit });
        }
        let at = match revision {
            None => At::Newest,
            // Pages of one version were exact before there was a parameter to say so.
            Some(revision) if wanted == Some("Exact") || (wanted.is_none() && limit.is_some() && revision > 0) => At::Exact(revision),
            Some(revision) => At::NotOlderThan(revision),
        };
        Ok(Self { at, limit })
    }
}

/// What a watch asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// 0: from now.
    pub revision: u64,
    /// Whether it begins with what is there; `None`: unless it names a version.
    pub initial: Option<bool>,
    pub bookmarks: bool,
    /// Seconds.
    pub timeout: Option<u64>,
}

impl WatchOptions {
    /// # Errors
    /// 400 for text that is no number, 422 for parameters that exclude one another.
    pub fn read(query: &Query) -> Result<Self, Fault> {
        let wanted = query.get("resourceVersionMatch");
        let initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let mut errors = Errors::default();
        if initial.is_some() && wanted != Some("NotOlderThan") {
            errors.forbidden(&MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if let Some(wanted) = wanted {
            if initial.is_none() {
                errors.forbidden(&MATCH, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
            }
            if wanted != "NotOlderThan" {
                errors.unsupported(&MATCH, wanted, &["NotOlderThan"]);
            }
            if query.get("continue").is_some() {
                errors.forbidden(&MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
        }
        refuse("ListOptions", errors)?;
        let timeout = query.number::<i128>("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(Self {
            revision: query.number::<u64>("resourceVersion")?.unwrap_or(0),
            initial,
            bookmarks: query.flag("allowWatchBookmarks"),
            timeout: timeout.filter(|&seconds| seconds > 0),
        })
    }
}

/// Whether what is asked of a container's log makes sense (Kubernetes' `ValidatePodLogOptions`). Its two streams are one log
/// here, as without the feature `PodLogsQuerySplitStreams`.
///
/// # Errors
/// 400 for text that is no number or time, 422 for what no log has.
pub fn check_log(query: &Query, pod: &str) -> Result<(), Fault> {
    let mut errors = Errors::default();
    let (tail, bytes) = (query.number::<i64>("tailLines")?, query.number::<i64>("limitBytes")?);
    let (seconds, since) = (query.number::<i64>("sinceSeconds")?, query.number::<Timestamp>("sinceTime")?);
    if let Some(tail) = tail.filter(|tail| *tail < 0) {
        errors.invalid(&Path::root("tailLines"), &tail, "must be greater than or equal to 0");
    }
    for (name, number) in [("limitBytes", bytes), ("sinceSeconds", seconds.filter(|_| since.is_none()))] {
        if let Some(number) = number.filter(|number| *number < 1) {
            errors.invalid(&Path::root(name), &number, "must be greater than 0");
        }
    }
    if seconds.is_some() && since.is_some() {
        errors.forbidden(&Path::root(""), "at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    if let Some(stream) = query.get("stream").filter(|stream| *stream != "All") {
        errors.unsupported(&Path::root("stream"), stream, &["All"]);
    }
    if errors.is_empty() { Ok(()) } else { Err(Fault::invalid_value("PodLogOptions", "", pod, &errors.into_vec())) }
}

/// `fieldValidation`: what becomes of fields no schema has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// What a write asks: `CreateOptions`, `UpdateOptions`, `PatchOptions`, and of `DeleteOptions` what is in the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
}

/// The longest name of a field manager.
const LONGEST_MANAGER: usize = 128;

impl WriteOptions {
    /// # Errors
    /// 422 for what the verb does not take.
    pub fn read(verb: Verb, query: &Query, is_apply: bool) -> Result<Self, Fault> {
        let mut errors = Errors::default();
        let dry: Vec<&str> = query.all("dryRun").filter(|mode| !mode.is_empty()).collect();
        check_dry_run(&dry, &mut errors);
        let field_validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                errors.unsupported(&Path::root("fieldValidation"), other, &["", "Ignore", "Strict", "Warn"]);
                FieldValidation::Warn
            }
        };
        manager(query.get("fieldManager"), is_apply, &mut errors);
        if verb == Verb::Patch && !is_apply && query.get("force").is_some() {
            errors.forbidden(&Path::root("force"), "may not be specified for non-apply patch");
        }
        let kind = match verb {
            Verb::Create => "CreateOptions",
            Verb::Update => "UpdateOptions",
            Verb::Patch => "PatchOptions",
            Verb::Delete | Verb::DeleteCollection | Verb::Get | Verb::List | Verb::Watch => "DeleteOptions",
        };
        refuse(kind, errors)?;
        Ok(Self { dry_run: !dry.is_empty(), field_validation })
    }
}

/// The one mode there is: `All`.
pub fn check_dry_run(modes: &[impl AsRef<str>], errors: &mut Errors) {
    for mode in modes.iter().map(AsRef::as_ref).filter(|mode| *mode != "All") {
        errors.unsupported(&Path::root("dryRun"), mode, &["All"]);
    }
}

fn manager(name: Option<&str>, is_apply: bool, errors: &mut Errors) {
    let path = Path::root("fieldManager");
    match name {
        None if is_apply => errors.required(&path, "is required for apply patch"),
        Some(name) if name.len() > LONGEST_MANAGER => {
            errors.invalid(&path, name, &format!("may not be longer than {LONGEST_MANAGER}"));
        }
        Some(name) if name.chars().any(char::is_control) => errors.invalid(&path, name, "should only contain printable characters"),
        _ => {}
    }
}

/// # Errors
/// 422 with every broken rule.
pub fn refuse(options: &str, errors: Errors) -> Result<(), Fault> {
    if errors.is_empty() { Ok(()) } else { Err(Fault::invalid_value(options, "meta.k8s.io", "", &errors.into_vec())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(&format!("/x?{text}").parse().unwrap()).unwrap()
    }

    /// The table of Kubernetes' API concepts: what `limit`, `resourceVersion` and its match mean together.
    #[test]
    fn a_list_shows_the_state_that_its_parameters_name() {
        let table = [
            ("", At::Newest),
            ("limit=5", At::Newest),
            ("resourceVersion=0", At::NotOlderThan(0)),
            ("resourceVersion=0&limit=5", At::NotOlderThan(0)),
            ("resourceVersion=7", At::NotOlderThan(7)),
            ("resourceVersion=7&limit=5", At::Exact(7)),
            ("resourceVersion=7&resourceVersionMatch=Exact", At::Exact(7)),
            ("resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=5", At::NotOlderThan(7)),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", At::NotOlderThan(0)),
            ("continue=x&limit=5", At::Page("x".to_owned())),
        ];
        for (text, at) in table {
            assert_eq!(ListOptions::read(&query(text)).unwrap().at, at, "{text}");
        }
        assert_eq!(ListOptions::read(&query("limit=-1")).unwrap().limit, None);
    }

    #[test]
    fn parameters_that_exclude_one_another_are_invalid() {
        let list = |text: &str| ListOptions::read(&query(text)).unwrap_err();
        for (text, code) in [
            ("resourceVersionMatch=Exact", 422),
            ("resourceVersion=7&resourceVersionMatch=Newest", 422),
            ("resourceVersion=0&resourceVersionMatch=Exact", 422),
            ("continue=x&resourceVersion=7&resourceVersionMatch=Exact", 422),
            ("sendInitialEvents=true", 422),
            ("continue=x&resourceVersion=7", 400),
            ("resourceVersion=seven", 400),
        ] {
            assert_eq!(list(text).code, code, "{text}");
        }
        let fault = list("resourceVersionMatch=Exact");
        let why = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
        assert_eq!(fault.message, format!("ListOptions.meta.k8s.io \"\" is invalid: {why}"));
        assert_eq!(fault.details["causes"][0]["reason"], "FieldValueForbidden");
        for text in ["resourceVersionMatch=NotOlderThan", "sendInitialEvents=true", "sendInitialEvents=true&resourceVersionMatch=Exact"] {
            assert_eq!(WatchOptions::read(&query(text)).unwrap_err().code, 422, "{text}");
        }
    }

    #[test]
    fn of_a_log_only_what_it_has_is_asked() {
        let told = |text: &str| check_log(&query(text), "p").map_err(|fault| (fault.code, fault.message));
        for fine in ["", "tailLines=0&limitBytes=1&sinceSeconds=1&stream=All&follow=true", "sinceTime=2026-11-27T10:00:00Z"] {
            assert_eq!(told(fine), Ok(()), "{fine}");
        }
        for (text, why) in [
            ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
            ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=5&sinceTime=2026-11-27T10:00:00Z", ": Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"),
            ("stream=Stderr", "stream: Unsupported value: \"Stderr\": supported values: \"All\""),
        ] {
            assert_eq!(told(text), Err((422, format!("PodLogOptions \"p\" is invalid: {why}"))), "{text}");
        }
        for (name, text) in [("tailLines", "x"), ("sinceTime", "yesterday")] {
            let why = format!("invalid value {text:?} for the parameter {name}");
            assert_eq!(told(&format!("{name}={text}")), Err((400, why)));
        }
    }

    #[test]
    fn an_apply_names_its_manager_and_only_an_apply_forces() {
        let patch = |text: &str, is_apply| WriteOptions::read(Verb::Patch, &query(text), is_apply);
        for (text, is_apply) in [("", true), ("fieldManager=a&force=true", false), ("dryRun=Some", false), ("fieldValidation=Most", false)]
        {
            assert_eq!(patch(text, is_apply).unwrap_err().code, 422, "{text}");
        }
        assert_eq!(patch(&format!("fieldManager={}", "a".repeat(129)), true).unwrap_err().code, 422);
        let read = patch("fieldManager=a&force=true&dryRun=All&fieldValidation=Strict", true).unwrap();
        assert_eq!(read, WriteOptions { dry_run: true, field_validation: FieldValidation::Strict });
    }
}
