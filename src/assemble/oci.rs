//! `podbay oci`: one container by itself. No daemon, no image store: everything is in the bundle.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::cli::oci::{CreateArgs, ExecArgs, OciArgs, OciVerb, ProcessArgs, UpdateArgs};
use crate::cli::output::print;
use crate::model::Timestamp;
use crate::runtime;
use crate::runtime::oci::life::{Create, Exec, Runtime};
use crate::runtime::oci::state::OCI_VERSION;

/// Resources are at most this long.
const RESOURCES_LIMIT: u64 = 1 << 20;

/// Carries out a verb; errors go to the caller's log and standard error.
pub fn oci(args: &OciArgs) -> ExitCode {
    match carry_out(args) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            let text = format!("{error:#}");
            log(args, &text);
            eprintln!("{text}");
            ExitCode::from(1)
        }
    }
}

/// A line as runc writes it: its callers read the last one.
fn log(args: &OciArgs, text: &str) {
    let Some(path) = &args.log else { return };
    let line = match args.log_format.as_str() {
        "json" => json!({"level": "error", "msg": text, "time": Timestamp::now()}).to_string(),
        _ => format!("time={:?} level=error msg={text:?}", Timestamp::now().to_string()),
    };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
    // Nobody else is there to be told.
    opened.and_then(|mut file| writeln!(file, "{line}")).ok();
}

fn carry_out(args: &OciArgs) -> anyhow::Result<i32> {
    if args.systemd_cgroup {
        bail!("--systemd-cgroup is not supported: use the cgroupfs manager");
    }
    if args.rootless.as_deref().is_some_and(|value| !matches!(value, "false" | "auto")) || !rustix::process::geteuid().is_root() {
        bail!("containers without root are not supported");
    }
    let shim = runtime::Options::new("", "").shim_path;
    let runtime = Runtime { root: std::path::absolute(&args.root)?, shim };
    match &args.verb {
        OciVerb::Create(args) => runtime.create(&create(args)?)?,
        OciVerb::Start { id } => runtime.start(id)?,
        OciVerb::Run { create: args, detach } => return Ok(runtime.run(&create(args)?, *detach)?),
        OciVerb::State { id } => say(&runtime.state(id)?),
        OciVerb::Kill { id, signal, all } => runtime.kill(id, signal, *all)?,
        OciVerb::Delete { id, force } => runtime.delete(id, *force)?,
        OciVerb::Exec(args) => return Ok(runtime.exec(&exec(args)?)?),
        OciVerb::List { format, quiet } => list(&runtime.list(), format, *quiet),
        OciVerb::Ps { id, format } => ps(&runtime.processes(id)?, format),
        OciVerb::Pause { id } => runtime.freeze(id, true)?,
        OciVerb::Resume { id } => runtime.freeze(id, false)?,
        OciVerb::Update(args) => runtime.update(&args.id, changed(args)?)?,
        OciVerb::Events { id, stats: true } => print(&format!("{}\n", runtime.stats(id)?)),
        OciVerb::Events { .. } => bail!("events are told only once: say --stats"),
        OciVerb::Features => say(&features()),
    }
    Ok(0)
}

fn say(value: &Value) {
    print(&format!("{value:#}\n"));
}

fn create(args: &CreateArgs) -> anyhow::Result<Create> {
    are_open(args.ends.preserve_fds)?;
    if args.no_pivot {
        bail!("--no-pivot is not supported: the root is always changed by pivot_root");
    }
    let CreateArgs { id, bundle, ends: ProcessArgs { pid_file, console_socket, preserve_fds }, .. } = args.clone();
    Ok(Create { id, bundle, pid_file, console_socket, more_fds: preserve_fds })
}

fn exec(args: &ExecArgs) -> anyhow::Result<Exec> {
    are_open(args.ends.preserve_fds)?;
    let ExecArgs { id, command, process, tty, detach, ends: ProcessArgs { pid_file, console_socket, preserve_fds } } = args.clone();
    if process.is_none() && command.is_empty() {
        bail!("there is neither a command nor --process");
    }
    Ok(Exec { id, process, args: command, tty, pid_file, console_socket, detach, more_fds: preserve_fds })
}

/// Where one is not, something of ours would be there next. So this comes before anything is opened.
fn are_open(more: u32) -> anyhow::Result<()> {
    match (3..=2_u32.saturating_add(more)).find(|fd| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err()) {
        Some(fd) => bail!("--preserve-fds {more}: descriptor {fd} is not open"),
        None => Ok(()),
    }
}

/// What `update` is to set, as OCI resources: runc's flags, or a file.
fn changed(args: &UpdateArgs) -> anyhow::Result<Value> {
    if let Some(path) = &args.resources {
        return read_resources(path);
    }
    let size = |text: &Option<String>| text.as_deref().map(size).transpose();
    let mut wanted = json!({
        "memory": {"limit": size(&args.memory)?, "swap": size(&args.memory_swap)?},
        "cpu": {
            "period": args.cpu_period, "quota": args.cpu_quota, "shares": args.cpu_share,
            "cpus": args.cpuset_cpus, "mems": args.cpuset_mems,
        },
        "blockIO": {"weight": args.blkio_weight},
    });
    if let Some(limit) = args.pids_limit {
        wanted["pids"] = json!({"limit": limit});
    }
    let is_said = |kind: &Value| kind.as_object().is_some_and(|fields| fields.values().any(|value| !value.is_null()));
    if wanted.as_object().is_some_and(|all| all.values().any(is_said)) { Ok(wanted) } else { read_resources("-".as_ref()) }
}

/// `64m` in bytes, as docker and runc read it (go-units, `RAMInBytes`); -1 is any amount.
fn size(text: &str) -> anyhow::Result<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let shift = match lower.chars().last() {
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        _ => 0,
    };
    let number = if shift > 0 { &lower[..lower.len() - 1] } else { lower };
    let bytes = number.trim_end().parse::<i64>().ok().filter(|number| *number >= -1).and_then(|number| number.checked_mul(1 << shift));
    bytes.with_context(|| format!("{text:?} is no size like 64m or -1"))
}

fn read_resources(path: &std::path::Path) -> anyhow::Result<Value> {
    let mut bytes = Vec::new();
    if path == std::path::Path::new("-") {
        std::io::stdin().take(RESOURCES_LIMIT).read_to_end(&mut bytes).context("read the resources")?;
    } else {
        std::fs::File::open(path).and_then(|file| file.take(RESOURCES_LIMIT).read_to_end(&mut bytes)).context("read the resources")?;
    }
    serde_json::from_slice(&bytes).context("read the resources")
}

fn list(all: &[Value], format: &str, quiet: bool) {
    let text = |one: &Value, field: &str| match &one[field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let lines = match (quiet, format) {
        (true, _) => all.iter().map(|one| text(one, "id") + "\n").collect(),
        (false, "json") => format!("{}\n", Value::from(all.to_vec())),
        _ => {
            let fields = ["id", "pid", "status", "bundle", "created"];
            let row = |one: &Value| fields.map(|field| text(one, field)).join("\t") + "\n";
            "ID\tPID\tSTATUS\tBUNDLE\tCREATED\n".to_owned() + &all.iter().map(row).collect::<String>()
        }
    };
    print(&lines);
}

fn ps(pids: &[i32], format: &str) {
    match format {
        "json" => print(&format!("{}\n", json!(pids))),
        _ => print(&pids.iter().fold("PID\n".to_owned(), |text, pid| format!("{text}{pid}\n"))),
    }
}

/// features.md and features-linux.md of the runtime specification.
fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0", "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {"enabled": true}, "apparmor": {"enabled": true}, "selinux": {"enabled": false},
            "intelRdt": {"enabled": false}, "mountExtensions": {"idmap": {"enabled": true}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_said_by_flags() {
        let args = UpdateArgs { memory: Some("64M".into()), pids_limit: Some(-1), cpu_quota: Some(5), ..UpdateArgs::default() };
        let wanted = changed(&args).unwrap();
        assert_eq!(
            (&wanted["memory"]["limit"], &wanted["pids"]["limit"], &wanted["cpu"]["quota"]),
            (&json!(64 << 20), &json!(-1), &json!(5))
        );
        assert_eq!((&wanted["memory"]["swap"], &wanted["cpu"]["cpus"]), (&Value::Null, &Value::Null));
        let weight = changed(&UpdateArgs { blkio_weight: Some(10), ..UpdateArgs::default() }).unwrap();
        assert_eq!((&weight["blockIO"]["weight"], &weight["pids"]), (&json!(10), &Value::Null));
        assert!(changed(&UpdateArgs { memory: Some("much".into()), ..UpdateArgs::default() }).is_err());
    }

    #[test]
    fn sizes_are_read_as_runc_reads_them() {
        let of = |text: &str| size(text).ok();
        assert_eq!([of("7"), of("2k"), of("3MiB"), of("1gb"), of("5b"), of("-1")].map(Option::unwrap), [7, 2048, 3 << 20, 1 << 30, 5, -1]);
        for odd in ["", "m", "-2", "1x", "9999999999g", "1 000"] {
            assert_eq!(of(odd), None, "{odd:?}");
        }
    }
}
