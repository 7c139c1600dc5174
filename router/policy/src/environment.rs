//! What a policy is told when it begins, and what it says about itself.

use std::{fmt, ops::BitOr};

use serde::Serialize;

use crate::{
    bindings,
    fault::{Cause, Fault},
    limits::{COUNTERS_MAX, NAME_BYTES_MAX, PAYLOAD_PREFIX_MAX, REASONS_MAX},
};

/// Where a policy finds itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment {
    /// The router's id.
    pub router_id: String,
    /// The router's zone; may be empty.
    pub zone: String,
    /// The names of the storage's shards, by index; empty unless the hook is `route`.
    pub shards: Vec<String>,
    /// The policy's own settings, as JSON.
    pub settings_json: String,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            router_id: String::new(),
            zone: String::new(),
            shards: Vec::new(),
            settings_json: "{}".into(),
        }
    }
}

impl Environment {
    /// An environment for `resolve`, which is told its settings alone.
    #[must_use]
    pub fn for_resolve(settings_json: impl Into<String>) -> Self {
        Self {
            settings_json: settings_json.into(),
            ..Self::default()
        }
    }
}

/// A place where a policy can serve.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Which shard of a storage keeps a sample.
    Route,
    /// What becomes of two concurrent versions.
    Resolve,
    /// What leaves a backlog first.
    Prioritize,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Route, Self::Resolve, Self::Prioritize];

    /// Its name in settings and manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Resolve => "resolve",
            Self::Prioritize => "prioritize",
        }
    }

    /// The interface that a policy exports to serve it.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Route => "shard-routing",
            Self::Resolve => "conflict-resolution",
            Self::Prioritize => "backlog-priority",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of hooks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hooks(u8);

impl Hooks {
    /// Whether `hook` is among them.
    #[must_use]
    pub fn contains(self, hook: Hook) -> bool {
        self.0 & (1 << hook as u8) != 0
    }

    /// Those among them, in the order of [`Hook::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Hook> {
        Hook::ALL
            .into_iter()
            .filter(move |hook| self.contains(*hook))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        (bits < 8).then_some(Self(bits))
    }
}

impl FromIterator<Hook> for Hooks {
    fn from_iter<T: IntoIterator<Item = Hook>>(hooks: T) -> Self {
        Self(
            hooks
                .into_iter()
                .fold(0, |bits, hook| bits | 1 << hook as u8),
        )
    }
}

impl fmt::Display for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Hook::name).collect();
        f.write_str(&names.join(", "))
    }
}

impl Serialize for Hooks {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// A set of fields of a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fields(u8);

impl Fields {
    /// None.
    pub const NONE: Self = Self(0);
    /// When and by which clock it was stamped.
    pub const TIMESTAMP: Self = Self(1);
    /// The encoding's number.
    pub const ENCODING: Self = Self(2);
    /// Zenoh's priority.
    pub const PRIORITY: Self = Self(4);
    /// The payload's size.
    pub const SIZE: Self = Self(8);
    /// Put or delete.
    pub const KIND: Self = Self(16);
    /// The first bytes of the payload.
    pub const PAYLOAD: Self = Self(32);
    /// The attachment.
    pub const ATTACHMENT: Self = Self(64);
    /// The key as text.
    pub const KEY: Self = Self(128);

    const NAMED: [(Self, &'static str); 8] = [
        (Self::TIMESTAMP, "timestamp"),
        (Self::ENCODING, "encoding"),
        (Self::PRIORITY, "priority"),
        (Self::SIZE, "size"),
        (Self::KIND, "kind"),
        (Self::PAYLOAD, "payload"),
        (Self::ATTACHMENT, "attachment"),
        (Self::KEY, "key"),
    ];

    /// Whether all of `fields` are in it.
    #[must_use]
    pub fn contains(self, fields: Self) -> bool {
        self.0 & fields.0 == fields.0
    }

    /// Whether anything but `fields` is in it.
    #[must_use]
    pub fn exceeds(self, fields: Self) -> bool {
        self.0 & !fields.0 != 0
    }

    /// The fields' names in the interface.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let named = Self::NAMED.into_iter();
        named.filter_map(move |(field, name)| self.contains(field).then_some(name))
    }
}

impl BitOr for Fields {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Serialize for Fields {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

/// What a policy is and what it needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Manifest {
    /// What it calls itself.
    pub name: String,
    /// Its own version, for people.
    pub version: String,
    /// The hooks that it serves; each is exported.
    pub hooks: Hooks,
    /// What is filled in for it.
    pub needs: Fields,
    /// Bytes of each payload that it sees, at most.
    pub payload_prefix: u32,
    /// What its routes depend on besides the key.
    pub route_varies_with: Fields,
    /// The names of its counters.
    pub counters: Vec<String>,
    /// What the numbers of its refusals mean.
    pub reasons: Vec<String>,
}

impl Manifest {
    /// Whether a route may be remembered for as long as the policy serves.
    #[must_use]
    pub fn routes_by_key_alone(&self) -> bool {
        !self.route_varies_with.exceeds(Fields::KEY)
    }

    /// What the guest said, if it makes sense beside what the module exports.
    pub(crate) fn check(raw: bindings::Manifest, exported: Hooks) -> Result<Self, Fault> {
        let refuse = |message: String| Err(Fault::guest(Cause::Init, message));
        let manifest = Self {
            hooks: raw.hooks(),
            needs: Fields(raw.needs()),
            route_varies_with: Fields(raw.route_varies_with()),
            name: raw.name,
            version: raw.version,
            payload_prefix: raw.payload_prefix,
            counters: raw.counters,
            reasons: raw.reasons,
        };
        if manifest.hooks.is_empty() {
            return refuse("the manifest names no hook; name each that the policy serves".into());
        }
        if let Some(hook) = manifest.hooks.iter().find(|hook| !exported.contains(*hook)) {
            return refuse(format!(
                "the manifest names the hook {hook}, but the module does not export {}: \
                 build it for a world that does",
                hook.interface()
            ));
        }
        if manifest.payload_prefix > PAYLOAD_PREFIX_MAX {
            return refuse(format!(
                "the manifest asks for {} bytes of each payload; {PAYLOAD_PREFIX_MAX} is the most",
                manifest.payload_prefix
            ));
        }
        for (what, names, max) in [
            ("counters", &manifest.counters, COUNTERS_MAX),
            ("reasons", &manifest.reasons, REASONS_MAX),
        ] {
            if names.len() > max {
                let count = names.len();
                return refuse(format!(
                    "the manifest names {count} {what}; {max} is the most"
                ));
            }
        }
        let lists = manifest.counters.iter().chain(&manifest.reasons);
        let names = lists.chain([&manifest.name, &manifest.version]);
        let length = names.map(String::len).max().unwrap_or(0);
        if length > NAME_BYTES_MAX {
            return refuse(format!(
                "a name in the manifest has {length} bytes; {NAME_BYTES_MAX} is the most"
            ));
        }
        Ok(manifest)
    }

    /// An error unless `hook` is among those that it serves.
    pub(crate) fn require(&self, hook: Hook) -> Result<(), Fault> {
        if self.hooks.contains(hook) {
            return Ok(());
        }
        let serves = self.hooks;
        Err(Fault::guest(
            Cause::Init,
            format!("the policy is bound as {hook}, but its manifest says that it serves {serves}"),
        ))
    }
}
