//! The Zenoh router itself: its configuration, its plugins, its runtime.

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value, json};
use weir_settings::Settings;
use zenoh::{
    Config,
    internal::{
        plugins::PluginsManager,
        runtime::{Runtime, RuntimeBuilder},
    },
};
use zenoh_plugin_rest::RestPlugin;

use crate::{
    plugin::{self, StoragePlugin},
    session::Bus,
};

/// A Zenoh router that is built and not yet started.
pub(crate) struct Router {
    runtime: Runtime,
    /// A session inside it.
    pub bus: Bus,
}

/// Zenoh's configuration for what the settings say, as the router `own_id` if they name none, with the
/// storages in it, so that the admin space shows them and changes of them are checked.
///
/// # Errors
/// What Zenoh refuses; nothing, if the settings were checked.
pub(crate) fn config(settings: &Settings, own_id: Option<&str>) -> Result<Config> {
    let mut tree = match &settings.zenoh {
        Value::Object(tree) => tree.clone(),
        _ => Map::new(),
    };
    tree.insert("mode".to_owned(), json!("router"));
    if let Some(id) = own_id {
        tree.insert("id".to_owned(), json!(id));
    }
    // Zenoh's own default leaves the admin space off; existing scripts and `weir status` need it.
    if let Value::Object(admin) = tree.entry("adminspace").or_insert_with(|| json!({})) {
        admin.entry("enabled").or_insert_with(|| json!(true));
    }
    if let Value::Object(plugins) = tree.entry("plugins").or_insert_with(|| json!({})) {
        let section = |name: &str| settings.effective.get(name).cloned().unwrap_or(json!({}));
        let manager = json!({ "volumes": section("volumes"), "storages": section("storages") });
        plugins.insert(plugin::ID.to_owned(), manager);
    }
    Config::from_json5(&Value::Object(tree).to_string()).map_err(|error| anyhow!("{error}"))
}

impl Router {
    /// Builds the router and starts its plugins; nothing listens yet.
    pub(crate) async fn build(config: Config) -> Result<Self> {
        let rest = config
            .get_json("plugins/rest")
            .is_ok_and(|rest| rest != "null");
        let mut plugins = PluginsManager::static_plugins_only();
        plugins.declare_static_plugin::<StoragePlugin, &str>(plugin::ID, true);
        if rest {
            plugins.declare_static_plugin::<RestPlugin, &str>("rest", true);
        }
        for plugin in plugins.declared_plugins_iter_mut() {
            plugin.load().map_err(|error| anyhow!("{error}"))?;
        }
        let builder = RuntimeBuilder::new(config).plugins_manager(plugins);
        let runtime = builder.build().await.map_err(|error| anyhow!("{error}"))?;
        let bus = Bus::inside(runtime.clone().into()).await?;
        Ok(Self { runtime, bus })
    }

    /// Listens, connects, scouts.
    ///
    /// # Errors
    /// What Zenoh says, an endpoint that cannot be bound for one.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.runtime
            .start()
            .await
            .map_err(|error| anyhow!("{error}"))
            .context("cannot start the router")
    }

    /// Takes Zenoh's clock to `time` (NTP64), as far as it lets itself be taken: a restart with the
    /// wall clock set back by less than Zenoh's tolerance then stamps no put below earlier ones.
    pub(crate) fn follow(&self, time: u64) {
        let Some(hlc) = self.runtime.hlc() else {
            return;
        };
        let stamp = zenoh::time::Timestamp::new(zenoh::time::NTP64(time), *hlc.get_id());
        if let Err(error) = hlc.update_with_timestamp(&stamp) {
            tracing::warn!(%error, "Zenoh's clock starts behind what this router has stamped before");
        }
    }

    /// Where it listens.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.runtime
            .get_locators()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Closes every transport and stops.
    pub(crate) async fn close(self) -> Result<()> {
        self.bus.close().await?;
        self.runtime
            .close()
            .await
            .map_err(|error| anyhow!("{error}"))
    }
}
