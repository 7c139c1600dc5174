//! How storages find each other: where they are reached, what they say of themselves, and whether two
//! of them are mirrors.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_core::{
    admission::History,
    pattern::{KeyPattern, KeySet, parse_key_expr},
};
use weir_settings::{MirrorSettings, Peers, StorageSettings};
use xxhash_rust::xxh3::xxh3_64;

use crate::storage::Storage;

/// Where every storage of every router is reached. It begins with `@`: no query of a user's for `**`
/// finds it.
pub(crate) const EVERYONE: &str = "@weir/v1/*/mirror/*";
/// The version of the protocol that we speak.
pub(crate) const PROTOCOL: u32 = 1;
/// What somebody answers who has not been told, or has forgotten, who asks.
pub(crate) const WHO: &str = "who asks? introduce yourself";

/// A storage of a router.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Address {
    /// The router's Zenoh id.
    pub router: String,
    /// The storage's name.
    pub storage: String,
}

/// What a storage says of itself to those who may be its mirrors.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Hello {
    /// Versions of the protocol that it speaks.
    pub protocol: Vec<u32>,
    /// Its router's Zenoh id.
    pub router: String,
    /// Its name.
    pub name: String,
    /// The keys that it stores.
    #[serde(flatten)]
    pub keys: Keys,
    /// Whether it has a time series.
    pub series: bool,
    /// What it is stored on.
    pub backends: Vec<String>,
    /// With whom it is kept the same; with nobody if absent.
    pub mirror: Option<Sides>,
    /// Whether it takes what links bring, as an upstream.
    #[serde(default)]
    pub upstream: bool,
    /// Its clock (NTP64) when it said so.
    pub now: u64,
}

/// From whom a storage takes changes, and to whom it gives them.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Sides {
    /// As in the settings.
    pub from: Value,
    /// As in the settings.
    pub to: Value,
}

/// Who asks: sent beside frames, in full when the other side may not know it, else as a hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Introduction {
    /// The router's Zenoh id.
    pub router: String,
    /// The storage's name; absent if a person asks, who is no mirror and takes part in nothing.
    pub storage: Option<String>,
    /// The link's name, if it is one that asks: of what it forwards, and for what of that is lacking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The keys that it stores, or forwards: what concerns others of what is asked.
    #[serde(flatten)]
    pub keys: Keys,
}

/// The keys that a storage stores, as text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Keys {
    /// Key patterns, with the storage's prefix.
    pub key_exprs: Vec<String>,
    /// Key expressions that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// In which directions changes go between a storage and a mirror.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Directions {
    /// The storage takes the mirror's.
    pub takes: bool,
    /// The mirror takes the storage's.
    pub gives: bool,
}

/// A storage of ours, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// Where it is.
    pub address: Address,
    /// The keys that it stores.
    pub keys: Keys,
    /// With whom it is kept the same.
    pub mirror: Option<MirrorSettings>,
    /// It takes no changes.
    pub read_only: bool,
}

impl Address {
    /// The key on which it is reached, and on which its liveliness token stands.
    pub(crate) fn key(&self) -> String {
        format!("@weir/v1/{}/mirror/{}", self.router, self.storage)
    }

    /// The inverse of [`Address::key`].
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (router, storage) = key.strip_prefix("@weir/v1/")?.split_once("/mirror/")?;
        let plain = |chunk: &str| !chunk.is_empty() && !chunk.contains(['/', '*']);
        (plain(router) && plain(storage)).then(|| Self {
            router: router.to_owned(),
            storage: storage.to_owned(),
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.router, self.storage)
    }
}

impl Own {
    pub(crate) fn new(router: &str, storage: &Storage, settings: &StorageSettings) -> Self {
        Self {
            address: Address {
                router: router.to_owned(),
                storage: storage.name.clone(),
            },
            keys: Keys::of(&storage.set),
            mirror: settings.mirror.clone(),
            read_only: settings.read_only,
        }
    }

    /// What it says of itself now.
    pub(crate) fn hello(&self, storage: &Storage, backends: &[String]) -> Hello {
        let nobody = Peers::Named(Vec::new());
        let sides = |mirror: &MirrorSettings| Sides {
            from: match self.read_only {
                true => nobody.to_json(),
                false => mirror.from.to_json(),
            },
            to: mirror.to.to_json(),
        };
        Hello {
            protocol: vec![PROTOCOL],
            router: self.address.router.clone(),
            name: self.address.storage.clone(),
            keys: self.keys.clone(),
            series: storage.history == History::All,
            backends: backends.to_vec(),
            mirror: self.mirror.as_ref().map(sides),
            upstream: !self.read_only,
            now: storage.now(),
        }
    }

    /// Who it is, beside frames.
    pub(crate) fn introduction(&self) -> Introduction {
        Introduction {
            router: self.address.router.clone(),
            storage: Some(self.address.storage.clone()),
            link: None,
            keys: self.keys.clone(),
        }
    }

    /// Whether its settings name a storage by its router's id: what it takes within one router.
    pub(crate) fn names(&self, other: &Address) -> bool {
        let named = |peers: &Peers| peers.names_router(&other.router, &other.storage);
        let mirror = self.mirror.as_ref();
        mirror.is_some_and(|mirror| named(&mirror.from) || named(&mirror.to))
    }

    /// Whether that storage is a mirror of this one; `None` if nothing goes either way.
    pub(crate) fn directions(&self, peer: &Hello) -> Option<Directions> {
        let (mirror, sides) = (self.mirror.as_ref()?, peer.mirror.as_ref()?);
        let Address { router, storage } = &self.address;
        if *router == peer.router {
            // Two storages of one router are fed by the same samples, and are two for a reason.
            let address = Address {
                router: peer.router.clone(),
                storage: peer.name.clone(),
            };
            if *storage == peer.name || !self.names(&address) {
                return None;
            }
        }
        if !peer.protocol.contains(&PROTOCOL) || !self.keys.meet(&peer.keys) {
            return None;
        }
        let theirs =
            |side: &Value| Peers::from_json(side).is_some_and(|p| p.contains(router, storage));
        let ours = |side: &Peers| side.contains(&peer.router, &peer.name);
        let directions = Directions {
            takes: !self.read_only && ours(&mirror.from) && theirs(&sides.to),
            gives: ours(&mirror.to) && theirs(&sides.from),
        };
        (directions.takes || directions.gives).then_some(directions)
    }
}

impl Keys {
    pub(crate) fn of(set: &KeySet) -> Self {
        Self {
            key_exprs: set
                .patterns
                .iter()
                .map(|pattern| pattern.as_str().to_owned())
                .collect(),
            exclude: set.exclude.iter().map(ToString::to_string).collect(),
        }
    }

    /// The keys as a set.
    ///
    /// # Errors
    /// If one is no key pattern or expression: it comes from another router, whose version may know
    /// more of them.
    pub(crate) fn set(&self) -> Result<KeySet, String> {
        let patterns = self
            .key_exprs
            .iter()
            .map(|text| KeyPattern::parse(text).map_err(|error| format!("`{text}`: {error}")));
        let exclude = self
            .exclude
            .iter()
            .map(|text| parse_key_expr(text).map_err(|error| format!("`{text}`: {error}")));
        Ok(KeySet {
            patterns: patterns.collect::<Result<_, _>>()?,
            exclude: exclude.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a key may belong to both.
    pub(crate) fn meet(&self, other: &Self) -> bool {
        let (Ok(ours), Ok(theirs)) = (self.set(), other.set()) else {
            return false;
        };
        let (ours, theirs) = (ours.declared(), theirs.declared());
        ours.iter().any(|a| theirs.iter().any(|b| a.intersects(b)))
    }
}

impl Introduction {
    /// In full, and the hash that stands for it.
    pub(crate) fn encode(&self) -> (Vec<u8>, [u8; 8]) {
        // A structure of strings always has a form in JSON.
        let full = serde_json::to_vec(self).unwrap_or_default();
        let hash = xxh3_64(&full).to_be_bytes();
        (full, hash)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zenoh::key_expr::keyexpr;

    use super::*;

    fn own(router: &str, name: &str, expr: &str, mirror: Value) -> Own {
        let side = |name: &str| Peers::from_json(mirror.get(name)?);
        let settings = MirrorSettings {
            from: side("from").unwrap_or_default(),
            to: side("to").unwrap_or_default(),
            ..MirrorSettings::default()
        };
        Own {
            address: Address {
                router: router.to_owned(),
                storage: name.to_owned(),
            },
            keys: Keys {
                key_exprs: vec![expr.to_owned()],
                exclude: Vec::new(),
            },
            mirror: (mirror != json!(false)).then_some(settings),
            read_only: mirror["read_only"] == json!(true),
        }
    }

    fn hello(own: &Own) -> Hello {
        let sides = |mirror: &MirrorSettings| Sides {
            from: mirror.from.to_json(),
            to: mirror.to.to_json(),
        };
        Hello {
            protocol: vec![PROTOCOL],
            router: own.address.router.clone(),
            name: own.address.storage.clone(),
            keys: own.keys.clone(),
            series: false,
            backends: Vec::new(),
            mirror: own.mirror.as_ref().map(sides),
            upstream: !own.read_only,
            now: 0,
        }
    }

    #[test]
    fn mirrors_are_those_whose_keys_meet_and_whose_settings_agree() {
        let all = json!({});
        let rows = [
            // Names, key expressions and settings of two storages; whether the first takes and gives.
            (
                ("r1", "a", "x/**", all.clone()),
                ("r2", "b", "x/y/*", all.clone()),
                Some((true, true)),
            ),
            (
                ("r1", "a", "x/**", all.clone()),
                ("r2", "a", "y/**", all.clone()),
                None,
            ),
            (
                ("r1", "a", "x/**", json!(false)),
                ("r2", "a", "x/**", all.clone()),
                None,
            ),
            (
                ("r1", "a", "x/**", all.clone()),
                ("r2", "a", "x/**", json!(false)),
                None,
            ),
            (
                ("r1", "a", "x/**", json!({ "from": [] })),
                ("r2", "a", "x/**", all.clone()),
                Some((false, true)),
            ),
            (
                ("r1", "a", "x/**", all.clone()),
                ("r2", "a", "x/**", json!({ "from": "r3", "to": "*" })),
                Some((true, false)),
            ),
            (
                ("r1", "a", "x/**", json!({ "from": [] })),
                ("r2", "a", "x/**", json!({ "from": [] })),
                None,
            ),
            (
                ("r1", "a", "x/**", json!({ "read_only": true })),
                ("r2", "a", "x/**", json!({ "from": "r1/a", "to": "a" })),
                Some((false, true)),
            ),
            // On one router only if it is asked for.
            (
                ("r1", "a", "x/**", all.clone()),
                ("r1", "b", "x/**", all.clone()),
                None,
            ),
            (
                ("r1", "a", "x/**", json!({ "to": "r1/b" })),
                ("r1", "b", "x/**", all.clone()),
                Some((true, true)),
            ),
            (
                ("r1", "a", "x/**", json!({ "to": "r1" })),
                ("r1", "a", "x/**", all),
                None,
            ),
        ];
        for (a, b, expected) in rows {
            let first = own(a.0, a.1, a.2, a.3.clone());
            let second = own(b.0, b.1, b.2, b.3.clone());
            let found = first.directions(&hello(&second));
            assert_eq!(found.map(|d| (d.takes, d.gives)), expected, "{a:?} {b:?}");
            if first.address.router != second.address.router && !first.read_only {
                let back = second.directions(&hello(&first));
                assert_eq!(
                    back.map(|d| (d.gives, d.takes)),
                    expected,
                    "back: {a:?} {b:?}"
                );
            }
        }
    }

    #[test]
    fn an_address_is_a_key_that_no_wildcard_of_a_user_matches() {
        let address = Address {
            router: "5a1f".to_owned(),
            storage: "seoul rocks.1".to_owned(),
        };
        let key = address.key();
        assert_eq!(Address::parse(&key), Some(address));
        let key = keyexpr::new(key.as_str()).unwrap();
        assert!(keyexpr::new(EVERYONE).unwrap().includes(key));
        assert!(!keyexpr::new("**").unwrap().intersects(key));
        for other in [
            "@weir/v1/5a1f/mirror",
            "@weir/5a1f/status",
            "@weir/v1/5a1f/mirror/a/b",
            EVERYONE,
        ] {
            assert_eq!(Address::parse(other), None, "{other}");
        }
    }
}
