//! Who asks: a user and its groups, proven by a client certificate or by being in the same process. PURE.

/// Members may do everything.
pub const ADMINS: &str = "system:masters";
/// Members are nodes; the user's name says which.
pub const NODES: &str = "system:nodes";
/// Before a node's name in its user name.
pub const NODE_PREFIX: &str = "system:node:";

/// The caller, as a request extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
}

impl Identity {
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Self {
        Self { user: user.into(), groups: groups.iter().map(|&group| group.to_owned()).collect() }
    }

    /// May do everything.
    pub fn admin() -> Self {
        Self::new("podbay-admin", &[ADMINS])
    }

    /// The node of this name.
    pub fn node(name: &str) -> Self {
        Self::new(format!("{NODE_PREFIX}{name}"), &[NODES])
    }

    pub fn is_admin(&self) -> bool {
        self.groups.iter().any(|group| group == ADMINS)
    }

    /// The node's name, if this is a node.
    pub fn node_name(&self) -> Option<&str> {
        if !self.groups.iter().any(|group| group == NODES) {
            return None;
        }
        self.user.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty())
    }
}
