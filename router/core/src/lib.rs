//! weir-core.
