//! `wit/policy-0.1/policy.wit` as Rust types. Field order, names and types are checked against each
//! module when it is loaded.
//!
//! Written by hand: batches are passed as shared buffers that are filled again for every call, where
//! generated bindings would have lifetimes that no stored function can have.

use std::{mem::MaybeUninit, sync::Arc};

use wasmtime::component::{
    __internal::{InterfaceType, LowerContext},
    ComponentType, Lift, Lower, flags,
};
use weir_core::{
    backlog, placement, resolution,
    value::{Encoding, Value},
    version::Stamp,
};

use crate::environment::{Hook, Hooks};

/// The package, without the interface and the version.
pub const PACKAGE: &str = "weir:policy";
/// The version that this host speaks.
pub const VERSION: &str = "0.1.0";
pub const HOST: &str = "weir:policy/host@0.1.0";
pub const LIFECYCLE: &str = "weir:policy/lifecycle@0.1.0";
pub const SHARD_ROUTING: &str = "weir:policy/shard-routing@0.1.0";
pub const CONFLICT_RESOLUTION: &str = "weir:policy/conflict-resolution@0.1.0";
pub const BACKLOG_PRIORITY: &str = "weir:policy/backlog-priority@0.1.0";

pub type Init = ((Arc<Environment>,), (Result<Manifest, InitError>,));
pub type Route = ((u32, Arc<Batch>), (Result<Vec<Destination>, String>,));
pub type Prioritize = ((Link, Arc<Batch>), (Result<Vec<Verdict>, String>,));
pub type ResolveParams<'a> = (&'a str, Version<'a>, Version<'a>);
pub type ResolveResult = (Result<Resolution, String>,);

#[derive(ComponentType, Lower, Clone, Copy, Default)]
#[component(record)]
pub struct Hlc {
    ntp64: u64,
    #[component(name = "id-high")]
    id_high: u64,
    #[component(name = "id-low")]
    id_low: u64,
}

impl From<Stamp> for Hlc {
    fn from(stamp: Stamp) -> Self {
        let id = u128::from_be_bytes(stamp.id);
        let [high, low] = [id >> 64, id & u128::from(u64::MAX)];
        let half = |half| u64::try_from(half).unwrap_or(u64::MAX);
        Self {
            ntp64: stamp.time,
            id_high: half(high),
            id_low: half(low),
        }
    }
}

#[derive(ComponentType, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub enum SampleKind {
    #[component(name = "put")]
    Put,
    #[component(name = "delete")]
    Delete,
}

/// Lowered by hand: the derived way looks at the memory and the type anew for each field of each sample,
/// which costs more than all the rest of a call.
#[derive(ComponentType, Clone, Copy)]
#[component(record)]
pub struct Sample {
    #[component(name = "key-hash")]
    pub key_hash: u64,
    pub timestamp: Hlc,
    #[component(name = "payload-size")]
    pub payload_size: u32,
    #[component(name = "key-end")]
    pub key_end: u32,
    #[component(name = "payload-end")]
    pub payload_end: u32,
    #[component(name = "attachment-end")]
    pub attachment_end: u32,
    pub encoding: u16,
    pub priority: u8,
    pub kind: SampleKind,
}

impl Sample {
    /// Bytes of a sample in a guest's memory.
    const LEN: usize = 56;

    /// As the canonical ABI lays a sample out: fields in order, each aligned to its size. What is left
    /// of the last eight is padding.
    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let longs = [
            self.key_hash,
            self.timestamp.ntp64,
            self.timestamp.id_high,
            self.timestamp.id_low,
        ];
        for (place, long) in bytes[..32].as_chunks_mut().0.iter_mut().zip(longs) {
            *place = long.to_le_bytes();
        }
        let words = [
            self.payload_size,
            self.key_end,
            self.payload_end,
            self.attachment_end,
        ];
        for (place, word) in bytes[32..48].as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes[48..50].copy_from_slice(&self.encoding.to_le_bytes());
        bytes[50] = self.priority;
        bytes[51] = self.kind as u8;
        bytes
    }
}

#[expect(
    unsafe_code,
    reason = "wasmtime's trait is unsafe; what it asks is that the bytes are those of the type"
)]
// SAFETY: `to_bytes` is the layout that the derived `ComponentType` describes, which a test compares
// with what a guest reads.
unsafe impl Lower for Sample {
    fn linear_lower_to_flat<T>(
        &self,
        _: &mut LowerContext<'_, T>,
        _: InterfaceType,
        _: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg("a sample travels in a list"))
    }

    fn linear_lower_to_memory<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        _: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        *cx.get(offset) = self.to_bytes();
        Ok(())
    }

    fn linear_store_list_to_memory<T>(
        cx: &mut LowerContext<'_, T>,
        _: InterfaceType,
        offset: usize,
        samples: &[Self],
    ) -> wasmtime::Result<()> {
        let memory = cx.as_slice_mut();
        let room = memory
            .get_mut(offset..)
            .unwrap_or_default()
            .as_chunks_mut()
            .0;
        if room.len() < samples.len() {
            return Err(wasmtime::Error::msg(
                "the samples lie outside of the memory",
            ));
        }
        for (place, sample) in room.iter_mut().zip(samples) {
            *place = sample.to_bytes();
        }
        Ok(())
    }
}

#[derive(ComponentType, Lower, Clone, Default)]
#[component(record)]
pub struct Batch {
    pub samples: Vec<Sample>,
    pub keys: String,
    pub payloads: Vec<u8>,
    pub attachments: Vec<u8>,
}

flags! {
    FieldFlags {
        #[component(name = "timestamp")]
        const TIMESTAMP;
        #[component(name = "encoding")]
        const ENCODING;
        #[component(name = "priority")]
        const PRIORITY;
        #[component(name = "size")]
        const SIZE;
        #[component(name = "kind")]
        const KIND;
        #[component(name = "payload")]
        const PAYLOAD;
        #[component(name = "attachment")]
        const ATTACHMENT;
        #[component(name = "key")]
        const KEY;
    }
}

flags! {
    HookFlags {
        #[component(name = "route")]
        const ROUTE;
        #[component(name = "resolve")]
        const RESOLVE;
        #[component(name = "prioritize")]
        const PRIORITIZE;
    }
}

#[derive(ComponentType, Lift, Clone, Copy, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the derived `Lift` makes them of their numbers")]
pub enum Level {
    #[component(name = "error")]
    Error,
    #[component(name = "warn")]
    Warn,
    #[component(name = "info")]
    Info,
    #[component(name = "debug")]
    Debug,
    #[component(name = "trace")]
    Trace,
}

#[derive(ComponentType, Lower, Clone)]
#[component(record)]
pub struct Environment {
    #[component(name = "router-id")]
    pub router_id: String,
    pub zone: String,
    pub shards: Vec<String>,
    pub settings: String,
}

impl From<&crate::environment::Environment> for Environment {
    fn from(environment: &crate::environment::Environment) -> Self {
        let environment = environment.clone();
        Self {
            router_id: environment.router_id,
            zone: environment.zone,
            shards: environment.shards,
            settings: environment.settings_json,
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    hooks: HookFlags,
    needs: FieldFlags,
    #[component(name = "payload-prefix")]
    pub payload_prefix: u32,
    #[component(name = "route-varies-with")]
    route_varies_with: FieldFlags,
    pub counters: Vec<String>,
    pub reasons: Vec<String>,
}

impl Manifest {
    pub fn hooks(&self) -> Hooks {
        let named = [
            (HookFlags::ROUTE, Hook::Route),
            (HookFlags::RESOLVE, Hook::Resolve),
            (HookFlags::PRIORITIZE, Hook::Prioritize),
        ];
        let set = |(flag, hook): (HookFlags, Hook)| (self.hooks & flag == flag).then_some(hook);
        named.into_iter().filter_map(set).collect()
    }

    /// One bit a field, in the order of the interface.
    pub fn needs(&self) -> u8 {
        bits(self.needs)
    }

    /// One bit a field, in the order of the interface.
    pub fn route_varies_with(&self) -> u8 {
        bits(self.route_varies_with)
    }
}

fn bits(fields: FieldFlags) -> u8 {
    let flags = [
        FieldFlags::TIMESTAMP,
        FieldFlags::ENCODING,
        FieldFlags::PRIORITY,
        FieldFlags::SIZE,
        FieldFlags::KIND,
        FieldFlags::PAYLOAD,
        FieldFlags::ATTACHMENT,
        FieldFlags::KEY,
    ];
    let set = |(index, flag): (usize, FieldFlags)| u8::from(fields & flag == flag) << index;
    flags.into_iter().enumerate().map(set).sum()
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub enum InitError {
    #[component(name = "bad-settings")]
    BadSettings(String),
    #[component(name = "unsupported")]
    Unsupported(String),
    #[component(name = "other")]
    Other(String),
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub enum Destination {
    #[component(name = "default")]
    Default,
    #[component(name = "token")]
    Token(u64),
    #[component(name = "shard")]
    Shard(u32),
    #[component(name = "shards")]
    Shards(Vec<u32>),
    #[component(name = "reject")]
    Reject(u32),
}

impl From<Destination> for placement::Destination {
    fn from(destination: Destination) -> Self {
        match destination {
            Destination::Default => Self::Default,
            Destination::Token(token) => Self::Token(token),
            Destination::Shard(shard) => Self::Shard(shard),
            Destination::Shards(shards) => Self::Shards(shards),
            Destination::Reject(reason) => Self::Reject(reason),
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub struct ValueParam<'a> {
    encoding: u16,
    schema: &'a [u8],
    payload: &'a [u8],
    attachment: Option<&'a [u8]>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub struct Version<'a> {
    timestamp: Hlc,
    value: Option<ValueParam<'a>>,
}

impl<'a> From<resolution::Contender<'a>> for Version<'a> {
    fn from(contender: resolution::Contender<'a>) -> Self {
        Self {
            timestamp: contender.version.stamp.into(),
            value: contender.value.map(|value| ValueParam {
                encoding: value.encoding.id,
                schema: value.encoding.schema.as_deref().unwrap_or_default(),
                payload: &value.payload,
                attachment: value.attachment.as_deref(),
            }),
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct ValueResult {
    encoding: u16,
    schema: Vec<u8>,
    payload: Vec<u8>,
    attachment: Option<Vec<u8>>,
}

impl From<ValueResult> for Value {
    fn from(value: ValueResult) -> Self {
        Self {
            encoding: Encoding {
                id: value.encoding,
                schema: (!value.schema.is_empty()).then(|| value.schema.into()),
            },
            attachment: value.attachment.map(Into::into),
            payload: value.payload.into(),
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub enum Resolution {
    #[component(name = "default")]
    Default,
    #[component(name = "keep-first")]
    KeepFirst,
    #[component(name = "keep-second")]
    KeepSecond,
    #[component(name = "merge")]
    Merge(ValueResult),
    #[component(name = "delete")]
    Delete,
}

impl From<Resolution> for resolution::Resolution {
    fn from(resolution: Resolution) -> Self {
        match resolution {
            Resolution::Default => Self::Default,
            Resolution::KeepFirst => Self::First,
            Resolution::KeepSecond => Self::Second,
            Resolution::Merge(value) => Self::Merge(value.into()),
            Resolution::Delete => Self::Delete,
        }
    }
}

#[derive(ComponentType, Lower, Clone)]
#[component(record)]
pub struct Link {
    pub name: Arc<str>,
    pub now: u64,
    pub queued: u64,
    #[component(name = "queued-bytes")]
    pub queued_bytes: u64,
    #[component(name = "capacity-bytes")]
    pub capacity_bytes: u64,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct Placement {
    lane: u8,
    expires: u64,
    #[component(name = "newest-only")]
    newest_only: bool,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub enum Verdict {
    #[component(name = "default")]
    Default,
    #[component(name = "place")]
    Place(Placement),
    #[component(name = "drop")]
    Drop(u32),
}

impl From<Verdict> for backlog::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Default => Self::Default,
            Verdict::Place(placement) => Self::Place(backlog::Placement {
                lane: placement.lane,
                expires: (placement.expires != 0).then_some(placement.expires),
                newest_only: placement.newest_only,
            }),
            Verdict::Drop(reason) => Self::Drop(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_as_long_as_its_type_says() {
        assert_eq!(Sample::SIZE32, Sample::LEN);
        assert_eq!(Sample::ALIGN32, 8);
    }

    #[test]
    fn an_hlc_orders_as_a_stamp() {
        let stamp = |time, first, last| {
            let mut id = [0; 16];
            (id[0], id[15]) = (first, last);
            Stamp { time, id }
        };
        let stamps = [
            stamp(1, 9, 9),
            stamp(2, 0, 1),
            stamp(2, 0, 2),
            stamp(2, 1, 0),
        ];
        let fields = |stamp: Stamp| {
            let hlc = Hlc::from(stamp);
            (hlc.ntp64, hlc.id_high, hlc.id_low)
        };
        for pair in stamps.windows(2) {
            assert!(pair[0] < pair[1] && fields(pair[0]) < fields(pair[1]));
        }
    }
}
