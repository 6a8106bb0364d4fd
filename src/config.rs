//! podbay.toml, flags and environment to one typed value, all errors at once.
