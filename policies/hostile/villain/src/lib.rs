//! Many villains in one module: `settings.villain` says which. `policies/hostile/corpus.json` says
//! what the host must make of each.

mod resolvers;

use std::{hint::black_box, iter};

use serde::Deserialize;
use weir_policy_sdk::prelude::*;

/// What `settings.villain` says, and how often it was called.
pub struct Villain {
    settings: Settings,
    calls: u64,
}

/// Which villain.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    villain: String,
    /// The call, from 1, at which it begins; before that it behaves.
    #[serde(default)]
    at_call: u64,
}

impl Policy for Villain {
    type Settings = Settings;

    fn new(_: &Environment, settings: Settings) -> Result<Self, InitError> {
        match settings.villain.as_str() {
            "init-trap" => panic!("init of a villain"),
            "init-loop" => spin(),
            "init-grow" => hoard(),
            "init-recurse" => black_box(recurse(1)),
            "init-error" => return Err(InitError::Other("no reason".to_owned())),
            "init-huge-error" => return Err(InitError::Other("x".repeat(32 << 20))),
            _ => 0,
        };
        Ok(Self { settings, calls: 0 })
    }

    fn manifest(&self) -> Manifest {
        let plain = manifest!()
            .needs(Fields::all())
            .payload_prefix(64)
            .route_varies_with(Fields::SIZE);
        let plain = plain.counters(["one"]).reasons(["one"]);
        match self.settings.villain.as_str() {
            "manifest-counters" => plain.counters(iter::repeat_n("c", 65)),
            "manifest-reasons" => plain.reasons(iter::repeat_n("r", 1_000_000)),
            "manifest-prefix" => plain.payload_prefix(u32::MAX),
            "manifest-name" => Manifest::new(&"n".repeat(1 << 20), "1"),
            _ => plain,
        }
    }
}

/// What goes wrong in any hook, whatever it answers with; else the number of answers to give, where
/// `asked` is the right one.
fn misbehave(villain: &str, asked: usize) -> Result<usize, String> {
    match villain {
        "trap" => panic!("a call of a villain"),
        "divide-by-zero" => Ok(asked / black_box(0)),
        "out-of-bounds" => Ok(usize::from(b"x"[black_box(asked + 7)])),
        "loop" => Ok(usize::from(spin() == 1)),
        "recurse" => Ok(usize::from(black_box(recurse(1)) == 1)),
        "grow" => Ok(usize::from(hoard() == 1)),
        "grow-and-go-on" => {
            // Stops at the first refusal and answers as if nothing had been.
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                let mut more = Vec::new();
                if more.try_reserve_exact(1 << 20).is_err() {
                    black_box(&kept);
                    return Ok(asked);
                }
                kept.push(more);
            }
        }
        "error" => Err("no answer today".to_owned()),
        "huge-error" => Err("x".repeat(32 << 20)),
        "none" => Ok(0),
        "short" => Ok(asked - 1),
        "long" => Ok(asked + 1),
        "huge" => Ok(1_000_000),
        "log-flood" => {
            (0..100_000).for_each(|line| log(Level::Error, &format!("line {line}")));
            Ok(asked)
        }
        "log-huge" => {
            log(Level::Error, &"x".repeat(16 << 20));
            Ok(asked)
        }
        "log-control" => {
            log(Level::Error, "\u{1b}[2J\u{0}\r\nforged: everything is fine");
            Ok(asked)
        }
        "count-unknown" => {
            count(u32::MAX, u64::MAX);
            count(0, u64::MAX);
            count(0, u64::MAX);
            Ok(asked)
        }
        _ => Ok(asked),
    }
}

fn spin() -> u64 {
    let mut n = 0u64;
    loop {
        n = black_box(n).wrapping_add(1);
    }
}

fn recurse(depth: u64) -> u64 {
    let frame = [depth; 64];
    if black_box(depth) == 0 {
        0
    } else {
        recurse(depth + 1) + black_box(frame)[7]
    }
}

/// Allocates until it is refused, which aborts. It writes nothing there, or it would run out of time
/// first.
fn hoard() -> u64 {
    let mut kept = Vec::new();
    loop {
        kept.push(Vec::<u8>::with_capacity(1 << 20));
        black_box(&kept);
    }
}

/// A number that depends on the bits of a NaN. It is the same on every machine if the host makes all
/// NaNs alike.
fn nan_bits() -> u64 {
    let zero = || black_box(0.0f64);
    let nans = [
        zero() / zero(),
        -(zero() / zero()),
        f64::INFINITY * zero(),
        (-1.0 - zero()).sqrt(),
    ];
    nans.iter().fold(0, |all, nan| {
        all.rotate_left(7) ^ (black_box(*nan) + 1.0).to_bits()
    })
}

impl Villain {
    /// Which villain this call is.
    fn call(&mut self) -> String {
        self.calls += 1;
        let is_time = self.calls >= self.settings.at_call;
        if is_time {
            self.settings.villain.clone()
        } else {
            String::new()
        }
    }
}

impl Route for Villain {
    fn route(&mut self, _: Sample<'_>) -> Destination {
        Destination::Default
    }

    fn route_batch(&mut self, batch: &Batch) -> Result<Vec<Destination>, String> {
        let villain = self.call();
        let count = misbehave(&villain, batch.len())?;
        let calls = self.calls;
        let answer = || match villain.as_str() {
            "shard-range" => Destination::Shard(u32::MAX),
            "shard-range-list" => Destination::Shards(vec![0, 4_000_000_000]),
            "no-shards" => Destination::Shards(Vec::new()),
            "many-shards" => Destination::Shards((0..17).collect()),
            "million-shards" => Destination::Shards(vec![0; 100_000]),
            "same-shard" => Destination::Shards(vec![0; 16]),
            "unknown-reason" => Destination::Reject(1),
            "nan" => Destination::Token(nan_bits()),
            "counter" => Destination::Token(calls),
            _ => Destination::Default,
        };
        Ok((0..count).map(|_| answer()).collect())
    }
}

impl Prioritize for Villain {
    fn prioritize(&mut self, _: &Link, _: Sample<'_>) -> Verdict {
        Verdict::Default
    }

    fn prioritize_batch(&mut self, link: &Link, batch: &Batch) -> Result<Vec<Verdict>, String> {
        let villain = self.call();
        let count = misbehave(&villain, batch.len())?;
        let place = |lane, expires| {
            Verdict::Place(Placement {
                lane,
                expires,
                newest_only: false,
            })
        };
        let answer = || match villain.as_str() {
            "lane-range" => place(8, 0),
            "already-expired" => place(0, link.now.saturating_sub(1).max(1)),
            "unknown-reason" => Verdict::Drop(1),
            _ => Verdict::Default,
        };
        Ok((0..count).map(|_| answer()).collect())
    }
}

impl Resolve for Villain {
    fn resolve(
        &mut self,
        _: &str,
        first: &Version,
        second: &Version,
    ) -> Result<Resolution, String> {
        let villain = self.call();
        misbehave(&villain, 1)?;
        resolvers::resolve(&villain, self.calls, first, second)
    }
}

weir_policy_sdk::export!(Villain: route, resolve, prioritize);

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use weir_policy_sdk::testing::{Held, check_laws};

    use super::*;

    /// Equal stamps with other values, deletes on either side, empty payloads: where laws break.
    fn versions() -> Vec<Held> {
        let mut versions = Vec::new();
        for time in 1..3 {
            versions.extend(["", "a", "b", "ab", "cd"].map(|text| Held::put(time, text)));
            versions.push(Held::delete(time));
        }
        versions
    }

    fn is_lawful(settings: &str) -> bool {
        let versions = versions();
        let tries = versions.iter().flat_map(|a| {
            let pairs = versions
                .iter()
                .flat_map(|b| versions.iter().map(move |c| (b, c)));
            pairs.map(move |(b, c)| [a, b, c])
        });
        tries.into_iter().all(|three| {
            let checked = catch_unwind(AssertUnwindSafe(|| check_laws::<Villain>(settings, three)));
            matches!(checked, Ok(Ok(())))
        })
    }

    #[test]
    fn the_corpus_says_which_resolvers_are_lawful() {
        let rows: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../corpus.json")).unwrap();
        let mut tried = 0;
        for row in rows {
            let expect = &row["expect"];
            let lawful = expect["lawful"].is_boolean();
            // Addresses are the same every time only in a module.
            if !(lawful || expect["unlawful"].is_boolean()) || row["name"] == "random-by-address" {
                continue;
            }
            assert_eq!(
                is_lawful(&row["settings"].to_string()),
                lawful,
                "{}",
                row["name"]
            );
            tried += 1;
        }
        assert!(tried >= 15, "{tried} resolvers");
    }
}
