//! What is tried, and what is simpler.

use super::Held;
use crate::{
    value::{Encoding, Value},
    version::Stamp,
};

/// How many states the pairs are made of.
const POOL: usize = 24;

/// States that are near each other: few stamps, and values of which the caller's own come first.
pub(super) fn pool(samples: &[Value], rng: &mut Rng) -> Vec<Held> {
    let text = |text: &'static str| Value::bytes(text);
    let mut values: Vec<Value> = samples.iter().take(POOL / 2).cloned().collect();
    let own = [
        text(""),
        text("1"),
        text("2"),
        text("10"),
        text("a"),
        text("b,a"),
        text("{\"a\":1}"),
        text("{\"b\":2,\"a\":{\"c\":3}}"),
        text("[1,2]"),
        Value::bytes(vec![0xFF, 0x00, 0xC3]),
        Value {
            attachment: Some(bytes::Bytes::from_static(b"7")),
            ..text("1")
        },
        Value {
            attachment: Some(bytes::Bytes::new()),
            encoding: Encoding {
                id: 5,
                schema: Some(bytes::Bytes::from_static(b"s")),
            },
            ..text("[]")
        },
    ];
    values.extend(own);
    let stamps = [
        clock(1, 1),
        clock(1, 2),
        clock(2, 1),
        clock(3, 1),
        clock(3, 2),
    ];
    let mut pool: Vec<Held> = Vec::with_capacity(POOL);
    for value in &values {
        pool.push(Held::new(*rng.pick(&stamps), Some(value.clone())));
    }
    // Some of them once more at another time, and at the time of another.
    while pool.len() < POOL.max(values.len()) {
        let value = (!rng.next().is_multiple_of(5)).then(|| rng.pick(&values).clone());
        let held = Held::new(*rng.pick(&stamps), value);
        if !pool.contains(&held) {
            pool.push(held);
        }
    }
    for stamp in &stamps[1..4] {
        let held = Held::new(*stamp, None);
        if !pool.contains(&held) {
            pool.push(held);
        }
    }
    pool
}

/// Splitmix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[usize::try_from(self.next() % from.len() as u64).unwrap_or(0)]
    }
}

impl Held {
    /// What makes it hard to read: the smaller, the better.
    pub(super) fn weight(&self) -> (usize, usize, u64) {
        let (parts, len) = self.value.as_ref().map_or((0, 0), |value| {
            let parts = usize::from(value.encoding != Encoding::default())
                + usize::from(value.attachment.is_some());
            (parts + 1, value.len())
        });
        let stamp = self.version.stamp;
        (parts, len, stamp.time * 16 + u64::from(stamp.id[0]))
    }

    /// The same, with something left out.
    pub(super) fn simpler(&self) -> Vec<Self> {
        let stamp = self.version.stamp;
        let mut simpler = Vec::new();
        if let Some(value) = &self.value {
            simpler.push(Self::new(stamp, None));
            let len = value.payload.len();
            let cuts = [0, len / 2, len.saturating_sub(1)]
                .into_iter()
                .filter(|cut| *cut < len);
            let mut with = |value: Value| simpler.push(Self::new(stamp, Some(value)));
            with(Value::bytes(value.payload.clone()));
            with(Value {
                attachment: None,
                ..value.clone()
            });
            for cut in cuts {
                with(Value {
                    payload: value.payload.slice(..cut),
                    ..value.clone()
                });
            }
        }
        for time in (1..stamp.time).take(4) {
            simpler.push(Self::new(Stamp { time, ..stamp }, self.value.clone()));
        }
        if stamp.id[0] > 1 {
            simpler.push(Self::new(clock(stamp.time, 1), self.value.clone()));
        }
        simpler.retain(|simpler| simpler.weight() < self.weight());
        simpler
    }
}

fn clock(time: u64, id: u8) -> Stamp {
    let mut bytes = [0; 16];
    bytes[0] = id;
    Stamp { time, id: bytes }
}
