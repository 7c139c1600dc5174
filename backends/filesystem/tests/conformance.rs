//! The suite of all backends on stores in directories of files.

use std::path::Path;

use weir_backend_filesystem::FilesystemVolume;

weir_backend_api::conformance!(|_: &Path| FilesystemVolume::new());
