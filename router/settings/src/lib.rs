//! weir-settings.
