//! The composition root: which implementation stands behind which seam.
