//! Who asks: a user and its groups, proven by a client certificate, a token or by being in the same process. PURE.

use std::collections::BTreeMap;

/// Members may do everything.
pub const ADMINS: &str = "system:masters";
/// Members are nodes; the user's name says which.
pub const NODES: &str = "system:nodes";
/// Before a node's name in its user name.
pub const NODE_PREFIX: &str = "system:node:";
/// Everybody who proved to be somebody.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody else, who is [`ANONYMOUS`].
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
/// Before the namespace and the name of a service account.
pub const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Every service account; with `:NAMESPACE`, those of one.
pub const ACCOUNTS: &str = "system:serviceaccounts";

/// The caller, as a request extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
    /// Of the account the user is, where one is.
    pub uid: Option<String>,
    /// What else is known, such as the pod that a token belongs to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Self {
        Self { user: user.into(), groups: groups.iter().map(|&group| group.to_owned()).collect(), ..Self::default() }
    }

    /// May do everything.
    pub fn admin() -> Self {
        Self::new("podbay-admin", &[ADMINS])
    }

    /// The node of this name.
    pub fn node(name: &str) -> Self {
        Self::new(format!("{NODE_PREFIX}{name}"), &[NODES])
    }

    /// Who proves nothing.
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, &[UNAUTHENTICATED])
    }

    /// The service account of this name.
    pub fn account(namespace: &str, name: &str) -> Self {
        let mut account = Self::new(format!("{ACCOUNT_PREFIX}{namespace}:{name}"), &[]);
        account.groups = account_groups(namespace);
        account
    }

    /// The same, a member of those who proved to be somebody.
    pub fn authenticated(mut self) -> Self {
        if self.user != ANONYMOUS && !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }

    pub fn is_admin(&self) -> bool {
        self.is_in(ADMINS)
    }

    /// The node's name, if this is a node.
    pub fn node_name(&self) -> Option<&str> {
        if !self.is_in(NODES) {
            return None;
        }
        self.user.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty())
    }
}

/// The groups of a namespace's service accounts.
pub fn account_groups(namespace: &str) -> Vec<String> {
    vec![ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{namespace}")]
}

/// Namespace and name of the service account a user is, if it is one.
pub fn account_of(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}
