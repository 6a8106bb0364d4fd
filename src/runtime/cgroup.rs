//! The pods' control groups: a tree of ours in every hierarchy of the host.
//!
//! ```text
//!  ROOT/                      the runtime's own; never below the daemon's unit
//!  ├─ besteffort/pod<uid>/    ┬─ shim-<sandbox>     the shim, its log writer
//!  ├─ burstable/pod<uid>/     └─ <container>        limits of one container
//!  └─ pod<uid>/               guaranteed pods
//!
//!  /kubepods/…/pod<uid>/      elsewhere, where a client of CRI says so
//! ```
//!
//! In v1's `devices` hierarchy a container's processes are one level further down, in `<container>/in`: the rules are
//! above the root of their cgroup namespace, where a container that may mount the hierarchy cannot change them.
//!
//! Written through `cgroups-rs`, which can say yes and do nothing: every limit is read back. v1 and hybrid hosts
//! have a directory in each controller's hierarchy, v2 hosts one; `rare`: hierarchies for few.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::hierarchies;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, MaxValue};

use super::limits::{self, Limit};
use super::{devices, rare, sys, usage, wire};
use crate::cri::{Resources, UNLIMITED, Usage};

const PAGE: u64 = 4096;
/// v1's controller of what may be opened; v2 has a hook for a program instead.
const DEVICES: &str = "devices";
/// Below a container's rules for its devices: where its processes are.
const IN: &str = "in";
/// Dying processes keep a cgroup busy for a moment.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// A cgroup is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup hierarchy with a controller we use is mounted")]
    NoHierarchy,
    #[error("create cgroup {path}: {cause}")]
    Create { path: String, cause: String },
    #[error("set {limit} of cgroup {path}: {cause}")]
    Limit { path: String, limit: &'static str, cause: String },
    #[error("remove cgroup {path}: {cause}")]
    Remove { path: String, cause: io::Error },
}

/// The hierarchies of this host and our root in them.
#[derive(Debug, Clone)]
pub struct Tree {
    root: String,
    unified: bool,
    /// (controller, where its hierarchy is mounted), in the order they are entered.
    mounts: Vec<(String, PathBuf)>,
    /// Where v1's other hierarchies are, in which another OCI runtime makes cgroups of the same names.
    others: Vec<PathBuf>,
    /// Of those, the ones with limits that only few ask for.
    rare: Vec<rare::Hierarchy>,
    /// v2: the program for the devices of containers, taken by the kernel once; or why this kernel takes none.
    device_program: Arc<OnceLock<Result<OwnedFd, String>>>,
}

impl Tree {
    /// Finds the hierarchies. `root` is relative: `podbay` or `podbay-pods.slice/podbay`.
    pub fn detect(root: &str) -> Result<Self, CgroupError> {
        let unified = hierarchies::is_cgroup2_unified_mode();
        let mounts = if unified {
            vec![(String::new(), PathBuf::from(hierarchies::UNIFIED_MOUNTPOINT))]
        } else {
            let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let usable =
                |(controller, mount): &(String, PathBuf)| controller != DEVICES || may_make_in(&mount.join(root.trim_matches('/')));
            v1_mounts(&info).into_iter().filter(usable).collect()
        };
        if mounts.is_empty() {
            return Err(CgroupError::NoHierarchy);
        }
        let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let used = |mount: &PathBuf| mounts.iter().any(|(_, known)| known == mount);
        let others = if unified { Vec::new() } else { all_mounts(&info).into_iter().filter(|mount| !used(mount)).collect() };
        let offers = |mount: &Path| std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        let rare = if unified { Vec::new() } else { rare::detect(&info, &offers) };
        Ok(Self { root: root.trim_matches('/').to_owned(), unified, mounts, others, rare, device_program: Arc::default() })
    }

    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// The controllers of a v1 host that a container is to see; empty on v2.
    pub fn v1_controllers(&self) -> Vec<String> {
        let seen = self.mounts.iter().map(|(controller, _)| controller).filter(|controller| *controller != DEVICES);
        if self.unified { Vec::new() } else { seen.cloned().collect() }
    }

    /// Below each hierarchy's mount point. A path that begins with `/` is not below our root.
    pub fn full(&self, path: &str) -> String {
        match (self.root.as_str(), path) {
            (_, path) if path.starts_with('/') => path.trim_start_matches('/').to_owned(),
            (root, "") => root.to_owned(),
            ("", path) => path.to_owned(),
            (root, path) => format!("{root}/{path}"),
        }
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let full = self.full(path);
        let mut all: Vec<PathBuf> = self.mounts.iter().map(|(_, mount)| mount.join(&full)).collect();
        // cpu and cpuacct are often one hierarchy.
        all.dedup();
        all
    }

    /// The same with those of other hierarchies, where nothing of ours is but what another runtime made for us.
    pub fn all_directories(&self, path: &str) -> Vec<PathBuf> {
        let full = self.full(path);
        self.directories(path).into_iter().chain(self.others.iter().map(|mount| mount.join(&full))).collect()
    }

    fn directory(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let wanted = if self.unified { "" } else { controller };
        let (_, mount) = self.mounts.iter().find(|(name, _)| name == wanted)?;
        Some(mount.join(self.full(path)))
    }

    /// Makes a cgroup with these limits, or sets them on the one that is there. Returns which could not be had
    /// because the host lacks the controller.
    pub fn create(&self, path: &str, limits: &Resources) -> Result<Vec<&'static str>, CgroupError> {
        self.create_with(path, limits, Vec::new())
    }

    /// The same with limits that CRI has no words for; a caller's own words come after them.
    pub fn create_with(&self, path: &str, limits: &Resources, mut more: Vec<Limit>) -> Result<Vec<&'static str>, CgroupError> {
        let full = self.full(path);
        let create = |cause: String| CgroupError::Create { path: full.clone(), cause };
        more.extend(limits::files(limits).map_err(|error| create(error.to_string()))?);
        let needed = limits::controllers(&more);
        let controllers: Vec<String> = if self.unified {
            let present = std::fs::read_to_string(self.mounts[0].1.join("cgroup.controllers")).unwrap_or_default();
            let present = present.split_whitespace().map(str::to_owned);
            present.filter(|name| ["cpu", "memory", "pids"].contains(&name.as_str()) || needed.contains(name.as_str())).collect()
        } else {
            self.mounts.iter().map(|(controller, _)| controller.clone()).collect()
        };
        let cgroup = Cgroup::new_with_specified_controllers(hierarchies::auto(), &full, Some(controllers.clone()))
            .map_err(|error| create(describe(&error)))?;
        for directory in self.directories(path) {
            if !directory.is_dir() {
                return Err(create(format!("{} is not there", directory.display())));
            }
        }
        let mut missing = Vec::new();
        self.set_cpu(&cgroup, path, limits, &mut missing)?;
        self.set_memory(&cgroup, path, limits, &mut missing)?;
        self.set_pids(&cgroup, path, limits, &mut missing)?;
        self.set_more(path, &more)?;
        match missing.iter().find(|limit| self.unified && controllers.iter().any(|controller| controller == *limit)) {
            // A pod without its limits, on a host that has them, is not what was asked for.
            Some(limit) => {
                let cause = "the host has the controller, but it is not passed on to this cgroup".to_owned();
                Err(CgroupError::Limit { path: full, limit, cause })
            }
            None => Ok(missing),
        }
    }

    /// One process out of memory takes the container down, rather than leaving half of it (v2). For containers only:
    /// a pod's cgroup has the shim in it, which must live to tell.
    pub fn die_together(&self, path: &str) -> Result<(), CgroupError> {
        let Some(file) = self.directory("memory", path).map(|directory| directory.join("memory.oom.group")) else { return Ok(()) };
        if !self.unified || !file.exists() {
            return Ok(());
        }
        let fail = |error: io::Error| CgroupError::Limit { path: self.full(path), limit: "memory.oom.group", cause: error.to_string() };
        std::fs::write(file, "1").map_err(fail)
    }

    /// Lets the processes of a container open only the devices that every container has, and `more`, as lines for v1's
    /// `devices.allow`. False where this host has no means for it.
    pub fn confine_devices(&self, path: &str, more: &[String]) -> Result<bool, CgroupError> {
        let every: Vec<String> = devices::lines().collect();
        let more: Vec<String> = more.iter().filter(|line| !devices::covers(&every, line)).cloned().collect();
        let fail = |cause: String| CgroupError::Limit { path: self.full(path), limit: "devices", cause };
        let Some(directory) = self.directory(DEVICES, path) else { return Ok(false) };
        if self.unified {
            let Ok(program) = self.device_program().map_err(|error| fail(error.to_string()))? else { return Ok(false) };
            let own = own_device_program(&more).map_err(|error| fail(error.to_string()))?;
            let program = own.as_ref().unwrap_or(program);
            let cgroup = File::open(&directory).map_err(|error| fail(error.to_string()))?;
            return sys::attach_device_program(program.as_fd(), cgroup.as_fd()).map(|()| true).map_err(|error| fail(error.to_string()));
        }
        let inner = directory.join(IN);
        if inner.is_dir() {
            // Rules with something below them are changed no more.
            return Ok(true);
        }
        let file = |name: &str| directory.join(name);
        std::fs::write(file("devices.deny"), "a").map_err(|error| fail(error.to_string()))?;
        let allowed: Vec<String> = every.into_iter().chain(more).collect();
        for line in &allowed {
            // What is denied above us stays denied.
            match std::fs::write(file("devices.allow"), line) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(fail(error.to_string())),
                _ => {}
            }
        }
        let got = std::fs::read_to_string(file("devices.list")).map_err(|error| fail(error.to_string()))?;
        match got.lines().find(|line| !devices::covers(&allowed, line)) {
            Some(more) => Err(fail(format!("{more} is still allowed"))),
            None => std::fs::create_dir(inner).map(|()| true).map_err(|error| fail(error.to_string())),
        }
    }

    /// The inner error: this kernel takes none, or not from us, and never will. The outer one may pass.
    fn device_program(&self) -> io::Result<Result<&OwnedFd, &String>> {
        if let Some(known) = self.device_program.get() {
            return Ok(known.as_ref());
        }
        let loaded = match sys::load_device_program(&devices::program(&[]).unwrap_or_default()) {
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EINVAL | nix::libc::ENOSYS | nix::libc::EPERM)) => {
                tracing::warn!(%error, "the kernel takes no program for devices: nodev mounts alone keep them from containers");
                Err(error.to_string())
            }
            outcome => Ok(outcome?),
        };
        Ok(self.device_program.get_or_init(|| loaded).as_ref())
    }

    /// Whether the kernel offers this file for the cgroup.
    fn offers(&self, controller: &str, path: &str, file: &str) -> bool {
        self.directory(controller, path).is_some_and(|directory| directory.join(file).exists())
    }

    fn set_cpu(&self, cgroup: &Cgroup, path: &str, limits: &Resources, missing: &mut Vec<&'static str>) -> Result<(), CgroupError> {
        let fail = |limit, cause: String| CgroupError::Limit { path: self.full(path), limit, cause };
        if limits.cpu_quota < 0 {
            let (file, none) = if self.unified { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
            self.lift(("cpu", file), path, "cpu quota", none)?;
        }
        if limits.cpu_shares == 0 && limits.cpu_quota <= 0 {
            return Ok(());
        }
        let file = if self.unified { "cpu.max" } else { "cpu.cfs_quota_us" };
        let Some(cpu) = cgroup.controller_of::<CpuController>().filter(|_| self.offers("cpu", path, file)) else {
            missing.push("cpu");
            return Ok(());
        };
        if limits.cpu_shares > 0 {
            let wanted = if self.unified { weight(limits.cpu_shares) } else { limits.cpu_shares.clamp(2, 262_144) };
            let got = cpu.set_shares(wanted).and_then(|()| cpu.shares());
            check("cpu share", got, wanted, &fail)?;
        }
        if limits.cpu_quota > 0 {
            let period = if limits.cpu_period > 0 { limits.cpu_period } else { 100_000 };
            if self.unified {
                let set = cpu.set_cfs_quota_and_period(Some(limits.cpu_quota), Some(period));
                check("cpu quota", set.and_then(|()| cpu.cfs_quota()), limits.cpu_quota, &fail)?;
            } else {
                let set_period = || check("cpu period", cpu.set_cfs_period(period).and_then(|()| cpu.cfs_period()), period, &fail);
                let set_quota = || {
                    let set = cpu.set_cfs_quota(limits.cpu_quota);
                    check("cpu quota", set.and_then(|()| cpu.cfs_quota()), limits.cpu_quota, &fail)
                };
                // The kernel checks each step against the pod's limit: on the way it is never more than before or after.
                if cpu.cfs_period().is_ok_and(|now| period < now) {
                    set_quota()?;
                    set_period()?;
                } else {
                    set_period()?;
                    set_quota()?;
                }
            }
        }
        Ok(())
    }

    fn set_memory(&self, cgroup: &Cgroup, path: &str, limits: &Resources, missing: &mut Vec<&'static str>) -> Result<(), CgroupError> {
        let fail = |limit, cause: String| CgroupError::Limit { path: self.full(path), limit, cause };
        if limits.memory_limit_bytes == 0 {
            return Ok(());
        }
        let file = if self.unified { "memory.max" } else { "memory.limit_in_bytes" };
        if limits.memory_limit_bytes == UNLIMITED {
            if self.unified {
                self.lift(("memory", "memory.swap.max"), path, "swap limit", "max")?;
                return self.lift(("memory", file), path, "memory limit", "max");
            }
            // Neither may be the other's lesser on the way.
            self.lift(("memory", "memory.memsw.limit_in_bytes"), path, "swap limit", "-1")?;
            return self.lift(("memory", file), path, "memory limit", "-1");
        }
        let Some(memory) = cgroup.controller_of::<MemController>().filter(|_| self.offers("memory", path, file)) else {
            missing.push("memory");
            return Ok(());
        };
        let wanted = i64::try_from(limits.memory_limit_bytes).unwrap_or(i64::MAX);
        let directory = self.directory("memory", path).unwrap_or_default();
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).map(|text| text.trim().to_owned());
        let pages = |text: &str| text.parse::<u64>().ok().map(|bytes| bytes / PAGE);
        let with_swap = !self.unified && self.offers("memory", path, "memory.memsw.limit_in_bytes");
        let swap = limits::swap_bytes(limits).map(|swap| i64::try_from(swap).unwrap_or(i64::MAX));
        let both = swap.map_or(-1, |swap| wanted.saturating_add(swap));
        if with_swap && read("memory.memsw.limit_in_bytes").ok().and_then(|text| text.parse().ok()).is_some_and(|now: i64| now < wanted) {
            // The kernel lets neither be the other's lesser, on the way up either.
            memory.set_memswap_limit(both).map_err(|error| fail("swap limit", describe(&error)))?;
        }
        memory.set_limit(wanted).map_err(|error| fail("memory limit", describe(&error)))?;
        let got = read(file).map_err(|error| fail("memory limit", error.to_string()))?;
        if pages(&got) != Some(limits.memory_limit_bytes / PAGE) {
            return Err(fail("memory limit", format!("it is {got} after {wanted} was set")));
        }
        // No swap beyond it unless it was asked for, as with Kubernetes; where swap is not accounted there is no such file.
        if self.unified {
            if self.offers("memory", path, "memory.swap.max") {
                memory.set_memswap_limit(swap.unwrap_or(-1)).map_err(|error| fail("swap limit", describe(&error)))?;
            }
        } else if with_swap {
            memory.set_memswap_limit(both).map_err(|error| fail("swap limit", describe(&error)))?;
        }
        Ok(())
    }

    fn set_pids(&self, cgroup: &Cgroup, path: &str, limits: &Resources, missing: &mut Vec<&'static str>) -> Result<(), CgroupError> {
        let fail = |limit, cause: String| CgroupError::Limit { path: self.full(path), limit, cause };
        match limits.pids_limit {
            0 => return Ok(()),
            UNLIMITED => return self.lift(("pids", "pids.max"), path, "pids limit", "max"),
            _ => {}
        }
        let Some(pids) = cgroup.controller_of::<PidController>().filter(|_| self.offers("pids", path, "pids.max")) else {
            missing.push("pids");
            return Ok(());
        };
        let wanted = MaxValue::Value(i64::try_from(limits.pids_limit).unwrap_or(i64::MAX));
        check("pids limit", pids.set_pid_max(wanted).and_then(|()| pids.get_pid_max()), wanted, &fail)
    }

    /// Takes a limit away, and reads that back. Nothing where there is no such file, and so no limit.
    fn lift(&self, (controller, file): (&str, &str), path: &str, limit: &'static str, none: &str) -> Result<(), CgroupError> {
        let fail = |cause: String| CgroupError::Limit { path: self.full(path), limit, cause };
        let Some(file) = self.directory(controller, path).map(|directory| directory.join(file)).filter(|file| file.exists()) else {
            return Ok(());
        };
        std::fs::write(&file, none).map_err(|error| fail(error.to_string()))?;
        let got = std::fs::read_to_string(&file).map_err(|error| fail(error.to_string()))?;
        // v1 tells "any amount" as about as many bytes as there can be.
        let any = got.trim().parse::<u64>().is_ok_and(|bytes| bytes > u64::MAX >> 3);
        if any || got.starts_with(none) { Ok(()) } else { Err(fail(format!("it is {} after {none} was set", got.trim()))) }
    }

    /// Limits that a host may lack: an error then, as only who means them asks for them.
    fn set_more(&self, path: &str, more: &[Limit]) -> Result<(), CgroupError> {
        for limit in more {
            let full = self.full(path);
            let fail = |cause: String| CgroupError::Limit { path: full.clone(), limit: limit.controller(), cause };
            let file = if self.unified {
                self.directory("", path).and_then(|directory| rare::choose(&directory, &limit.file, limit))
            } else {
                let rare = self.rare.iter().find(|rare| rare.controller == limit.controller() && !limit.verbatim);
                match rare.map(|rare| rare.make(&full).map(|()| rare.file(&full, limit))) {
                    // Not ours to write; none was asked for.
                    Some(Err(_)) if limit.controller() == "hugetlb" && limit.value == "0" => None,
                    made => made.transpose().map_err(|error| fail(error.to_string()))?.flatten(),
                }
            };
            match file {
                Some((file, value)) => {
                    // The kernel reads one device a write.
                    let mut lines = value.split('\n').filter(|line| !line.is_empty() || value.is_empty());
                    let name = file.file_name().unwrap_or_default().display();
                    lines.try_for_each(|line| std::fs::write(&file, line)).map_err(|error| fail(format!("{name}: {error}")))?;
                    self.bring_in(path, &full, limit).map_err(|error| fail(error.to_string()))?;
                }
                // None of what is not there, and what older kernels do not tell apart.
                None if limit.controller() == "hugetlb" && (limit.value == "0" || limit.file.ends_with(".rsvd.max")) => {}
                None => {
                    return Err(fail(format!("this host has no {}: it takes the controller, and for files by name cgroup v2", limit.file)));
                }
            }
        }
        Ok(())
    }

    /// What runs in it already has not been in such a hierarchy's cgroup until now.
    fn bring_in(&self, path: &str, full: &str, limit: &Limit) -> io::Result<()> {
        let Some(rare) = self.rare.iter().find(|rare| !self.unified && rare.controller == limit.controller()) else { return Ok(()) };
        let Some(own) = self.directory("memory", path).or_else(|| self.directory("cpu", path)) else { return Ok(()) };
        // What forks meanwhile is found the next time; what is dead is never there.
        for _ in 0..5 {
            let there = rare.processes(full);
            let running = std::fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
            let mut missing = running.lines().filter(|pid| !there.lines().any(|known| known == *pid)).peekable();
            if missing.peek().is_none() {
                return Ok(());
            }
            missing.try_for_each(|pid| rare.enter(full, pid))?;
        }
        Ok(())
    }

    /// Weighs a cgroup against its siblings, and reads it back. No error where there is no such cgroup or controller.
    pub fn set_shares(&self, path: &str, shares: u64) -> Result<(), CgroupError> {
        let fail = |cause: String| CgroupError::Limit { path: self.full(path), limit: "cpu share", cause };
        let (file, wanted) = if self.unified { ("cpu.weight", weight(shares)) } else { ("cpu.shares", shares.clamp(2, 262_144)) };
        let Some(file) = self.directory("cpu", path).map(|directory| directory.join(file)).filter(|file| file.exists()) else {
            return Ok(());
        };
        std::fs::write(&file, wanted.to_string()).map_err(|error| fail(error.to_string()))?;
        let got = std::fs::read_to_string(&file).map_err(|error| fail(error.to_string()))?;
        if got.trim() == wanted.to_string() { Ok(()) } else { Err(fail(format!("it is {} after {wanted} was set", got.trim()))) }
    }

    /// How a process enters.
    pub fn entrance(&self, path: &str) -> wire::Cgroup {
        let mut directories = self.directories(path);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        if self.unified {
            wire::Cgroup { unified: directories.into_iter().next().map(text).unwrap_or_default(), tasks: Vec::new() }
        } else {
            // A container of an earlier version has none for its devices.
            let devices = self.directory(DEVICES, path);
            directories.retain(|directory| Some(directory) != devices.as_ref() || directory.exists());
            for directory in directories.iter_mut().filter(|directory| Some(&**directory) == devices.as_ref()) {
                let inner = directory.join(IN);
                if inner.is_dir() {
                    *directory = inner;
                }
            }
            let full = self.full(path);
            let rare = self.rare.iter().filter_map(|rare| rare.entrance(&full)).map(text);
            let freezer = self.freezer(path).map(|(directory, _)| directory).filter(|directory| directory.exists());
            let tasks = directories.into_iter().chain(freezer).map(|directory| text(directory.join("tasks"))).chain(rare).collect();
            wire::Cgroup { unified: String::new(), tasks }
        }
    }

    /// What a container without a cgroup namespace is to see of each controller (v2: of all): its own.
    pub fn views(&self, path: &str) -> Vec<(String, PathBuf)> {
        let full = self.full(path);
        let seen = self.mounts.iter().filter(|(controller, _)| controller != DEVICES);
        seen.map(|(controller, mount)| (controller.clone(), mount.join(&full))).collect()
    }

    /// Where its processes are stopped and let go on: (directory, file).
    fn freezer(&self, path: &str) -> Option<(PathBuf, &'static str)> {
        if self.unified {
            return self.directories(path).into_iter().next().map(|directory| (directory, "cgroup.freeze"));
        }
        let mount = self.others.iter().find(|mount| mount.ends_with("freezer"))?;
        Some((mount.join(self.full(path)), "freezer.state"))
    }

    /// Makes v1's cgroup for stopping processes; entered by [`Self::entrance`] where it is there.
    pub fn make_freezer(&self, path: &str) -> Result<(), CgroupError> {
        let Some((directory, _)) = self.freezer(path).filter(|_| !self.unified) else { return Ok(()) };
        std::fs::create_dir_all(directory).map_err(|cause| CgroupError::Create { path: self.full(path), cause: cause.to_string() })
    }

    /// Stops all processes of it, or lets them go on; returns when they have.
    pub fn freeze(&self, path: &str, frozen: bool) -> Result<(), CgroupError> {
        let fail = |cause: String| CgroupError::Limit { path: self.full(path), limit: "freezer", cause };
        let (directory, file) = self.freezer(path).ok_or_else(|| fail("this host has none".to_owned()))?;
        let text = match (self.unified, frozen) {
            (true, true) => "1",
            (true, false) => "0",
            (false, true) => "FROZEN",
            (false, false) => "THAWED",
        };
        std::fs::write(directory.join(file), text).map_err(|error| fail(error.to_string()))?;
        let deadline = Instant::now() + BUSY_LIMIT;
        while self.is_frozen(path) != frozen {
            if Instant::now() > deadline {
                return Err(fail("its processes do not follow".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub fn is_frozen(&self, path: &str) -> bool {
        let Some((directory, file)) = self.freezer(path) else { return false };
        let (file, wanted) = if self.unified { ("cgroup.events", "frozen 1") } else { (file, "FROZEN") };
        std::fs::read_to_string(directory.join(file)).is_ok_and(|text| text.lines().any(|line| line == wanted))
    }

    /// The file that counts out-of-memory kills; empty without a memory controller.
    pub fn oom_file(&self, path: &str) -> String {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        let directory = self.directory("memory", path);
        directory.map(|directory| directory.join(file).to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Every process in it and below.
    pub fn processes(&self, path: &str) -> Vec<i32> {
        let mut all = Vec::new();
        for directory in self.directories(path) {
            walk(&directory, &mut |directory| {
                let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
                all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            });
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Kills every process in it and below, and waits until they are gone.
    pub fn kill(&self, path: &str) -> Result<(), CgroupError> {
        let deadline = Instant::now() + BUSY_LIMIT;
        loop {
            if self.unified {
                // All at once, forking ones too. Older kernels have no such file.
                std::fs::write(self.directories(path)[0].join("cgroup.kill"), "1").ok();
            }
            let all = self.processes(path);
            // What we cannot see (0: of another PID namespace) we cannot kill.
            let seen: Vec<i32> = all.into_iter().filter(|pid| *pid > 0).collect();
            if seen.is_empty() {
                return Ok(());
            }
            for pid in seen.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
            if Instant::now() > deadline {
                let cause = io::Error::other(format!("processes {seen:?} do not die"));
                return Err(CgroupError::Remove { path: self.full(path), cause });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes it and what is below. No error when it is not there.
    pub fn remove(&self, path: &str) -> Result<(), CgroupError> {
        let deadline = Instant::now() + BUSY_LIMIT;
        for directory in self.all_directories(path) {
            let mut all = Vec::new();
            walk(&directory, &mut |directory| all.push(directory.to_owned()));
            for directory in all.iter().rev() {
                while let Err(cause) = std::fs::remove_dir(directory) {
                    match cause.raw_os_error() {
                        Some(nix::libc::ENOENT) => break,
                        Some(nix::libc::EBUSY) if Instant::now() < deadline => {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        _ => return Err(CgroupError::Remove { path: self.full(path), cause }),
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes it if it is empty: the pod's own, which two sandboxes may share for a moment.
    pub fn remove_if_empty(&self, path: &str) {
        for directory in self.all_directories(path) {
            std::fs::remove_dir(directory).ok();
        }
    }

    /// Directories that are not there yet for a path that begins with `/`, in each hierarchy in which we make cgroups: whatever
    /// comes in others later is somebody else's.
    pub fn missing(&self, path: &str) -> Vec<PathBuf> {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        let ours = |path: &str| {
            let full = self.full(path);
            let rare: Vec<PathBuf> = self.rare.iter().map(|rare| rare.directory(&full)).collect();
            self.directories(path).into_iter().chain(rare)
        };
        ends.flat_map(|end| ours(&path[..end])).filter(|directory| !directory.exists()).collect()
    }

    /// Whether our root is there in any hierarchy.
    pub fn exists(&self) -> bool {
        self.all_directories("").iter().any(|directory| directory.exists())
    }

    /// What a file of it says (`memory.current`), in whichever hierarchy there is one of that name.
    pub fn text(&self, path: &str, file: &str) -> Option<String> {
        let controller = file.split('.').next().unwrap_or_default();
        let full = self.full(path);
        let elsewhere = self.others.iter().map(|mount| mount.join(&full));
        let mut directories = self.directory(controller, path).into_iter().chain(elsewhere);
        directories.find_map(|directory| std::fs::read_to_string(directory.join(file)).ok())
    }

    /// What it has used until now.
    pub fn usage(&self, path: &str) -> Usage {
        let read = |file: &str| self.text(path, file);
        if self.unified { usage::unified(&read) } else { usage::of_v1(&read) }
    }

    /// What this host lacks; one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let has = |controller: &str| {
            if self.unified {
                let present = std::fs::read_to_string(self.mounts[0].1.join("cgroup.controllers")).unwrap_or_default();
                present.split_whitespace().any(|name| name == controller)
            } else {
                self.mounts.iter().any(|(name, _)| name == controller)
            }
        };
        let limits = ["cpu", "memory", "pids"].into_iter().filter(|controller| !has(controller));
        let mut problems: Vec<String> =
            limits.map(|controller| format!("cgroup controller {controller} is not available: its limits have no effect")).collect();
        let why = match self.unified {
            true => match self.device_program() {
                Ok(Err(cause)) => Some(format!("the kernel takes no program for them: {cause}")),
                // Of what may pass the containers tell, which are refused until then.
                Ok(Ok(_)) | Err(_) => None,
            },
            false => (!has(DEVICES)).then(|| "cgroup controller devices is not available, or not ours to write".to_owned()),
        };
        problems.extend(why.map(|why| format!("devices are kept from containers by nodev mounts alone: {why}")));
        problems
    }
}

/// The program for a container that may open more than every container; none: it may not.
fn own_device_program(more: &[String]) -> io::Result<Option<OwnedFd>> {
    if more.is_empty() {
        return Ok(None);
    }
    let program = devices::program(more).ok_or_else(|| io::Error::other(format!("{more:?} name no devices")))?;
    sys::load_device_program(&program).map(Some)
}

/// Whether this directory, which may be there already, can have others made in it: no read-only mount, nobody else's.
fn may_make_in(directory: &Path) -> bool {
    use rustix::fs::Access;
    let there = directory.ancestors().find(|ancestor| ancestor.exists());
    there.is_some_and(|there| rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).is_ok())
}

/// Calls `visit` for a directory and everything below, parents first. Nothing if it is not there.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    visit(directory);
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

fn check<T: PartialEq + std::fmt::Debug>(
    limit: &'static str,
    got: Result<T, cgroups_rs::fs::error::Error>,
    wanted: T,
    fail: &dyn Fn(&'static str, String) -> CgroupError,
) -> Result<(), CgroupError> {
    match got {
        Ok(got) if got == wanted => Ok(()),
        Ok(got) => Err(fail(limit, format!("it is {got:?} after {wanted:?} was set"))),
        Err(error) => Err(fail(limit, describe(&error))),
    }
}

fn describe(error: &cgroups_rs::fs::error::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// v2's cpu.weight for v1's cpu.shares, as the kubelet converts it.
fn weight(shares: u64) -> u64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9999) / 262_142
}

/// (controller, mount point) of the v1 hierarchies we use.
fn v1_mounts(info: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for controller in ["memory", "pids", "cpu", "cpuacct", DEVICES] {
        for line in info.lines() {
            let Some((mount, source)) = line.split_once(" - ") else { continue };
            let mut source = source.split(' ');
            let is_v1 = source.next() == Some("cgroup");
            if is_v1 && source.nth(1).is_some_and(|options| options.split(',').any(|option| option == controller)) {
                if let Some(point) = mount.split(' ').nth(4) {
                    found.push((controller.to_owned(), PathBuf::from(point)));
                }
                break;
            }
        }
    }
    found
}

/// The mount point of every hierarchy.
fn all_mounts(info: &str) -> Vec<PathBuf> {
    let of_cgroup = |line: &&str| line.split_once(" - ").is_some_and(|(_, source)| source.starts_with("cgroup"));
    info.lines().filter(of_cgroup).filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_mountinfo() {
        let info = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                    35 31 0:32 /docker/x /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let names: Vec<String> = v1_mounts(info).into_iter().map(|(name, at)| format!("{name} {}", at.display())).collect();
        assert_eq!(names, ["memory /sys/fs/cgroup/memory", "cpu /sys/fs/cgroup/cpu,cpuacct", "cpuacct /sys/fs/cgroup/cpu,cpuacct"]);
    }

    #[test]
    fn a_containers_processes_are_below_its_rules_for_devices() {
        let mount = tempfile::tempdir().unwrap();
        let mounts = ["pids", DEVICES].map(|name| (name.to_owned(), mount.path().join(name))).to_vec();
        let tree =
            Tree { root: "podbay".into(), unified: false, mounts, others: Vec::new(), rare: Vec::new(), device_program: Arc::default() };
        let at = |name: &str| mount.path().join(name).to_string_lossy().into_owned();
        for path in ["pids/podbay/pod1/c", "devices/podbay/pod1/c/in", "devices/podbay/pod1/shim"] {
            std::fs::create_dir_all(mount.path().join(path)).unwrap();
        }
        assert_eq!(tree.entrance("pod1/c").tasks, [at("pids/podbay/pod1/c/tasks"), at("devices/podbay/pod1/c/in/tasks")]);
        assert_eq!(tree.entrance("pod1/shim").tasks, [at("pids/podbay/pod1/shim/tasks"), at("devices/podbay/pod1/shim/tasks")]);
        assert_eq!(tree.entrance("pod1/old").tasks, [at("pids/podbay/pod1/old/tasks")], "of an earlier version");
    }

    #[test]
    fn nothing_is_missing_where_we_make_no_cgroups() {
        let mount = tempfile::tempdir().unwrap();
        let at = |path: &str| mount.path().join(path);
        let info = format!("41 31 0:38 / {} rw,relatime - cgroup cgroup rw,cpuset\n", at("cpuset").display());
        let rare = rare::detect(&info, &|_: &Path| String::new());
        let (mounts, others) = (vec![("pids".to_owned(), at("pids"))], vec![at("systemd"), at("cpuset")]);
        let tree = Tree { root: "podbay".into(), unified: false, mounts, others, rare, device_program: Arc::default() };
        std::fs::create_dir_all(at("pids/kubepods")).unwrap();
        let missing = ["cpuset/kubepods", "pids/kubepods/pod1", "cpuset/kubepods/pod1"].map(at);
        assert_eq!(tree.missing("/kubepods/pod1"), missing);
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!([weight(2), weight(1024), weight(262_144), weight(0)], [1, 39, 10_000, 1]);
    }
}
