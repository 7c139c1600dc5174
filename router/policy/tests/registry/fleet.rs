//! What the tests share: a router's policies over a directory, and somebody who asks.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use weir_core::{
    key::Key,
    placement::{Description, Destination, Route},
    slot::{Limits, OnRemove},
};
use weir_policy::{
    Environment, Host, Policies, PoliciesSettings, Settings,
    directory::DirectorySettings,
    signature::SignatureMode,
    slot::RouteSlot,
    status::{PolicyStatus, SlotStatus},
};

use crate::guest::Guest;

/// Long enough for a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What the native rule of these tests answers.
pub const NATIVE: u64 = u64::MAX;
/// One second as NTP64.
pub const SECOND: u64 = 1 << 32;

pub struct Fleet {
    pub root: TempDir,
    pub policies: Arc<Policies>,
}

pub fn settings(root: &TempDir) -> PoliciesSettings {
    PoliciesSettings {
        directory: DirectorySettings {
            dir: root.path().join("policies"),
            // Longer than any test: what is seen was seen because of an event.
            poll: Duration::from_secs(3600),
            events: true,
        },
        signatures: SignatureMode::Off,
        keys: Vec::new(),
        on_remove: OnRemove::Native,
        breaker: Limits::default(),
        settings: [("geo".to_owned(), "{\"zone\":1}".to_owned())].into(),
        laws_every: Duration::from_secs(3600),
        admission: Vec::new(),
    }
}

impl Fleet {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut PoliciesSettings)) -> Self {
        Self::over(TempDir::new().unwrap(), change)
    }

    /// A router over a directory that may hold something already.
    pub fn over(root: TempDir, change: impl FnOnce(&mut PoliciesSettings)) -> Self {
        fs::create_dir_all(root.path().join("policies")).unwrap();
        let mut settings = settings(&root);
        change(&mut settings);
        let host = Host::new(Settings {
            cache: Some(root.path().join("cache")),
            ..Settings::default()
        });
        let environment = Environment {
            router_id: "r1".into(),
            zone: "seoul".into(),
            ..Environment::default()
        };
        let policies = Policies::start(settings, host.unwrap(), environment).unwrap();
        Self { root, policies }
    }

    pub fn at(&self, file: &str) -> PathBuf {
        self.root.path().join("policies").join(file)
    }

    /// Drops a module as tools do: moved into place.
    pub fn drop_in(&self, file: &str, bytes: impl AsRef<[u8]>) {
        let part = self.root.path().join("part");
        fs::write(&part, bytes).unwrap();
        fs::rename(part, self.at(file)).unwrap();
    }

    pub fn note(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at(&format!("{name}.wasm.error"))).ok()
    }

    pub fn bind(&self, policy: &str) -> RouteSlot {
        let shards = vec!["a".into(), "b".into()];
        self.policies
            .bind_route("fleet", policy, "", shards, Box::new(Native))
    }

    pub fn status(&self, policy: &str) -> PolicyStatus {
        let all = self.policies.status();
        let found = all.into_iter().find(|status| status.name == policy);
        found.unwrap_or_else(|| panic!("no policy {policy}"))
    }

    pub fn slot(&self, policy: &str) -> SlotStatus {
        self.status(policy).slots.remove(0)
    }

    /// Waits until the status is so.
    pub fn wait(&self, policy: &str, until: impl Fn(&PolicyStatus) -> bool) {
        wait(|| {
            let all = self.policies.status();
            let found = all.into_iter().find(|status| status.name == policy);
            match found {
                Some(status) if until(&status) => Ok(()),
                found => Err(format!("{found:#?}")),
            }
        });
    }

    /// Waits until a batch is decided by `token`, asking again and again.
    pub fn wait_for_verdict(&self, slot: &mut RouteSlot, token: u64) -> Duration {
        let began = Instant::now();
        wait(|| match ask(slot, 3) {
            found if found == token => Ok(()),
            found => Err(format!(
                "{found}, not {token}: {:#?}",
                self.policies.status()
            )),
        });
        began.elapsed()
    }
}

/// Tries until it is so, or for too long.
pub fn wait(mut until: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    while let Err(found) = until() {
        assert!(began.elapsed() < PATIENCE, "still: {found}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Asks about a batch; every sample has to be decided by the same rule, whose token is returned.
pub fn ask(slot: &mut RouteSlot, count: usize) -> u64 {
    let mut destinations = vec![Destination::Shard(9)];
    slot.route(&samples(count), &mut destinations);
    assert_eq!(destinations.len(), count + 1, "one destination for each");
    assert_eq!(
        destinations[0],
        Destination::Shard(9),
        "what was there stays"
    );
    let Destination::Token(first) = destinations[1] else {
        panic!("{destinations:?}");
    };
    let is_first = |one: &Destination| *one == Destination::Token(first);
    assert!(destinations[1..].iter().all(is_first), "{destinations:?}");
    first
}

pub fn samples(count: usize) -> Vec<Description<'static>> {
    static KEY: std::sync::LazyLock<Key> = std::sync::LazyLock::new(|| Key::from("drone/7"));
    let sample = |n| Description {
        key: &KEY,
        key_hash: n,
        stamp: None,
        value: None,
        priority: 5,
    };
    (0..count as u64).map(sample).collect()
}

/// Answers [`NATIVE`] for everything.
pub struct Native;

impl Route for Native {
    fn route(&mut self, batch: &[Description<'_>], destinations: &mut Vec<Destination>) {
        destinations.extend(batch.iter().map(|_| Destination::Token(NATIVE)));
    }
}

/// A guest that answers this token for every sample.
pub fn answers(token: u64) -> Guest {
    let body = format!(
        "(i32.store8 (local.get $answer) (i32.const 1))
         (i64.store (i32.add (local.get $answer) (i32.const 8)) (i64.const {token}))"
    );
    Guest::router_each(&body)
}

/// A guest that traps at every call.
pub fn traps() -> Guest {
    Guest::router("unreachable")
}
