//! What is left of zenohd's plugins once their settings have moved to ours, and what else belongs
//! to Zenoh.

use crate::path::KeyPath;
use crate::table::{Field, Report, Table, field};
use serde_json::{Map, Value};

/// The top-level names of Zenoh's configuration (zenoh-config 1.10.2, `struct Config`).
pub(crate) const ZENOH_FIELDS: [&str; 23] = [
    "id",
    "metadata",
    "mode",
    "region_name",
    "gateway",
    "connect",
    "listen",
    "open",
    "scouting",
    "timestamping",
    "queries_default_timeout",
    "routing",
    "aggregation",
    "qos",
    "transport",
    "adminspace",
    "namespace",
    "downsampling",
    "access_control",
    "low_pass_filter",
    "stats",
    "plugins_loading",
    "plugins",
];

const MANAGER_FIELDS: &[Field] = &[
    field("volumes", "true", ""),
    field("storages", "true", ""),
    field("backend_search_dirs", "true", ""),
    field("__path__", "true", ""),
    field("__required__", "true", ""),
    field("__plugin__", "true", ""),
    field("__config__", "true", ""),
];

/// Takes what is left of `plugins.storage_manager` out of Zenoh's part: its storages and volumes
/// have moved to ours.
pub(crate) fn check_manager(report: &mut Report<'_>, zenoh: &mut Map<String, Value>) {
    let Some(Value::Object(plugins)) = zenoh.get_mut("plugins") else {
        return;
    };
    let Some(manager) = plugins
        .remove("storage_manager")
        .filter(|value| !value.is_null())
    else {
        return;
    };
    let path = KeyPath::parse("plugins/storage_manager");
    let place = "the storage manager";
    let Some(table) = Table::open(report, path, &manager, place, &[MANAGER_FIELDS]) else {
        return;
    };
    for (name, value) in table.iter() {
        let path = table.at(name);
        match name {
            "backend_search_dirs" | "__path__" | "__plugin__" => {
                let message = format!("`{name}` has no effect");
                report.ignored(&path, message, "backends are built in: remove it");
            }
            "volumes" | "storages" => report.wrong_type(&path, "an object", value),
            _ => {}
        }
    }
}

/// Tells of plugins that nobody will load.
pub(crate) fn check_plugins(report: &mut Report<'_>, zenoh: &Map<String, Value>) {
    let Some(Value::Object(plugins)) = zenoh.get("plugins") else {
        return;
    };
    for name in plugins.keys() {
        let path = KeyPath::from_iter(["plugins", name]);
        let help = "built in are rest and storage_manager; others are not loaded";
        report.ignored(&path, format!("there is no plugin `{name}`"), help);
    }
}
