//! Acknowledged samples of a series, on their way through routers that may die: what was tried, and what
//! has to be there afterwards.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Client, Sample,
    python::packed,
    time::{SECOND, hour_ago},
};

/// Samples a millisecond apart, from an hour ago on. By timestamp: their key, their value, and whether they
/// were acknowledged.
#[derive(Debug)]
pub struct Tried {
    /// Seconds until an acknowledgement is waited for no longer.
    pub timeout_s: u64,
    /// How durable what is acknowledged has to be.
    pub durability: &'static str,
    begin: u64,
    samples: BTreeMap<String, (String, Vec<u8>, bool)>,
}

impl Default for Tried {
    fn default() -> Self {
        Self {
            timeout_s: 5,
            durability: "written",
            begin: (hour_ago() / SECOND) << 32,
            samples: BTreeMap::new(),
        }
    }
}

impl Tried {
    /// Puts some, a few at once, up to the first that is not acknowledged; meanwhile something may happen.
    /// `sample` gives the key and the value of the sample with a number; only receipts with this
    /// `admission` count, if one is named.
    #[track_caller]
    pub fn put(
        &mut self,
        client: &mut Client,
        count: u64,
        admission: Option<&str>,
        mut sample: impl FnMut(u64) -> (String, String),
        meanwhile: impl FnOnce(),
    ) {
        let first = self.samples.len() as u64;
        let samples: Vec<(String, String, String)> = (first..first + count)
            .map(|n| {
                let stamp = (self.begin + (n << 32) / 1_000) | 1;
                let (key, value) = sample(n);
                (key, format!("{stamp}/c11e"), value)
            })
            .collect();
        let durability = self.durability;
        let request = |(key, stamp, value): &(String, String, String)| {
            json!({
                "selector": format!("{key}?_put;durability={durability};timestamp={stamp}"),
                "value": packed(value),
                "target": "all",
                "timeout": self.timeout_s,
                "admission": admission,
            })
        };
        let requests: Vec<Value> = samples.iter().map(request).collect();
        let receipts = client.acks(&requests, meanwhile);
        let mut receipts = receipts.iter();
        for (key, stamp, value) in samples {
            let is_acknowledged = receipts
                .next()
                .is_some_and(|receipt| receipt["admission"].is_string());
            self.samples
                .insert(stamp, (key, value.into_bytes(), is_acknowledged));
        }
    }

    /// How many were tried.
    #[must_use]
    pub fn count(&self) -> usize {
        self.samples.len()
    }

    /// How many were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.samples.values().filter(|(.., is)| *is).count()
    }

    /// The key and the value under a timestamp.
    #[must_use]
    pub fn get(&self, stamp: &str) -> Option<(&str, &[u8])> {
        let (key, value, _) = self.samples.get(stamp)?;
        Some((key, value))
    }

    /// Compares with what a storage holds; the timestamps of what was acknowledged and is not there.
    ///
    /// # Panics
    /// If anything is there twice, is another than was put, or was never put.
    #[track_caller]
    #[must_use]
    pub fn missing(&self, held: Vec<Sample>) -> Vec<String> {
        let mut found = BTreeMap::new();
        for sample in held {
            let stamp = sample.timestamp.unwrap();
            let tried = self.get(&stamp);
            let is = (sample.key.as_str(), sample.value.as_slice());
            assert_eq!(Some(is), tried, "{stamp}");
            let before = found.insert(stamp, ());
            assert_eq!(before, None, "doubled: {}", sample.key);
        }
        self.samples
            .iter()
            .filter(|(stamp, (.., is_acknowledged))| {
                *is_acknowledged && !found.contains_key(*stamp)
            })
            .map(|(stamp, _)| stamp.clone())
            .collect()
    }
}
