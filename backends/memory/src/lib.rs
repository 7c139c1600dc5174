//! weir-backend-memory.
