//! `podbay oci`: the command line of an OCI runtime, as runc has it and its callers use it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

/// A program of this name is `podbay oci`: callers want a path and add no word of their own.
const NAME: &str = "podbay-oci";

/// The command line as it is meant.
pub fn words(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = given.collect();
    if words.first().is_some_and(|program| Path::new(program).file_name().is_some_and(|name| name == NAME)) {
        words.insert(1, "oci".into());
    }
    words
}

#[derive(Debug, Clone, Args)]
#[command(version)]
pub struct OciArgs {
    /// Where the state of containers is
    #[arg(long, value_name = "DIR", default_value = "/run/podbay/oci")]
    pub root: PathBuf,
    /// Write errors to this file as well
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How errors are written there
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
    /// Accepted; there is nothing more to say
    #[arg(long)]
    pub debug: bool,
    /// Refused: cgroups are made by writing to their file system
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Refused unless it says no
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub rootless: Option<String>,
    #[command(subcommand)]
    pub verb: OciVerb,
}

#[derive(Debug, Clone, Subcommand)]
pub enum OciVerb {
    /// Make a container, up to the point where its program would run
    Create(CreateArgs),
    /// Run the program of a container that was created
    Start {
        /// The container's id
        id: String,
    },
    /// Create and start a container, and wait for its end
    Run {
        #[command(flatten)]
        create: CreateArgs,
        /// Do not wait for its end
        #[arg(short, long)]
        detach: bool,
    },
    /// Print a container's state
    State {
        /// The container's id
        id: String,
    },
    /// Send a signal to a container's first process
    Kill {
        /// The container's id
        id: String,
        /// Its name or number
        #[arg(default_value = "TERM")]
        signal: String,
        /// To all its processes
        #[arg(short, long)]
        all: bool,
    },
    /// Remove a container that has ended
    Delete {
        /// The container's id
        id: String,
        /// End it first
        #[arg(short, long)]
        force: bool,
    },
    /// Run a command in a container
    Exec(ExecArgs),
    /// List containers
    List {
        /// How
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
        /// Ids only
        #[arg(short, long)]
        quiet: bool,
    },
    /// List the processes of a container
    Ps {
        /// The container's id
        id: String,
        /// How
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
    },
    /// Stop all processes of a container
    Pause {
        /// The container's id
        id: String,
    },
    /// Let the processes of a paused container go on
    Resume {
        /// The container's id
        id: String,
    },
    /// Set other limits
    Update(UpdateArgs),
    /// Print what a container uses
    Events {
        /// The container's id
        id: String,
        /// Once; the only way there is
        #[arg(long)]
        stats: bool,
    },
    /// Print what this runtime can do
    Features,
}

#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// The container's id
    pub id: String,
    /// Directory with `config.json`
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub ends: ProcessArgs,
    /// Refused: the root is always changed by pivot_root
    #[arg(long)]
    pub no_pivot: bool,
    /// Accepted: no keyring is made
    #[arg(long)]
    pub no_new_keyring: bool,
}

/// What is not said stays.
#[derive(Debug, Clone, Default, Args)]
pub struct UpdateArgs {
    /// The container's id
    pub id: String,
    /// File with OCI resources, in place of what follows; `-`: standard input, as where nothing follows
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Memory: bytes, or with k, m or g; -1: any
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory and swap together
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Microseconds in which the quota is given anew
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU time in a period; -1: any
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Weight against others
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// CPUs: `0-2,5`
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Processes; -1: any number
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Weight at block devices, from 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
}

#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    /// The container's id
    pub id: String,
    /// The command, where no --process says it
    #[arg(trailing_var_arg = true)]
    pub command: Vec<String>,
    /// File with an OCI process
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    #[command(flatten)]
    pub ends: ProcessArgs,
}

/// What a caller gets of a new process, and gives it.
#[derive(Debug, Clone, Args)]
pub struct ProcessArgs {
    /// Write the process' number to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Hand the terminal to this socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Hand over so many descriptors beside the standard ones, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_that_name_is_the_verb() {
        let of = |given: &[&str]| words(given.iter().map(OsString::from)).join(std::ffi::OsStr::new(" "));
        assert_eq!(of(&["/usr/local/bin/podbay-oci", "--root", "/r", "state", "c"]), "/usr/local/bin/podbay-oci oci --root /r state c");
        assert_eq!(of(&["podbay", "up"]), "podbay up");
    }
}
