//! What every backend promises.

use std::path::Path;

use weir_backend_rocksdb::RocksdbVolume;

weir_backend_api::conformance!(|_: &Path| RocksdbVolume::default());
