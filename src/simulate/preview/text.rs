//! A preview for a person: terraform's marks, one line a field, the sum at the end. PURE.

use std::fmt;

use super::pods::folded;
use super::{FieldPreview, ObjectPreview, PodPreview, Preview};

/// What goes with a deleted object is named up to here.
const NAMED: usize = 10;

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        if !self.revision.is_empty() {
            write!(f, " at {}", short(&self.revision))?;
        }
        if !self.subject.is_empty() {
            write!(f, " ({})", self.subject)?;
        }
        writeln!(f)?;
        let mut spaced = true;
        for object in &self.objects {
            let has_body = !object.fields.is_empty() || !object.takes.is_empty();
            if spaced || has_body {
                writeln!(f)?;
            }
            write!(f, "{object}")?;
            spaced = has_body;
        }
        let pods = &self.pods;
        let marked = |mark: char, pods: &[PodPreview]| folded(pods).into_iter().map(move |pod| format!("{mark} {pod}"));
        section(f, "Pods", marked('+', &pods.starts).chain(marked('-', &pods.stops)))?;
        section(f, "Volumes", self.volumes.iter().map(ToString::to_string))?;
        section(f, "Pending", marked('?', &pods.pending))?;
        section(f, "Left out", self.skipped.iter().cloned())?;
        section(f, "Not known", self.unknown.iter().cloned())?;
        section(f, "Then waits for", self.waits.iter().cloned())?;
        section(f, "Not in the end", self.unmet.iter().cloned())?;
        section(f, "Errors", self.errors.iter().cloned())?;
        section(f, "Refused", self.refusals.iter().cloned())?;
        if !self.hint.is_empty() {
            writeln!(f, "\nhint: {}", self.hint)?;
        }
        section(f, "Needs approval", self.approvals.iter().cloned())?;
        writeln!(f, "\n{}", self.sum)?;
        if !self.plan_id.is_empty() && !self.objects.is_empty() {
            writeln!(f, "plan {}", self.plan_id)?;
        }
        Ok(())
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, lines: impl Iterator<Item = String>) -> fmt::Result {
    for (index, line) in lines.enumerate() {
        if index == 0 {
            writeln!(f, "\n{title}:")?;
        }
        writeln!(f, "  {line}")?;
    }
    Ok(())
}

/// A commit as git abbreviates it, a digest without its algorithm.
fn short(revision: &str) -> &str {
    let id = revision.strip_prefix("sha256:").unwrap_or(revision);
    if id.len() >= 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) { &id[..12] } else { id }
}

impl fmt::Display for ObjectPreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {} {}{slash}{}", self.mark, self.kind, self.namespace, self.name)?;
        if !self.file.is_empty() {
            write!(f, "  ({}", self.file)?;
            if let Some(wave) = self.wave {
                write!(f, ", wave {wave}")?;
            }
            write!(f, ")")?;
        }
        writeln!(f)?;
        for field in &self.fields {
            write!(f, "{field}")?;
        }
        if !self.takes.is_empty() {
            write!(f, "    with {}", self.takes[..self.takes.len().min(NAMED)].join(", "))?;
            if self.takes.len() > NAMED {
                write!(f, " and {} more", self.takes.len() - NAMED)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for FieldPreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mark, path, before, after, diff } = self;
        match (before, after) {
            (Some(before), Some(after)) => writeln!(f, "    {mark} {path}: {before} -> {after}")?,
            (Some(one), None) | (None, Some(one)) => writeln!(f, "    {mark} {path}: {one}")?,
            (None, None) => writeln!(f, "    {mark} {path}:")?,
        }
        diff.iter().try_for_each(|line| writeln!(f, "        {line}"))
    }
}

impl fmt::Display for PodPreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.count > 1 {
            write!(f, " × {}", self.count)?;
        }
        if let Some(node) = &self.node {
            write!(f, "  on {node}{}", if self.tied { "~" } else { "" })?;
        }
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}
