//! Names that sync reads from and writes to Source objects. PURE.

/// Annotation: look now. The value comes back in `status.handledRequest`.
pub const REQUESTED_AT: &str = "podbay.dev/reconcile-requested-at";
/// Annotation: the request, as in [`REQUESTED_AT`], that may take over what Podbay did not create.
pub const ADOPT: &str = "podbay.dev/adopt-for-request";
/// Annotation: the id of the plan that a person approved.
pub const APPROVE: &str = "podbay.dev/approve";
/// Annotation: deleting the Source deletes what it created.
pub const PRUNE: &str = "podbay.dev/prune";
/// Keeps a deleted Source until sync has let go of what it holds.
pub const FINALIZER: &str = "podbay.dev/inventory";
