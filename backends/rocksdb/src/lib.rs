//! weir-backend-rocksdb.
