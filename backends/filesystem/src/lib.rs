//! weir-backend-filesystem.
