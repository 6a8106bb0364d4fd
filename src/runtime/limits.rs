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
    let mut put = |file: &str, value: String, verbatim| all.push(Limit { file: file.to_owned(), value, verbatim });
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
    fn swap_is_what_goes_beyond_the_memory() {
        let of = |memory_limit_bytes, memory_swap_limit_bytes| {
            swap_bytes(&Resources { memory_limit_bytes, memory_swap_limit_bytes, ..Resources::default() })
        };
        assert_eq!([of(100, 0), of(100, 100), of(100, 150), of(100, -1), of(0, 50)], [Some(0), Some(0), Some(50), None, Some(50)]);
    }
}
