//! weir-backend-api.
