//! What a person is told who looks closely (`crictl inspect`, `inspectp`, `info`), by containerd's names where it has some.

use serde_json::{Value, json};

use super::engine::Inner;
use super::record::{ContainerRecord, SandboxRecord};
use super::spec::{self, Surroundings};

impl Inner {
    /// A sandbox's or a container's record, and where to find it on the host.
    pub fn details(&self, id: &str) -> Value {
        let (sandbox, container) = {
            let table = self.table();
            let container = table.containers.get(id).map(|container| container.record.clone());
            (table.sandboxes.get(id).map(|sandbox| (sandbox.record.clone(), sandbox.ready)), container)
        };
        match (sandbox, container) {
            (Some((record, ready)), _) => self.of_sandbox(&record, ready),
            (None, Some(record)) => self.of_container(&record),
            (None, None) => Value::Null,
        }
    }

    fn of_sandbox(&self, record: &SandboxRecord, ready: bool) -> Value {
        let pod = &record.config;
        let cgroup = self.cgroups.full(&pod.cgroup_parent);
        let held = spec::namespaces(&Surroundings::of_pod(pod, record.shim_pid)).unwrap_or_default();
        // Only those that are somewhere; of a pod that has ended nothing is.
        let held: Vec<_> = held.into_iter().filter(|namespace| ready && namespace.path().is_some()).collect();
        json!({
            "pid": record.shim_pid,
            "processStatus": if ready { "running" } else { "deleted" },
            "netNamespaceClosed": !ready,
            "runtimeHandler": pod.runtime_handler,
            "cgroup": cgroup,
            "runtimeSpec": {
                "hostname": pod.hostname,
                "annotations": pod.annotations,
                "linux": {"cgroupsPath": format!("/{cgroup}"), "sysctl": pod.sysctls, "namespaces": held},
            },
            "config": pod,
        })
    }

    fn of_container(&self, record: &ContainerRecord) -> Value {
        let path = self.container_cgroup(record);
        let cgroup = path.as_ref().map(|path| self.cgroups.full(path));
        // The eldest, as far as numbers tell.
        let pid = path.and_then(|path| self.cgroups.processes(&path).first().copied());
        let spec = self.read_spec(record).ok().and_then(|spec| serde_json::to_value(spec).ok()).map(without_values);
        json!({
            "pid": pid, "sandboxID": record.sandbox_id, "cgroup": cgroup, "runtimeSpec": spec, "config": record.without_values().config,
        })
    }

    /// Where the engine has what is its own, and what it was told to do.
    pub fn settings(&self) -> Value {
        let options = &self.options;
        json!({
            "rootDir": options.root_dir,
            "stateDir": options.run_dir,
            "cgroupRoot": options.cgroup_root,
            "cgroupDriver": "cgroupfs",
            "shim": options.shim_path,
            "runtimeHandlers": options.handlers,
            "podPidsLimit": options.pod_pids_limit,
            "maxContainerLogBytes": options.log_max_bytes,
            "maxContainerLogFiles": options.log_max_files,
        })
    }
}

/// A spec without what may hold values of Secrets.
fn without_values(mut spec: Value) -> Value {
    if let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) {
        process.retain(|name, _| name != "env" && name != "args");
    }
    spec
}
