//! Which pod has which address: one small file an address, `<address>` holding the name of the pod's sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::{NetworkError, Range, plan};

pub(super) struct Ipam {
    directory: PathBuf,
    by_pod: BTreeMap<String, Ipv4Addr>,
    last: Option<Ipv4Addr>,
}

impl Ipam {
    /// Reads what is given out. Half-written files of a crash are given up: no pod got an answer.
    pub fn open(directory: &Path) -> Result<Self, NetworkError> {
        let fail = |cause: io::Error| NetworkError::failed(format!("read addresses in {}", directory.display()), cause);
        fs::create_dir_all(directory).map_err(fail)?;
        let mut by_pod = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let address: Option<Ipv4Addr> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let pod = fs::read_to_string(entry.path()).map_err(fail)?;
            match address {
                Some(address) if !pod.is_empty() && !by_pod.contains_key(&pod) => {
                    by_pod.insert(pod, address);
                }
                _ => fs::remove_file(entry.path()).map_err(fail)?,
            }
        }
        let last = by_pod.values().max().copied();
        Ok(Self { directory: directory.to_owned(), by_pod, last })
    }

    pub fn pods(&self) -> impl Iterator<Item = (&String, &Ipv4Addr)> {
        self.by_pod.iter()
    }

    /// The address a pod has.
    pub fn address(&self, pod: &str) -> Option<Ipv4Addr> {
        self.by_pod.get(pod).copied()
    }

    /// The pod's address: the one it has, else a free one, written down before it is told.
    pub fn take(&mut self, pod: &str, range: Range) -> Result<Ipv4Addr, NetworkError> {
        if let Some(address) = self.by_pod.get(pod).copied() {
            if range.contains(address.into()) {
                return Ok(address);
            }
            // The node has another range now.
            self.free(pod)?;
        }
        let used: BTreeSet<Ipv4Addr> = self.by_pod.values().copied().collect();
        let address = plan::next_address(range, &used, self.last).ok_or_else(|| NetworkError::Exhausted(range.to_string()))?;
        let temporary = self.directory.join("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(pod.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, self.directory.join(address.to_string()))?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|cause| NetworkError::failed(format!("write down address {address}"), cause))?;
        self.by_pod.insert(pod.to_owned(), address);
        self.last = Some(address);
        Ok(address)
    }

    /// Gives a pod's address back. No error when it has none.
    pub fn free(&mut self, pod: &str) -> Result<(), NetworkError> {
        let Some(address) = self.by_pod.get(pod).copied() else { return Ok(()) };
        match fs::remove_file(self.directory.join(address.to_string())) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(NetworkError::failed(format!("give address {address} back"), cause));
            }
            _ => {}
        }
        self.by_pod.remove(pod);
        Ok(())
    }

    /// Gives back what belongs to pods that are no more.
    pub fn free_others(&mut self, alive: impl Fn(&str) -> bool) -> Result<(), NetworkError> {
        let gone: Vec<String> = self.by_pod.keys().filter(|pod| !alive(pod)).cloned().collect();
        gone.iter().try_for_each(|pod| self.free(pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_restart_and_half_written_ones_do_not() {
        let directory = tempfile::tempdir().expect("make a directory");
        let range: Range = "10.80.1.0/29".parse().expect("a range");
        let mut ipam = Ipam::open(directory.path()).expect("open");
        let one = ipam.take("one", range).expect("take");
        let two = ipam.take("two", range).expect("take");
        assert_eq!(ipam.take("one", range).expect("again"), one);
        fs::write(directory.path().join("10.80.1.6"), "").expect("a torn file");
        fs::write(directory.path().join("new"), "three").expect("a torn file");
        let mut ipam = Ipam::open(directory.path()).expect("open again");
        assert_eq!(ipam.pods().collect::<Vec<_>>(), [(&"one".to_owned(), &one), (&"two".to_owned(), &two)]);
        ipam.free("one").expect("free");
        ipam.free("one").expect("free twice");
        assert_ne!(ipam.take("three", range).expect("take"), one, "an address rests");
        ipam.free_others(|pod| pod == "two").expect("free");
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 1);
        for pod in ["a", "b", "c", "d"] {
            ipam.take(pod, range).expect("take");
        }
        assert!(matches!(ipam.take("e", range), Err(NetworkError::Exhausted(_))));
        let moved = ipam.take("two", "10.80.2.0/24".parse().expect("a range")).expect("another range");
        assert_eq!(moved, Ipv4Addr::new(10, 80, 2, 2));
    }
}
