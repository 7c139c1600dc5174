//! What the tests share: hosts, batches, and one call that everything goes through.

use std::sync::Arc;

use weir_core::{
    key::Key,
    placement::{Description, Destination},
    value::{Encoding, Value},
    version::Stamp,
};
use weir_policy::{
    Environment, Fault, Host, Limits, Refusal, Revision, RouteInstance, Settings, Stats,
};

use crate::guest::Guest;

pub fn host_with(limits: Limits) -> Arc<Host> {
    Host::new(Settings {
        limits,
        ..Settings::default()
    })
    .unwrap()
}

pub fn host() -> Arc<Host> {
    host_with(Limits::default())
}

pub fn load(host: &Arc<Host>, guest: &Guest) -> Arc<Revision> {
    try_load(host, guest).unwrap_or_else(|refusal| panic!("{refusal}"))
}

pub fn try_load(host: &Arc<Host>, guest: &Guest) -> Result<Arc<Revision>, Refusal> {
    host.load("test", &guest.wasm())
}

pub fn router(host: &Arc<Host>, guest: &Guest) -> Result<RouteInstance, Fault> {
    RouteInstance::new(
        &load(host, guest),
        &Environment::default(),
        Arc::new(Stats::default()),
    )
}

/// Samples with keys `0`, `1`, `2`..., and stamps, payloads and attachments of their own.
pub struct Samples(Vec<(Key, Value)>);

impl Samples {
    pub fn new(count: usize) -> Self {
        let value = |n| Value {
            encoding: Encoding {
                id: 7,
                schema: None,
            },
            attachment: Some("meta".into()),
            payload: format!("payload {n}").into(),
        };
        let sample = |n: usize| (Key::from(&*n.to_string()), value(n));
        Self((0..count).map(sample).collect())
    }

    pub fn describe(&self) -> Vec<Description<'_>> {
        let samples = self.0.iter().zip(0u64..);
        let mut id = [1; 16];
        id[15] = 2;
        let describe = samples.map(|((key, value), n)| Description {
            key,
            key_hash: n,
            stamp: Some(Stamp { time: 1000 + n, id }),
            value: Some(value),
            priority: 5,
        });
        describe.collect()
    }
}

/// Asks about `count` samples under the prefix `fleet`, with four shards.
pub fn route(instance: &mut RouteInstance, count: usize) -> (Vec<Destination>, Result<(), Fault>) {
    let samples = Samples::new(count);
    let mut out = Vec::new();
    let result = instance.route("fleet", 4, &samples.describe(), &mut out);
    assert_eq!(
        out.len(),
        count,
        "one destination for each sample, whatever happens"
    );
    (out, result)
}
