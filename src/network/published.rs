//! Which pod has which ports of the host, kept in one file over restarts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{HostPort, NetworkError, plan};

pub(super) struct Ports {
    file: PathBuf,
    by_pod: BTreeMap<String, Vec<HostPort>>,
}

impl Ports {
    /// Reads what pods have.
    pub fn open(file: &Path) -> Result<Self, NetworkError> {
        let fail = |cause: String| NetworkError::failed(format!("read the host ports in {}", file.display()), cause);
        let by_pod = match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|cause| fail(cause.to_string()))?,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(cause) => return Err(fail(cause.to_string())),
        };
        Ok(Self { file: file.to_owned(), by_pod })
    }

    pub fn pods(&self) -> impl Iterator<Item = (&String, &HostPort)> {
        self.by_pod.iter().flat_map(|(pod, ports)| ports.iter().map(move |port| (pod, port)))
    }

    /// Gives a pod these ports in the place of those it has. Says whether that changes anything. Pods that are
    /// not alive have none.
    pub fn put(&mut self, pod: &str, ports: &[HostPort], alive: impl Fn(&str) -> bool) -> Result<bool, NetworkError> {
        let mut next = self.by_pod.clone();
        next.retain(|other, _| other != pod && alive(other));
        if let Some(taken) = plan::first_taken(ports, next.values().flatten()) {
            return Err(NetworkError::Taken { port: taken.host_port, protocol: taken.protocol.clone() });
        }
        if !ports.is_empty() {
            next.insert(pod.to_owned(), ports.to_vec());
        }
        let changed = next != self.by_pod;
        if changed {
            self.write(&next).map_err(|cause| NetworkError::failed(format!("write down host ports in {}", self.file.display()), cause))?;
            self.by_pod = next;
        }
        Ok(changed)
    }

    fn write(&self, ports: &BTreeMap<String, Vec<HostPort>>) -> io::Result<()> {
        let next = self.file.with_extension("new");
        let mut file = File::create(&next)?;
        file.write_all(&serde_json::to_vec(ports)?)?;
        file.sync_all()?;
        fs::rename(&next, &self.file)?;
        match self.file.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_belong_to_one_pod_and_survive_a_restart() {
        let directory = tempfile::tempdir().expect("make a directory");
        let file = directory.path().join("host-ports");
        let port = |number| HostPort { protocol: "TCP".into(), host_address: None, host_port: number, port: 80 };
        let mut ports = Ports::open(&file).expect("open");
        assert!(!ports.put("one", &[], |_| true).expect("none"), "nothing is written for nothing");
        assert!(!file.exists());
        assert!(ports.put("one", &[port(8080), port(8081)], |_| true).expect("put"));
        assert!(!ports.put("one", &[port(8080), port(8081)], |_| true).expect("again"));
        assert!(matches!(ports.put("two", &[port(8081)], |_| true), Err(NetworkError::Taken { port: 8081, .. })));
        let mut ports = Ports::open(&file).expect("open again");
        assert_eq!(ports.pods().count(), 2);
        assert!(ports.put("two", &[port(8081)], |pod| pod != "one").expect("the first has gone"));
        assert_eq!(ports.pods().collect::<Vec<_>>(), [(&"two".to_owned(), &port(8081))]);
        assert!(ports.put("two", &[], |_| true).expect("give back"));
        assert_eq!(Ports::open(&file).expect("open").pods().count(), 0);
    }
}
