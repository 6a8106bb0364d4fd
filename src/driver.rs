//! The one loop that runs every reconciler.
