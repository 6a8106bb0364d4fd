//! Limits beyond CPU, memory and processes, as files of a cgroup (v2, Documentation/admin-guide/cgroup-v2.rst). PURE.

use std::collections::BTreeSet;

use crate::cri::{CriError, Resources};

/// Controllers whose files a caller may name.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];

/// A limit as a file of the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// As v2 names it.
    pub file: String,
    pub value: String,
    /// The caller's own word: for v2 alone.
    pub verbatim: bool,
    /// What other kernels and v1 have instead, and how it is said there: the first that is there is taken.
    pub instead: Vec<(String, String)>,
}

/// A limit of a block device, `MAJOR:MINOR`, on what goes over it in a second; 0: none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttle {
    pub device: String,
    pub of: Rate,
    pub most: u64,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    ReadBytes,
    WriteBytes,
    Reads,
    Writes,
}

impl Rate {
    /// In v2's `io.max`, and v1's file (cgroup-v1/blkio-controller.rst).
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::ReadBytes => ("rbps", "blkio.throttle.read_bps_device"),
            Self::WriteBytes => ("wbps", "blkio.throttle.write_bps_device"),
            Self::Reads => ("riops", "blkio.throttle.read_iops_device"),
            Self::Writes => ("wiops", "blkio.throttle.write_iops_device"),
        }
    }
}

/// What block devices do for a cgroup: weights from 10 to 1000 as OCI has them (config-linux.md, "Block IO"), of all and of
/// some devices, and throttles. v2's scale goes up to 10,000; BFQ's scheduler keeps the old one on both. Where BFQ is there
/// its file is the one that is heeded, as runc and crun have it: `io.weight` takes `io.cost.qos`, which hardly anybody sets.
pub fn block_io(weight: Option<u16>, of_devices: &[(String, u16)], throttles: &[Throttle]) -> Vec<Limit> {
    let weighed = |device: Option<&String>, weight: u16| {
        let wide = 1 + u64::from(weight.saturating_sub(10)) * 9999 / 990;
        let say = |weight: String| device.map_or_else(|| weight.clone(), |device| format!("{device} {weight}"));
        let end = if device.is_some() { "_device" } else { "" };
        let v1 = [format!("blkio.weight{end}"), format!("blkio.bfq.weight{end}")].map(|file| (file, say(weight.to_string())));
        let instead = std::iter::once(("io.weight".to_owned(), say(wide.to_string()))).chain(v1).collect();
        Limit { file: "io.bfq.weight".to_owned(), value: say(weight.to_string()), verbatim: false, instead }
    };
    let throttled = |throttle: &Throttle| {
        let Throttle { device, of, most } = throttle;
        let (key, file) = of.names();
        let value = if *most == 0 { format!("{device} {key}=max") } else { format!("{device} {key}={most}") };
        Limit { file: "io.max".to_owned(), value, verbatim: false, instead: vec![(file.to_owned(), format!("{device} {most}"))] }
    };
    let of_devices = of_devices.iter().map(|(device, weight)| weighed(Some(device), *weight));
    weight.map(|weight| weighed(None, weight)).into_iter().chain(of_devices).chain(throttles.iter().map(throttled)).collect()
}

impl Limit {
    /// The controller the file belongs to.
    pub fn controller(&self) -> &'static str {
        let name = self.file.split('.').next().unwrap_or_default();
        CONTROLLERS.into_iter().find(|known| *known == name).unwrap_or("cgroup")
    }
}

/// What is to be written, in this order; a caller's own words last.
///
/// # Errors
/// What a caller names is no file of a controller: nothing else in a cgroup is a limit, and some of it moves processes.
pub fn files(wanted: &Resources) -> Result<Vec<Limit>, CriError> {
    let mut all = Vec::new();
    let mut put = |file: &str, value: String, verbatim| all.push(Limit { file: file.to_owned(), value, verbatim, instead: Vec::new() });
    for (file, value) in [("cpuset.cpus", &wanted.cpuset_cpus), ("cpuset.mems", &wanted.cpuset_mems)] {
        if value.is_empty() {
            continue;
        }
        if !value.bytes().all(|byte| byte.is_ascii_digit() || b",-".contains(&byte)) {
            return Err(CriError::Invalid(format!("{file}: {value:?} is no list of numbers and ranges")));
        }
        put(file, value.clone(), false);
    }
    for (size, bytes) in &wanted.hugepages {
        if page_bytes(size).is_none() {
            return Err(CriError::Invalid(format!("hugepage size {size:?} is not one like 2MB or 1GB")));
        }
        put(&format!("hugetlb.{size}.max"), bytes.to_string(), false);
        put(&format!("hugetlb.{size}.rsvd.max"), bytes.to_string(), false);
    }
    for (file, value) in &wanted.unified {
        let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let known = file.split_once('.').is_some_and(|(controller, rest)| CONTROLLERS.contains(&controller) && !rest.is_empty());
        if !plain || !known || file.contains("..") {
            return Err(CriError::Invalid(format!("{file:?} is no file of a cgroup's controller")));
        }
        put(file, value.clone(), true);
    }
    Ok(all)
}

/// # Errors
/// Huge pages of a size that is none of the host's. None of them is no limit: a kubelet says that of each size.
pub fn check_pages(wanted: &Resources, sizes: &[String]) -> Result<(), CriError> {
    let odd = wanted.hugepages.iter().find(|(size, bytes)| **bytes > 0 && !sizes.contains(size));
    odd.map_or(Ok(()), |(size, _)| {
        let has = if sizes.is_empty() { "none".to_owned() } else { sizes.join(", ") };
        Err(CriError::Invalid(format!("huge pages of {size}: this host has {has}")))
    })
}

/// The controllers that these need.
pub fn controllers(limits: &[Limit]) -> BTreeSet<&'static str> {
    limits.iter().map(Limit::controller).collect()
}

/// The size of a page as a cgroup's files name it (`2MB`), in bytes.
pub fn page_bytes(name: &str) -> Option<u64> {
    let split = name.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = name.split_at(split);
    let shift = match unit {
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok().filter(|number| *number > 0)?.checked_mul(1 << shift)
}

/// What swap a container may have beyond its memory: CRI's limit is on both together, as v1's. `None`: any.
pub fn swap_bytes(wanted: &Resources) -> Option<u64> {
    match wanted.memory_swap_limit_bytes {
        both if both < 0 => None,
        // Nothing said: none, as with Kubernetes where swap is not configured.
        both => Some(both.unsigned_abs().saturating_sub(wanted.memory_limit_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(change: impl FnOnce(&mut Resources)) -> Result<Vec<(String, String)>, CriError> {
        let mut wanted = Resources::default();
        change(&mut wanted);
        files(&wanted).map(|all| all.into_iter().map(|limit| (limit.file, limit.value)).collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn limits_become_files() {
        assert_eq!(said(|_| {}).unwrap(), []);
        let got = said(|wanted| {
            wanted.cpuset_cpus = "0-2,5".into();
            wanted.cpuset_mems = "0".into();
            wanted.hugepages = [("2MB".to_owned(), 4 << 20)].into();
            wanted.unified = pairs(&[("memory.high", "1000"), ("io.max", "8:0 rbps=1048576")]).into_iter().collect();
        });
        let want = [
            ("cpuset.cpus", "0-2,5"),
            ("cpuset.mems", "0"),
            ("hugetlb.2MB.max", "4194304"),
            ("hugetlb.2MB.rsvd.max", "4194304"),
            ("io.max", "8:0 rbps=1048576"),
            ("memory.high", "1000"),
        ];
        assert_eq!(got.unwrap(), pairs(&want));
    }

    #[test]
    fn block_devices_have_weights_and_throttles_in_the_words_of_each_kernel() {
        let throttle = |of, most| Throttle { device: "8:0".into(), of, most };
        let throttles = [throttle(Rate::ReadBytes, 1 << 20), throttle(Rate::Writes, 0)];
        let said = |limits: Vec<Limit>| -> Vec<String> {
            let one = |limit: &Limit| {
                let own = [(limit.file.clone(), limit.value.clone())];
                own.iter().chain(&limit.instead).map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>().join(" or ")
            };
            limits.iter().map(one).collect()
        };
        let expected = [
            "io.bfq.weight=10 or io.weight=1 or blkio.weight=10 or blkio.bfq.weight=10",
            "io.bfq.weight=8:0 1000 or io.weight=8:0 10000 or blkio.weight_device=8:0 1000 or blkio.bfq.weight_device=8:0 1000",
            "io.max=8:0 rbps=1048576 or blkio.throttle.read_bps_device=8:0 1048576",
            "io.max=8:0 wiops=max or blkio.throttle.write_iops_device=8:0 0",
        ];
        assert_eq!(said(block_io(Some(10), &[("8:0".into(), 1000)], &throttles)), expected);
        assert_eq!(block_io(None, &[], &[]), []);
        assert_eq!(controllers(&block_io(Some(500), &[], &[])), BTreeSet::from(["io"]));
    }

    #[test]
    fn nothing_but_a_controllers_files_is_written() {
        for file in ["", ".", "..", "../memory.max", "memory", "memory.", "/etc/passwd", "cgroup.procs", "cgroup.kill", "memory./x", "a.b"]
        {
            let refused = said(|wanted| wanted.unified = pairs(&[(file, "1")]).into_iter().collect());
            assert!(matches!(refused, Err(CriError::Invalid(_))), "{file:?}");
        }
        assert!(said(|wanted| wanted.cpuset_cpus = "0\n1".into()).is_err());
        for size in ["", "2", "MB", "../x", "0MB", "2TB", "2MB/../x"] {
            assert!(said(|wanted| wanted.hugepages = [(size.to_owned(), 1)].into()).is_err(), "{size:?}");
        }
    }

    #[test]
    fn pages_are_of_a_size_that_the_host_has() {
        let wanted = |size: &str, bytes| Resources { hugepages: [(size.to_owned(), bytes)].into(), ..Resources::default() };
        let sizes = ["1GB", "2MB"].map(str::to_owned);
        assert!(check_pages(&wanted("2MB", 4 << 20), &sizes).is_ok());
        assert!(check_pages(&wanted("3MB", 0), &sizes).is_ok());
        let refused = check_pages(&wanted("3MB", 6 << 20), &sizes);
        assert!(matches!(&refused, Err(CriError::Invalid(text)) if text.contains("3MB") && text.contains("1GB, 2MB")), "{refused:?}");
        assert!(check_pages(&wanted("2MB", 1), &[]).is_err());
    }

    #[test]
    fn swap_is_what_goes_beyond_the_memory() {
        let of = |memory_limit_bytes, memory_swap_limit_bytes| {
            swap_bytes(&Resources { memory_limit_bytes, memory_swap_limit_bytes, ..Resources::default() })
        };
        assert_eq!([of(100, 0), of(100, 100), of(100, 150), of(100, -1), of(0, 50)], [Some(0), Some(0), Some(50), None, Some(50)]);
    }
}
