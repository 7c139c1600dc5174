//! A block: some entries of a lane, and a checksum over them. A block stands for itself; what is damaged
//! in one does not matter to another.
//!
//! The table of its bytes is in the documentation of the crate.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    iter,
};

use bytes::Bytes;
use thiserror::Error;
use weir_core::{
    change::{Change, KeptChange, WildcardChange},
    forward::{Entry, Source},
    key::Key,
    ledger::Summary,
    value::{Encoding, Value},
    version::Stamp,
};
use zenoh_keyexpr::OwnedKeyExpr;

use crate::{
    calendar::Slot,
    varint::{Cursor, put, put_len, put_step},
};

/// Bytes of [`Head`].
pub(crate) const HEAD_LEN: usize = 64;
/// How a block begins: the last byte is the version.
pub(crate) const MAGIC: [u8; 4] = *b"WBK\x01";

const PUT: u8 = 1;
const WILDCARD: u8 = 2;
const SCHEMA: u8 = 4;
const ATTACHMENT: u8 = 8;
const EXPIRES: u8 = 16;
const NEWEST_ONLY: u8 = 32;
const ENCODING: u8 = 64;
const SOURCE: u8 = 128;

/// Zenoh's priority of what says none: data.
pub(crate) const PRIORITY: u8 = 5;
/// Bytes of a run of priorities at the most: how many, and which.
const RUN_LEN: usize = 6;

/// What is known of a block without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Bytes behind the head.
    pub body: u32,
    /// Their checksum.
    pub crc: u32,
    /// Entries.
    pub records: u32,
    /// The position of the first entry in its lane; the others follow.
    pub first: u64,
    /// How much had been appended, over all lanes, when the last entry was.
    pub mark: u64,
    /// The earliest stamp of an entry (NTP64); above `latest` if there is no entry.
    pub earliest: u64,
    /// The latest.
    pub latest: u64,
    /// How many of the entries are wildcard operations.
    pub operations: u32,
    /// The lower half of the segment's id.
    pub segment: u32,
    /// When the last of it was appended, in seconds since the Unix epoch.
    pub appended: u32,
}

/// The bytes of a block make no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{0}")]
pub struct Damage(pub(crate) &'static str);

impl Head {
    /// The position behind its last entry.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.first + self.records as u64
    }

    /// Its bytes, head and body.
    #[must_use]
    pub const fn len(&self) -> u64 {
        HEAD_LEN as u64 + self.body as u64
    }

    /// Never: a block has a head.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    pub(crate) fn encode(&self) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        let mut at = 0;
        let mut field = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        field(&MAGIC);
        for value in [self.body, self.crc, self.records] {
            field(&value.to_le_bytes());
        }
        for value in [self.first, self.mark, self.earliest, self.latest] {
            field(&value.to_le_bytes());
        }
        for value in [self.operations, self.segment, self.appended] {
            field(&value.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..HEAD_LEN - 4]);
        out[HEAD_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// # Errors
    /// If the bytes are not the head of a block.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let head = bytes
            .first_chunk::<HEAD_LEN>()
            .ok_or(Damage("the head is cut"))?;
        if head[..4] != MAGIC {
            return Err(Damage("no block begins here"));
        }
        let u32_at =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if crc32fast::hash(&head[..HEAD_LEN - 4]) != u32_at(HEAD_LEN - 4) {
            return Err(Damage("the checksum of the head is wrong"));
        }
        Ok(Self {
            body: u32_at(4),
            crc: u32_at(8),
            records: u32_at(12),
            first: u64_at(16),
            mark: u64_at(24),
            earliest: u64_at(32),
            latest: u64_at(40),
            operations: u32_at(48),
            segment: u32_at(52),
            appended: u32_at(56),
        })
    }
}

/// Fills a block. Its buffers are used again for the next one.
#[derive(Debug)]
pub(crate) struct Builder {
    head: Head,
    rows: Vec<u8>,
    sources: Vec<Source>,
    keys: Vec<Key>,
    known: HashMap<u64, usize, BuildHasherDefault<Through>>,
    before: Before,
    gone: BTreeMap<Slot, Summary>,
    /// Zenoh's priorities: how many in a row have which.
    priorities: Vec<(u32, u8)>,
}

/// What the next row is told against.
#[derive(Clone, Debug, Default)]
struct Before {
    source: Option<Source>,
    time: u64,
    encoding: u16,
}

/// What is hashed here is a hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Through(u64);

impl Hasher for Through {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            head: Head {
                body: 0,
                crc: 0,
                records: 0,
                first: 0,
                mark: 0,
                earliest: u64::MAX,
                latest: 0,
                operations: 0,
                segment: 0,
                appended: 0,
            },
            rows: Vec::new(),
            sources: Vec::new(),
            keys: Vec::new(),
            known: HashMap::default(),
            before: Before::default(),
            gone: BTreeMap::new(),
            priorities: Vec::new(),
        }
    }

    /// What is known of it so far; the body's length is a bound.
    pub(crate) fn head(&self) -> Head {
        let mut head = self.head;
        head.body = u32::try_from(self.len()).unwrap_or(u32::MAX);
        head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.records == 0 && self.gone.is_empty()
    }

    /// Bytes that it would have now, head included.
    pub(crate) fn len(&self) -> usize {
        // A sum that is not kept: source, second, count, sum.
        HEAD_LEN + self.rows.len() + 2 + self.gone.len() * 44 + self.priorities.len() * RUN_LEN
    }

    /// Begins at a position of a segment; forgets what was in it.
    pub(crate) fn begin(&mut self, segment: u64, first: u64) {
        self.clear();
        self.head.first = first;
        let [a, b, c, d, ..] = segment.to_le_bytes();
        self.head.segment = u32::from_le_bytes([a, b, c, d]);
    }

    /// Adds what is to be kept. `mark` is how much has been appended with it, `now` NTP64.
    pub(crate) fn push(
        &mut self,
        entry: &Entry,
        priority: u8,
        newest_only: bool,
        mark: u64,
        now: u64,
    ) {
        let (wildcard, stamp, value) = match &entry.change {
            KeptChange::Key(change) => (None, change.stamp, change.value.as_ref()),
            KeptChange::Wildcard(change) => {
                (Some(&change.expr), change.stamp, change.value.as_ref())
            }
        };
        let stamp = stamp.unwrap_or(Stamp::ZERO);
        let encoding = value.map_or(self.before.encoding, |value| value.encoding.id);
        let schema = value.and_then(|value| value.encoding.schema.as_ref());
        let attachment = value.and_then(|value| value.attachment.as_ref());
        let is_new_source = self.before.source != Some(stamp.id);
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        self.rows.push(
            flag(value.is_some(), PUT)
                | flag(wildcard.is_some(), WILDCARD)
                | flag(schema.is_some(), SCHEMA)
                | flag(attachment.is_some(), ATTACHMENT)
                | flag(entry.expires.is_some(), EXPIRES)
                | flag(newest_only, NEWEST_ONLY)
                | flag(encoding != self.before.encoding, ENCODING)
                | flag(is_new_source, SOURCE),
        );
        if is_new_source {
            self.push_source(stamp.id);
        }
        match &entry.change {
            KeptChange::Key(change) => self.push_key(&change.key),
            KeptChange::Wildcard(change) => self.push_key(&Key::from(change.expr.as_str())),
        }
        put_step(&mut self.rows, self.before.time, stamp.time);
        if let Some(expires) = entry.expires {
            put_step(&mut self.rows, stamp.time, expires);
        }
        if encoding != self.before.encoding {
            put(&mut self.rows, u64::from(encoding));
        }
        for part in [schema, attachment, value.map(|value| &value.payload)]
            .into_iter()
            .flatten()
        {
            put_len(&mut self.rows, part.len());
            self.rows.extend_from_slice(part);
        }
        self.before = Before {
            source: Some(stamp.id),
            time: stamp.time,
            encoding,
        };
        self.head.records += 1;
        self.head.operations += u32::from(wildcard.is_some());
        self.head.earliest = self.head.earliest.min(stamp.time);
        self.head.latest = self.head.latest.max(stamp.time);
        match self.priorities.last_mut() {
            Some((count, before)) if *before == priority => *count += 1,
            _ => self.priorities.push((1, priority)),
        }
        self.touch(mark, now);
    }

    /// Adds to the sums what is not kept.
    pub(crate) fn push_gone(&mut self, slot: Slot, gone: Summary, mark: u64, now: u64) {
        *self.gone.entry(slot).or_default() += gone;
        self.touch(mark, now);
    }

    /// Its head and bytes as they are now.
    pub(crate) fn encode(&self) -> (Head, Bytes) {
        let mut out = Vec::with_capacity(self.len());
        out.extend([0; HEAD_LEN]);
        out.extend_from_slice(&self.rows);
        put_len(&mut out, self.gone.len());
        for ((source, second), gone) in &self.gone {
            out.extend(source);
            out.extend(second.to_le_bytes());
            out.extend(gone.count.to_le_bytes());
            out.extend(gone.sum.to_le_bytes());
        }
        if self.priorities.iter().any(|run| run.1 != PRIORITY) {
            for (count, priority) in &self.priorities {
                put(&mut out, u64::from(*count));
                out.push(*priority);
            }
        }
        let body = &out[HEAD_LEN..];
        let mut head = self.head;
        // A block is closed long before; only a single entry could be as long, and Zenoh carries none.
        head.body = u32::try_from(body.len()).unwrap_or(u32::MAX);
        head.crc = crc32fast::hash(body);
        out[..HEAD_LEN].copy_from_slice(&head.encode());
        (head, Bytes::from(out))
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) {
        self.head = Self::new().head;
        self.rows.clear();
        self.sources.clear();
        self.keys.clear();
        self.known.clear();
        self.before = Before::default();
        self.gone.clear();
        self.priorities.clear();
    }

    fn touch(&mut self, mark: u64, now: u64) {
        self.head.mark = mark;
        self.head.appended = second_of(now);
    }

    fn push_source(&mut self, source: Source) {
        let known = self.sources.iter().position(|other| *other == source);
        put_len(&mut self.rows, known.unwrap_or(self.sources.len()));
        if known.is_none() {
            self.rows.extend(source);
            self.sources.push(source);
        }
    }

    fn push_key(&mut self, key: &Key) {
        let hash = upper(key.hash128());
        if let Some(&at) = self.known.get(&hash)
            && self.keys[at] == *key
        {
            return put_len(&mut self.rows, at);
        }
        put_len(&mut self.rows, self.keys.len());
        let before = self.keys.last().map_or("", |key| &**key);
        let shared = shared_len(before.as_bytes(), key.as_bytes());
        put_len(&mut self.rows, shared);
        put_len(&mut self.rows, key.len() - shared);
        self.rows.extend_from_slice(&key.as_bytes()[shared..]);
        self.known.insert(hash, self.keys.len());
        self.keys.push(key.clone());
    }
}

/// The second of an NTP64 time.
pub(crate) const fn second_of(time: u64) -> u32 {
    (time >> 32) as u32
}

/// The upper half of a hash.
pub(crate) const fn upper(hash: u128) -> u64 {
    (hash >> 64) as u64
}

pub(crate) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// An entry of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    /// Where in the lane.
    pub(crate) position: u64,
    pub(crate) entry: Entry,
    pub(crate) newest_only: bool,
    /// Its encoded size.
    pub(crate) bytes: usize,
}

/// A block that was read and whose checksums are right.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) head: Head,
    body: Bytes,
}

impl Block {
    /// # Errors
    /// If a checksum is wrong, or the bytes end too early.
    pub(crate) fn open(bytes: &Bytes) -> Result<Self, Damage> {
        let head = Head::decode(bytes)?;
        let end = usize::try_from(head.len()).map_err(|_| Damage("the block is too long"))?;
        if bytes.len() < end {
            return Err(Damage("the block is cut"));
        }
        let body = bytes.slice(HEAD_LEN..end);
        if crc32fast::hash(&body) != head.crc {
            return Err(Damage("the checksum of the block is wrong"));
        }
        Ok(Self { head, body })
    }

    /// It as it was read.
    pub(crate) fn bytes(&self) -> Bytes {
        let mut bytes = self.head.encode().to_vec();
        bytes.extend_from_slice(&self.body);
        Bytes::from(bytes)
    }

    /// Its entries, in order.
    pub(crate) fn rows(&self, lane: u8) -> Rows {
        Rows {
            cursor: Cursor::new(self.body.clone()),
            lane,
            head: self.head,
            read: 0,
            sources: Vec::new(),
            keys: Vec::new(),
            before: Before::default(),
        }
    }

    /// The sums of what it counts and does not keep.
    ///
    /// # Errors
    /// If the bytes make no sense, which the checksum makes unlikely.
    pub(crate) fn gone(&self, lane: u8) -> Result<Vec<(Slot, Summary)>, Damage> {
        Ok(self.whole(lane)?.gone)
    }

    /// All that is in it.
    ///
    /// # Errors
    /// If the bytes make no sense, which the checksum makes unlikely.
    pub(crate) fn whole(&self, lane: u8) -> Result<Whole, Damage> {
        let mut rows = self.rows(lane);
        let entries: Vec<Row> = rows.by_ref().collect::<Result<_, _>>()?;
        let mut cursor = rows.cursor;
        let mut gone = || {
            let count = cursor.len()?;
            let mut gone = Vec::new();
            for _ in 0..count {
                let slot = (cursor.array()?, cursor.u32()?);
                let (count, sum) = (cursor.u64()?, cursor.u128()?);
                gone.push((slot, Summary { count, sum }));
            }
            Some(gone)
        };
        let gone = gone().ok_or(Damage("the sums behind the entries make no sense"))?;
        let mut priorities = Vec::with_capacity(entries.len());
        while !cursor.is_empty() {
            let run = cursor.len().zip(cursor.byte());
            let (count, priority) = run
                .filter(|(count, _)| *count <= entries.len() - priorities.len())
                .ok_or(Damage("the priorities behind the entries make no sense"))?;
            priorities.extend(iter::repeat_n(priority, count));
        }
        // Where none is said, all are.
        priorities.resize(entries.len(), PRIORITY);
        Ok(Whole {
            rows: entries,
            priorities,
            gone,
        })
    }
}

/// What is in a block.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    pub(crate) rows: Vec<Row>,
    /// Zenoh's, of each row.
    pub(crate) priorities: Vec<u8>,
    /// Sums of what it counts and does not keep.
    pub(crate) gone: Vec<(Slot, Summary)>,
}

/// Reads the entries of a block.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    cursor: Cursor,
    lane: u8,
    head: Head,
    read: u32,
    sources: Vec<Source>,
    keys: Vec<Key>,
    before: Before,
}

impl Rows {
    fn read(&mut self) -> Option<Row> {
        let begin = self.cursor.at();
        let flags = self.cursor.byte()?;
        let is = |flag: u8| flags & flag != 0;
        let source = if is(SOURCE) {
            self.source()?
        } else {
            self.before.source?
        };
        let key = self.key()?;
        let time = self.cursor.step(self.before.time)?;
        let expires = if is(EXPIRES) {
            Some(self.cursor.step(time)?)
        } else {
            None
        };
        let id = if is(ENCODING) {
            u16::try_from(self.cursor.varint()?).ok()?
        } else {
            self.before.encoding
        };
        let schema = if is(SCHEMA) { Some(self.part()?) } else { None };
        let attachment = if is(ATTACHMENT) {
            Some(self.part()?)
        } else {
            None
        };
        let value = if is(PUT) {
            let encoding = Encoding { id, schema };
            Some(Value {
                encoding,
                attachment,
                payload: self.part()?,
            })
        } else {
            None
        };
        self.before = Before {
            source: Some(source),
            time,
            encoding: id,
        };
        let stamp = Some(Stamp { time, id: source });
        let change = if is(WILDCARD) {
            let expr = OwnedKeyExpr::new(&*key).ok()?;
            KeptChange::Wildcard(WildcardChange { expr, stamp, value })
        } else {
            KeptChange::Key(Change { key, stamp, value })
        };
        let position = self.head.first + u64::from(self.read);
        self.read += 1;
        Some(Row {
            position,
            entry: Entry {
                change,
                lane: self.lane,
                expires,
            },
            newest_only: is(NEWEST_ONLY),
            bytes: self.cursor.at() - begin,
        })
    }

    fn part(&mut self) -> Option<Bytes> {
        let len = self.cursor.len()?;
        self.cursor.take(len)
    }

    fn source(&mut self) -> Option<Source> {
        let at = self.cursor.len()?;
        if at == self.sources.len() {
            self.sources.push(self.cursor.array()?);
        }
        self.sources.get(at).copied()
    }

    fn key(&mut self) -> Option<Key> {
        let at = self.cursor.len()?;
        if at == self.keys.len() {
            let before = self.keys.last().cloned().unwrap_or_default();
            let shared = self.cursor.len()?;
            let rest = self.part()?;
            let mut text = before.as_bytes().get(..shared)?.to_vec();
            text.extend_from_slice(&rest);
            self.keys.push(Key::new(String::from_utf8(text).ok()?));
        }
        self.keys.get(at).cloned()
    }
}

impl Iterator for Rows {
    type Item = Result<Row, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read >= self.head.records {
            return None;
        }
        let row = self.read().ok_or(Damage("an entry makes no sense"));
        if row.is_err() {
            self.read = self.head.records;
        }
        Some(row)
    }
}
