//! A link's settings in our form, for people and for the admin space.

use super::{ForwardSettings, JournalSync, LaneRule, OnFull, Order};
use crate::settings::path_json;
use crate::storage::Peers;
use crate::units::duration_text;
use serde_json::{Value, json};
use weir_core::pattern::KeySet;

impl ForwardSettings {
    /// Everything in force for this link, in our form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "key_expr": patterns_json(&self.keys),
            "to": match &self.to {
                Peers::All => json!("discover"),
                named @ Peers::Named(_) => named.to_json(),
            },
            "dir": path_json(&self.dir),
            "budget": { "bytes": self.budget.bytes },
            "on_full": self.on_full.as_str(),
            "order": match self.order {
                Order::OldestFirst => "oldest-first",
                Order::NewestFirst => "newest-first",
            },
            "sync": match self.sync {
                JournalSync::Always => "always".to_owned(),
                JournalSync::Within(span) => duration_text(span),
                JournalSync::Never => "never".to_owned(),
            },
            "period": duration_text(self.period),
            "timeout": duration_text(self.timeout),
            "keep": duration_text(self.keep),
        });
        let exclude: Vec<&str> = self.keys.exclude.iter().map(|ke| ke.as_str()).collect();
        if !exclude.is_empty() {
            json["exclude"] = json!(exclude);
        }
        if let Some(age) = self.budget.age {
            json["budget"]["age"] = json!(duration_text(age));
        }
        if !self.lanes.is_empty() {
            json["lanes"] = self.lanes.iter().map(LaneRule::to_json).collect();
        }
        if let Some(rate) = self.rate {
            json["rate"] = json!(rate);
        }
        if let Some(policy) = &self.prioritize {
            json["policies"] = json!({ "prioritize": policy });
        }
        json
    }
}

impl OnFull {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RejectNew => "reject-new",
            Self::DropOldest => "drop-oldest",
            Self::DropLowestLane => "drop-lowest-lane",
            Self::Coalesce => "coalesce",
        }
    }
}

impl LaneRule {
    fn to_json(&self) -> Value {
        let mut json = json!({ "key_expr": patterns_json(&self.keys) });
        if let Some(lane) = self.lane {
            json["lane"] = json!(lane);
        }
        if let Some(expires) = self.expires {
            json["expires"] = json!(duration_text(expires));
        }
        if self.newest_only {
            json["newest_only"] = json!(true);
        }
        json
    }
}

fn patterns_json(keys: &KeySet) -> Value {
    let patterns: Vec<&str> = keys.patterns.iter().map(|p| p.as_str()).collect();
    match patterns[..] {
        [one] => json!(one),
        _ => json!(patterns),
    }
}
