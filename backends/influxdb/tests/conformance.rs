//! The suite of all backends on a real influxd 1.x: over a local store on disk, over one in memory,
//! and with commits that wait until the server has everything.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/influxd.rs"]
mod influxd;
#[path = "common/shipped.rs"]
mod shipped;

use std::{path::Path, sync::Arc, time::Duration};

use weir_backend_api::Volume;
use weir_backend_filesystem::FilesystemVolume;
use weir_backend_influxdb::{InfluxSettings, InfluxVolume};
use weir_backend_memory::MemoryVolume;

use crate::shipped::ShippedVolume;

/// A volume with a database for each store of the test, which `dir` names.
fn volume(dir: &Path, local: Arc<dyn Volume>) -> Box<dyn Volume> {
    let Some(server) = influxd::shared() else {
        // The test is counted as skipped, whatever this does.
        return Box::new(MemoryVolume::new());
    };
    let test = dir.file_name().unwrap().to_string_lossy();
    let settings = InfluxSettings {
        // Most batches of the suite are small.
        linger: Duration::from_millis(1),
        ..server.settings(&format!("{test} {{name}}"))
    };
    Box::new(InfluxVolume::new(settings, local).unwrap())
}

mod over_files {
    use super::*;
    weir_backend_api::conformance!(|dir: &Path| volume(dir, Arc::new(FilesystemVolume::new())));
}

mod over_memory {
    use super::*;
    weir_backend_api::conformance!(|dir: &Path| volume(dir, Arc::new(MemoryVolume::new())));
}

/// What is about history once more, with every answer from the server.
mod from_the_server {
    use super::*;
    weir_backend_api::conformance_tests! {
        |dir: &Path| ShippedVolume(volume(dir, Arc::new(FilesystemVolume::new())));
        history: [
            history_takes_each_version_once,
            history_is_read_by_key_and_version,
            a_snapshot_of_history_is_one_moment,
        ],
        lifecycle: [
            a_restart_loses_nothing,
            a_drop_without_close_loses_nothing,
            read_only_refuses_writes,
            destroys_on_close,
            stores_are_apart,
            a_refused_batch_leaves_nothing,
        ],
    }
}
