//! The service as Zenoh's static plugin `storage_manager`: under that id existing scripts find their
//! admin keys, for status and for adding and removing storages at run time.

use std::sync::Arc;

use parking_lot::Mutex;
use zenoh::{
    internal::{
        bail,
        plugins::{Response, RunningPlugin, RunningPluginTrait, ZenohPlugin},
        runtime::DynamicRuntime,
    },
    key_expr::{KeyExpr, keyexpr},
};
use zenoh_plugin_trait::{Plugin, PluginControl};
use zenoh_util::ffi::JsonKeyValueMap;

use crate::{admin, service::Service};

/// The id under which the storages are administered.
pub(crate) const ID: &str = "storage_manager";

/// Zenoh starts a static plugin with nothing but its runtime, so the composition root leaves the
/// service here, and the plugin takes it when it is started.
static SERVICE: Mutex<Option<Arc<Service>>> = Mutex::new(None);

/// Zenoh's handle of the service.
pub(crate) struct StoragePlugin;

/// Leaves the service for the plugin that is about to be started.
pub(crate) fn provide(service: Arc<Service>) {
    *SERVICE.lock() = Some(service);
}

struct Running(Arc<Service>);

impl ZenohPlugin for StoragePlugin {}

impl Plugin for StoragePlugin {
    type StartArgs = DynamicRuntime;
    type Instance = RunningPlugin;

    const DEFAULT_NAME: &'static str = ID;
    const PLUGIN_VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PLUGIN_LONG_VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn start(_name: &str, _runtime: &DynamicRuntime) -> zenoh::Result<RunningPlugin> {
        match SERVICE.lock().take() {
            Some(service) => Ok(Box::new(Running(service))),
            None => bail!("the storage service is started once, by `weir run`"),
        }
    }
}

impl PluginControl for Running {}

impl RunningPluginTrait for Running {
    fn config_checker(
        &self,
        path: &str,
        current: &JsonKeyValueMap,
        new: &JsonKeyValueMap,
    ) -> zenoh::Result<Option<JsonKeyValueMap>> {
        match self
            .0
            .change(path, &current.into_serde_map(), &new.into_serde_map())
        {
            Ok(()) => Ok(None),
            Err(error) => bail!("{error:#}"),
        }
    }

    fn adminspace_getter<'a>(
        &'a self,
        asked: &'a KeyExpr<'a>,
        status_key: &str,
    ) -> zenoh::Result<Vec<Response>> {
        let entries = admin::stock_status(&self.0).into_iter();
        let responses = entries.filter_map(|(path, value)| {
            let key = format!("{status_key}/{path}");
            let matches = keyexpr::new(&key).is_ok_and(|key| asked.intersects(key));
            matches.then(|| Response::new(key, value))
        });
        Ok(responses.collect())
    }
}
