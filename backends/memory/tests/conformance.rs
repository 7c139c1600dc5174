//! The suite of all backends on stores in memory.

use std::path::Path;

use weir_backend_memory::MemoryVolume;

weir_backend_api::conformance!(|_: &Path| MemoryVolume::new());
