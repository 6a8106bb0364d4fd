//! Reads what metrics are made of: when somebody asks for them, and so much of each pod.

use std::collections::BTreeMap;
use std::path::Path;

use super::engine::Inner;
use super::figures::{self, Texts};
use super::record::ContainerRecord;
use crate::cri::figures::Figure;

/// Of a container's processes and of their open files no more are counted: each is a look at /proc.
const PROCESS_LIMIT: usize = 1000;
const FILE_LIMIT: usize = 10_000;

impl Inner {
    /// Of ready sandboxes and running containers, by id.
    pub fn figures(&self) -> BTreeMap<String, Vec<Figure>> {
        let (pods, containers): (Vec<_>, Vec<ContainerRecord>) = {
            let table = self.table();
            let ready = table.sandboxes.values().filter(|sandbox| sandbox.ready).map(|sandbox| {
                let (record, config) = (&sandbox.record, &sandbox.record.config);
                (record.id.clone(), config.cgroup_parent.clone(), (!config.host_network).then_some(record.shim_pid))
            });
            let running = table.containers.values().filter(|one| one.is_running()).map(|one| one.record.clone());
            (ready.collect(), running.collect())
        };
        let sizes = page_sizes();
        let pods = pods.into_iter().map(|(id, cgroup, network)| {
            let mut all = self.of_cgroup(&cgroup, &sizes);
            all.push(Figure::new("processes", &[], self.cgroups.processes(&cgroup).len() as u64));
            let interfaces = network.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok());
            all.extend(interfaces.iter().flat_map(|text| figures::of_network(text)));
            (id, all)
        });
        let containers = containers.into_iter().filter_map(|record| {
            let cgroup = self.container_cgroup(&record)?;
            let mut all = self.of_cgroup(&cgroup, &sizes);
            all.extend(of_processes(&self.cgroups.processes(&cgroup)));
            all.extend(of_disk(&self.dir_of(&record), self.layer(&record.id).map(|layer| layer.used_bytes)));
            Some((record.id, all))
        });
        pods.chain(containers).collect()
    }

    fn of_cgroup(&self, path: &str, sizes: &[String]) -> Vec<Figure> {
        let unified = self.cgroups.is_unified();
        let files = figures::files(unified, sizes).into_iter();
        let texts: Texts = files.filter_map(|file| self.cgroups.text(path, &file).map(|text| (file, text))).collect();
        figures::of_cgroup(unified, &texts, sizes, &device_name)
    }
}

/// The sizes of this host's huge pages.
pub(super) fn page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<String> = entries.filter_map(|entry| figures::page_size(entry.file_name().to_str()?)).collect();
    sizes.sort_unstable();
    sizes
}

/// `/dev/vda1` for `254:1`; the numbers themselves where there is no such device, as below a file system of several.
fn device_name(numbers: &str) -> String {
    let target = std::fs::read_link(format!("/sys/dev/block/{numbers}")).ok();
    let name = target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    name.map_or_else(|| numbers.to_owned(), |name| format!("/dev/{name}"))
}

fn of_processes(all: &[i32]) -> Vec<Figure> {
    let seen = || all.iter().filter(|pid| **pid > 0).take(PROCESS_LIMIT);
    let directories = seen().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let (mut files, mut sockets) = (0, 0);
    for entry in directories.flat_map(Iterator::flatten).take(FILE_LIMIT) {
        files += 1;
        let target = std::fs::read_link(entry.path());
        sockets += u64::from(target.is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:")));
    }
    // The oldest, if numbers have not begun anew since: most often the container's own.
    let limits = seen().next().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    let open_files = limits.and_then(|text| figures::open_files(&text)).unwrap_or(0);
    vec![
        Figure::new("processes", &[], all.len() as u64),
        Figure::new("file_descriptors", &[], files),
        Figure::new("sockets", &[], sockets),
        Figure::new("ulimits_soft", &["max_open_files"], open_files),
    ]
}

/// The file system under a container's writable layer, asked by the host's path: what a container has mounted answers nobody here.
/// `used`: what the layer takes of it, where it was counted.
fn of_disk(directory: &Path, used: Option<u64>) -> Vec<Figure> {
    let (Ok(disk), Ok(stat)) = (rustix::fs::statvfs(directory), rustix::fs::stat(directory)) else { return Vec::new() };
    let number = stat.st_dev;
    let device = device_name(&format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)));
    let figures = [
        ("fs_limit_bytes", disk.f_blocks.saturating_mul(disk.f_frsize)),
        ("fs_inodes_total", disk.f_files),
        ("fs_inodes_free", disk.f_ffree),
    ];
    let used = used.map(|bytes| ("fs_usage_bytes", bytes));
    figures.into_iter().chain(used).map(|(metric, value)| Figure::new(metric, &[&device], value)).collect()
}
