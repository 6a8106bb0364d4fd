//! A commit becomes objects: fetch, render, plan, accept.
//!
//! - `source`: the trait `fetch() -> Tree | Refused | Unreachable`; `dir` and `git` implement it, `open` picks
//! - `select` (pure): which files of a tree are manifests, and how many there may be; `link` (pure): where a link leads
//! - `render` (pure): a tree's files to objects, or every error of the tree; `hidden` (pure): what those may be that it
//!   cannot read
//! - `unsaid` (pure): what a manifest says and the cluster itself writes
//! - `plan` (pure): desired against live against inventory; `known` (pure): what it remembers
//! - `refusal` (pure): what is said no to, of which field, and what would help
//! - `approval` (pure): what a plan is known by, and how another differs from it
//! - `op`, `waves`, `walk` (pure): a change, this step's changes, sorted walks side by side
//! - `again` (pure): when what is gone is created again, and what others change is put back, and when not
//! - `asked` (pure): what admission webhooks are asked about it, and answered; `webhooks`: the trait behind which they are
//! - `drift` (pure): what others changed of what git says, and is put back
//! - `inventory`, `budget`, `health` (pure): what a source holds, what a deletion takes with it, how
//!   an object fares
//! - `needed` (pure): what may not go, as something wanted lives by it
//! - `accepted` (pure): the accepted set in the store, for a process that never read it
//! - `look`, `status`, `removal` (pure): the transaction a look calls for, what it writes to the
//!   Source's status, the end of a Source
//! - `left` (pure): what a removed source had created, for one of its name that comes back
//! - `configured` (pure): sources named in the daemon's configuration
//! - `act`: the loop, one worker a Source object
//!
//! Invariants: unreachable is never empty; a bad revision changes nothing; only what the inventory
//! says Podbay created is ever pruned.

pub mod accepted;
pub mod act;
pub mod again;
pub mod approval;
pub mod asked;
pub mod budget;
pub mod configured;
pub mod desired;
pub mod dir;
pub mod drift;
pub mod fake;
pub mod git;
pub mod health;
mod hidden;
pub mod identity;
pub mod inventory;
mod known;
pub mod left;
pub mod link;
pub mod look;
pub mod names;
mod needed;
pub mod op;
pub mod open;
pub mod plan;
mod refusal;
pub mod removal;
pub mod render;
pub mod select;
pub mod source;
pub mod status;
pub mod unsaid;
mod walk;
mod waves;
pub mod webhooks;

pub use act::run;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod act_tests;

#[cfg(test)]
mod approval_tests;

#[cfg(test)]
mod asked_tests;

#[cfg(test)]
mod drift_tests;

#[cfg(test)]
mod left_tests;

#[cfg(test)]
mod needed_tests;

#[cfg(test)]
mod quarrel_tests;

#[cfg(test)]
mod refusal_tests;

#[cfg(test)]
mod render_tests;

#[cfg(test)]
mod accepted_tests;
