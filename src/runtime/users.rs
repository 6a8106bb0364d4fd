//! What a host can give pods with user namespaces of their own. PURE.

/// What was found when it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Such a namespace, and files of the disk shown with its ids; or why there is none.
    pub on_disk: Result<(), String>,
    /// Files of a tmpfs, which volumes in memory are; or why not.
    pub in_memory: Result<(), String>,
}

impl Users {
    /// A host that has no such namespaces, or none of use.
    pub fn none(cause: String) -> Self {
        Self { on_disk: Err(cause), in_memory: Ok(()) }
    }

    /// What pods cannot have here: a word and a sentence for the node's conditions.
    pub fn lack(&self) -> Option<(&'static str, String)> {
        match (&self.on_disk, &self.in_memory) {
            (Err(cause), _) => Some(("NotAvailable", format!("pods with `hostUsers: false` are refused: {cause}"))),
            (Ok(()), Err(cause)) => {
                let kinds = "Secrets, projected and downward API volumes, emptyDirs of the medium Memory";
                Some(("NotInMemory", format!("pods with `hostUsers: false` cannot have volumes in memory ({kinds}): {cause}")))
            }
            (Ok(()), Ok(())) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_ids_in_memory_lacks_only_that() {
        let no = || Err("no".to_owned());
        let lack = |on_disk, in_memory| Users { on_disk, in_memory }.lack().map(|(reason, _)| reason);
        assert_eq!(lack(Ok(()), Ok(())), None);
        assert_eq!(lack(Ok(()), no()), Some("NotInMemory"));
        assert_eq!(lack(no(), no()), Some("NotAvailable"));
        assert_eq!(Users::none("no".into()).lack().map(|(reason, _)| reason), Some("NotAvailable"));
    }
}
