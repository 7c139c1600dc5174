//! weir-tidy.
