//! A storage's settings in our form, for people and for the admin space.

use super::{Durability, History, MirrorSettings, OnClosure, Retain, StorageSettings, Timestamps};
use crate::settings::path_json;
use crate::units::duration_text;
use serde_json::{Value, json};

impl StorageSettings {
    /// Everything in force for this storage, in our form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let patterns: Vec<&str> = self.keys.patterns.iter().map(|p| p.as_str()).collect();
        let mut json = json!({
            "key_expr": if let [one] = patterns[..] { json!(one) } else { json!(patterns) },
            "complete": self.complete,
            "history": match self.history { History::Latest => "latest", History::All => "all" },
            "durability": match self.durability {
                Durability::Written => "written",
                Durability::Synced => "synced",
            },
            "timestamps": match self.timestamps {
                Timestamps::Stamp => "stamp",
                Timestamps::Reject => "reject",
            },
            "future_drift_ms": u64::try_from(self.future_drift.as_millis()).unwrap_or(u64::MAX),
            "garbage_collection": {
                "period": duration_text(self.garbage_collection.period),
                "lifespan": duration_text(self.garbage_collection.lifespan),
            },
            "read_only": self.read_only,
            "on_closure": match self.on_closure {
                OnClosure::DoNothing => "do_nothing",
                OnClosure::Destroy => "destroy_db",
            },
            "queue": { "changes": self.queue_changes },
            "spool": { "dir": path_json(&self.spool.dir), "bytes": self.spool.bytes_max },
            "mirror": self.mirror.as_ref().map_or(json!(false), MirrorSettings::to_json),
        });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                json[name] = value;
            }
        };
        let exclude: Vec<&str> = self.keys.exclude.iter().map(|ke| ke.as_str()).collect();
        set("exclude", (!exclude.is_empty()).then(|| json!(exclude)));
        set("group", self.group.as_ref().map(|group| json!(group)));
        set(
            "strip_prefix",
            self.strip_prefix
                .as_ref()
                .map(|prefix| json!(prefix.as_str())),
        );
        set(
            "shard_by",
            self.shard_by.map(|chunk| json!({ "chunk": chunk })),
        );
        let Retain {
            age,
            bytes,
            versions,
        } = &self.retain;
        let retain = [
            ("age", age.map(|age| json!(duration_text(age)))),
            ("bytes", bytes.map(|bytes| json!(bytes))),
            ("versions", versions.map(|versions| json!(versions))),
        ];
        if retain.iter().any(|(_, limit)| limit.is_some()) {
            let retain = retain
                .into_iter()
                .filter_map(|(name, limit)| Some((name.to_owned(), limit?)));
            set("retain", Some(Value::Object(retain.collect())));
        }
        let policies = &self.policies;
        set(
            "policies",
            (!policies.is_empty()).then(|| policies.to_json()),
        );
        match &self.shards[..] {
            [one] => {
                for (name, value) in one.to_json() {
                    set(&name, Some(value));
                }
            }
            several => {
                set(
                    "shards",
                    Some(
                        several
                            .iter()
                            .map(|shard| Value::Object(shard.to_json()))
                            .collect(),
                    ),
                );
            }
        }
        json
    }
}
