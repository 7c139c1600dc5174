//! The Python client against every backend and both histories: what a user who knows Zenoh does on
//! the first day, and what the storages promise about time.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::fmt;

use serde_json::{Value, json};
use weir_e2e::{
    Client, Router, Sample,
    python::packed,
    time::{SECOND, hour_ago, rfc3339},
};

/// A storage of [`start`]; as text, the prefix of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    backend: &'static str,
    history: &'static str,
}

const BACKENDS: [&str; 3] = ["memory", "filesystem", "rocksdb"];

impl Space {
    /// One for every backend and history.
    fn each() -> impl Iterator<Item = Self> {
        let histories = ["latest", "all"].into_iter();
        histories.flat_map(|history| BACKENDS.map(|backend| Self { backend, history }))
    }

    /// Those whose data outlives the process.
    fn durable() -> impl Iterator<Item = Self> {
        Self::each().filter(|space| space.backend != "memory")
    }

    fn storage(self) -> String {
        format!("{}_{}", self.backend, self.history)
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.history)
    }
}

/// A router with a storage for every space.
fn start() -> Router {
    let storages: Vec<String> = Space::each()
        .map(|space| {
            let Space { backend, history } = space;
            let name = space.storage();
            format!(
                r#"{name}: {{ key_expr: "{space}/**", backend: "{backend}", history: "{history}" }}"#
            )
        })
        .collect();
    Router::start(&storages.join(",\n"))
}

/// `[from..to]`, both in seconds behind `base`.
fn time(base: u64, from: u64, to: u64) -> String {
    format!(
        "_time=[{}..{}]",
        rfc3339(base + from * SECOND),
        rfc3339(base + to * SECOND)
    )
}

#[test]
fn value_encoding_attachment_and_timestamp_come_back_as_they_were_put() {
    let router = start();
    let mut client = router.python();
    let at = hour_ago() + 123_456_789;
    let bytes: Vec<u8> = (0..=255).collect();
    // Value, encoding, what is answered for it, attachment, timestamp.
    type Row<'r> = (
        &'r str,
        &'r [u8],
        Option<&'r str>,
        &'r str,
        Option<&'r [u8]>,
        Option<u64>,
    );
    let rows: [Row<'_>; 6] = [
        ("plain", b"hello", None, "zenoh/bytes", None, None),
        (
            "bytes",
            &bytes,
            Some("application/octet-stream"),
            "application/octet-stream",
            None,
            None,
        ),
        (
            "json",
            br#"{"x": 1.50}"#,
            Some("application/json"),
            "application/json",
            None,
            Some(at),
        ),
        (
            "schema",
            br#"{"x": 2}"#,
            Some("application/json;drone-v1"),
            "application/json;drone-v1",
            Some(b"\x00note\xff"),
            Some(at),
        ),
        (
            "own",
            b"1",
            Some("x-own/kind;v=3"),
            "x-own/kind;v=3",
            Some(b""),
            None,
        ),
        (
            "empty",
            b"",
            Some("text/plain"),
            "text/plain",
            None,
            Some(at),
        ),
    ];
    for space in Space::each() {
        for (name, value, encoding, answered, attachment, at) in rows {
            let key = format!("{space}/keeps/{name}");
            let given = client.put_with(json!({
                "key": key,
                "value": packed(value),
                "encoding": encoding,
                "attachment": attachment.map(packed),
                "at": at,
            }));
            let sample: Sample = weir_e2e::until(&format!("{key} is there"), || {
                let got = client.get(&key);
                got.samples
                    .first()
                    .cloned()
                    .ok_or_else(|| format!("{got:?}"))
            });
            assert_eq!((&sample.key, sample.kind.as_str()), (&key, "put"));
            assert_eq!(
                (sample.value.as_slice(), sample.encoding.as_str()),
                (value, answered),
                "{key}"
            );
            // An attachment without bytes is one, or none, as Zenoh's wire has it; ours adds nothing.
            let attached = sample
                .attachment
                .as_deref()
                .filter(|bytes| !bytes.is_empty());
            assert_eq!(
                attached,
                attachment.filter(|bytes| !bytes.is_empty()),
                "{key}"
            );
            let stamp = sample.timestamp.expect("what is stored has a timestamp");
            match at {
                Some(_) => assert_eq!(stamp, given, "{key}"),
                // The first router stamped it, in its own name.
                None => assert!(
                    stamp.ends_with(&format!("/{}", router.id())),
                    "{key}: {stamp}"
                ),
            }
        }
    }
}

#[test]
fn event_time_decides_and_not_arrival() {
    let router = start();
    let mut client = router.python();
    let base = hour_ago();
    for space in Space::each() {
        let (key, storage) = (format!("{space}/city/temperature"), space.storage());
        client.put_at(&key, "27 in Ohio", base + 12 * SECOND);
        client.put_at(&key, "25 in Seoul", base + 10 * SECOND);
        router.wait_decided(&storage, 2);
        let outdated = if space.history == "all" { 0 } else { 1 };
        assert_eq!(router.total(&storage, "outdated"), outdated);
        client.wait_values(&key, &[&format!("{key}=27 in Ohio")]);

        // A delete that is older than the value changes nothing, a younger one does.
        client.delete_at(&key, base + 11 * SECOND);
        router.wait_decided(&storage, 3);
        client.wait_values(&key, &[&format!("{key}=27 in Ohio")]);
        client.delete_at(&key, base + 14 * SECOND);
        client.wait_values(&key, &[]);
        // What limps in behind the delete stays deleted.
        client.put_at(&key, "late", base + 13 * SECOND);
        router.wait_decided(&storage, 5);
        client.wait_values(&key, &[]);
        client.put_at(&key, "new", base + 15 * SECOND);
        client.wait_values(&key, &[&format!("{key}=new")]);
    }
}

#[test]
fn a_time_range_asks_every_backend_for_what_lies_inside() {
    let router = start();
    let mut client = router.python();
    let base = hour_ago();
    for space in Space::each() {
        for second in [1, 2, 3, 4] {
            client.put_at(
                &format!("{space}/a"),
                &format!("a{second}"),
                base + second * SECOND,
            );
        }
        client.put_at(&format!("{space}/b"), "b2", base + 2 * SECOND);
        router.wait_decided(&space.storage(), 5);
        // From, to (both inside), and what `latest` and `all` answer.
        let rows: [(u64, u64, &[&str], &[&str]); 5] = [
            (
                0,
                9,
                &["a=a4", "b=b2"],
                &["a=a1", "a=a2", "a=a3", "a=a4", "b=b2"],
            ),
            (2, 3, &["b=b2"], &["a=a2", "a=a3", "b=b2"]),
            (4, 9, &["a=a4"], &["a=a4"]),
            (1, 1, &[], &["a=a1"]),
            (5, 9, &[], &[]),
        ];
        for (from, to, latest, all) in rows {
            let expected = if space.history == "all" { all } else { latest };
            let expected: Vec<String> = expected
                .iter()
                .map(|value| format!("{space}/{value}"))
                .collect();
            let selector = format!("{space}/**?{}", time(base, from, to));
            let got = client.get(&selector);
            assert_eq!(got.errors, [""; 0], "{selector}");
            assert_eq!(got.values(), expected, "{selector}");
        }
        // Without a range it is what the keys hold now, whatever the history.
        let now = [format!("{space}/a=a4"), format!("{space}/b=b2")];
        assert_eq!(client.values(&format!("{space}/**")), now);
    }
}

#[test]
fn a_parameter_that_makes_no_sense_is_answered_with_an_error() {
    let router = start();
    let mut client = router.python();
    for space in Space::each() {
        for parameter in [
            "_limit=none",
            "_limit=0",
            "_order=size",
            "_order=time",
            "_cursor=%zz",
            "_time=yesterday",
        ] {
            let got = client.get(&format!("{space}/**?{parameter}"));
            assert_eq!(got.samples, [], "{space} {parameter}");
            let [error] = got.errors.as_slice() else {
                panic!("{space} {parameter}: {got:?}")
            };
            assert!(error.contains(&space.storage()), "{error}");
            let name = parameter.split('=').next().unwrap();
            assert!(error.contains(name), "{parameter}: {error}");
        }
    }
}

#[test]
fn a_thousand_keys_are_paged_by_key_and_by_time() {
    const KEYS: usize = 1_000;
    const PAGE: usize = 170;
    let router = start();
    let mut client = router.python();
    let base = hour_ago();
    for space in Space::each() {
        let key = |number: usize| format!("{space}/n{number:04}");
        // By time they come in another order than by key.
        let at = |number: usize| base + ((number * 7) % KEYS) as u64 * 1_000_000;
        let puts: Vec<Value> = (0..KEYS)
            .map(|number| {
                let value = packed(number.to_string());
                json!({ "key": key(number), "value": value, "at": at(number) })
            })
            .collect();
        client.puts(&puts);
        router.wait_decided(&space.storage(), KEYS as u64);
        let by_key: Vec<String> = (0..KEYS).map(key).collect();
        let mut by_time: Vec<usize> = (0..KEYS).collect();
        by_time.sort_by_key(|number| at(*number));
        let by_time: Vec<String> = by_time.into_iter().map(key).collect();
        for (order, expected) in [("key", by_key), ("time", by_time)] {
            for descending in [false, true] {
                let mut expected = expected.clone();
                if descending {
                    expected.reverse();
                }
                let sign = if descending { "-" } else { "" };
                let selector = format!("{space}/**?_order={sign}{order};_limit={PAGE}");
                let keys = pages(&mut client, &selector, order == "time", KEYS.div_ceil(PAGE));
                assert_eq!(keys, expected, "{selector}");
            }
        }
    }
}

/// Follows the pages to the end; gives the keys as they came.
fn pages(client: &mut Client, selector: &str, with_stamp: bool, expected: usize) -> Vec<String> {
    let mut keys = Vec::new();
    let mut asked = selector.to_owned();
    for page in 0.. {
        // The client consolidates by key and gives what it has held in any order it likes.
        let got = client.get_with(json!({ "selector": asked, "consolidation": "none" }));
        assert_eq!(got.errors, [""; 0], "{asked}");
        let Some(last) = got.samples.last() else {
            assert_eq!(page, expected, "pages of {selector}");
            break;
        };
        let stamp = last.timestamp.as_deref().unwrap();
        let cursor = if with_stamp {
            format!("{}@{stamp}", last.key)
        } else {
            last.key.clone()
        };
        asked = format!("{selector};_cursor={cursor}");
        keys.extend(got.samples.into_iter().map(|sample| sample.key));
    }
    keys
}

#[test]
fn wildcard_puts_and_deletes_touch_what_exists_and_nothing_else() {
    let router = start();
    let mut client = router.python();
    let base = hour_ago();
    for space in Space::each() {
        let keys = |rows: &[&str]| {
            rows.iter()
                .map(|row| format!("{space}/{row}"))
                .collect::<Vec<_>>()
        };
        let wait = |client: &mut Client, rows: &[&str]| {
            let expected = keys(rows);
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            client.wait_values(&format!("{space}/**"), &expected);
        };
        for key in ["room/1/lamp", "room/2/lamp", "room/2/door"] {
            client.put_at(&format!("{space}/{key}"), "old", base + SECOND);
        }
        wait(
            &mut client,
            &["room/1/lamp=old", "room/2/door=old", "room/2/lamp=old"],
        );
        client.put_at(&format!("{space}/room/*/lamp"), "on", base + 3 * SECOND);
        wait(
            &mut client,
            &["room/1/lamp=on", "room/2/door=old", "room/2/lamp=on"],
        );
        // Older than the wildcard put: the key is new, and holds what the wildcard put made of it.
        client.put_at(&format!("{space}/room/3/lamp"), "late", base + 2 * SECOND);
        wait(
            &mut client,
            &[
                "room/1/lamp=on",
                "room/2/door=old",
                "room/2/lamp=on",
                "room/3/lamp=on",
            ],
        );
        client.delete_at(&format!("{space}/room/2/**"), base + 4 * SECOND);
        wait(&mut client, &["room/1/lamp=on", "room/3/lamp=on"]);
        // Neither a stale put nor a wildcard put brings back what was deleted.
        client.put_at(&format!("{space}/room/2/door"), "late", base + 2 * SECOND);
        client.put_at(&format!("{space}/room/**"), "off", base + 5 * SECOND);
        wait(&mut client, &["room/1/lamp=off", "room/3/lamp=off"]);
        // Without timestamps: now.
        client.put(&format!("{space}/room/*/lamp"), "now");
        wait(&mut client, &["room/1/lamp=now", "room/3/lamp=now"]);
        client.delete(&format!("{space}/**"));
        wait(&mut client, &[]);
    }
}

#[test]
fn deletes_and_values_survive_a_restart() {
    let mut router = start();
    let base = hour_ago();
    {
        let mut client = router.python();
        for space in Space::durable() {
            client.put_at(&format!("{space}/kept"), "1", base + 2 * SECOND);
            for key in ["one", "many/a", "many/b"] {
                client.put_at(&format!("{space}/{key}"), "1", base + 2 * SECOND);
            }
            client.delete_at(&format!("{space}/one"), base + 4 * SECOND);
            client.delete_at(&format!("{space}/many/**"), base + 4 * SECOND);
            client.put_at(&format!("{space}/wild/*"), "none", base + 4 * SECOND);
            client.wait_values(&format!("{space}/**"), &[&format!("{space}/kept=1")]);
        }
    }
    for stop in [Router::term, Router::kill9] {
        stop(&mut router);
        router.restart();
        let mut client = router.python();
        for space in Space::durable() {
            client.wait_values(&format!("{space}/**"), &[&format!("{space}/kept=1")]);
            let before = router.decided(&space.storage());
            for key in ["one", "many/a", "many/new", "kept"] {
                client.put_at(&format!("{space}/{key}"), "late", base + SECOND);
            }
            router.wait_decided(&space.storage(), before + 4);
            let expected = format!("{space}/kept=1");
            client.wait_values(&format!("{space}/**"), &[&expected]);
        }
    }
}

#[test]
fn subscribers_see_live_traffic_beside_the_storages() {
    let router = start();
    let (mut sender, mut receiver) = (router.python(), router.python());
    let base = hour_ago();
    receiver.subscribe("**");
    for space in Space::each() {
        // The router learns of the subscriber after the client has: the first may be too early.
        let probe = format!("{space}/probe");
        let seen = weir_e2e::until("the subscriber is known", || {
            sender.put(&probe, "?");
            let samples = receiver.received(0);
            let seen = samples.iter().any(|sample| sample.key == probe);
            if seen {
                Ok(samples.len())
            } else {
                Err(format!("{samples:?}"))
            }
        });
        // Probes still on their way are behind these three in no case: one sender, in order.
        let key = format!("{space}/live");
        let stamp = sender.put_at(&key, "1", base);
        sender.put_at(&key, "2", base - SECOND);
        sender.delete(&key);
        let live = weir_e2e::until("three live samples", || {
            let mut samples = receiver.received(seen + 3);
            samples.retain(|sample| sample.key == key);
            if samples.len() == 3 {
                Ok(samples)
            } else {
                Err(format!("{samples:?}"))
            }
        });
        let shown: Vec<_> = live
            .iter()
            .map(|sample| (sample.kind.as_str(), sample.value.as_slice()))
            .collect();
        assert_eq!(
            shown,
            [("put", b"1".as_slice()), ("put", b"2"), ("delete", b"")]
        );
        assert_eq!(live[0].timestamp.as_deref(), Some(stamp.as_str()));
    }
}

#[test]
fn an_acknowledged_put_works_from_the_client_as_it_is() {
    let router = start();
    let mut client = router.python();
    for space in Space::each() {
        let key = format!("{space}/acked");
        let got = client.get_with(json!({
            "selector": format!("{key}?_put;durability=synced"),
            "value": packed("7"),
            "encoding": "text/plain",
            "attachment": packed("note"),
            "target": "all",
        }));
        if space.backend == "memory" {
            let [error] = got.errors.as_slice() else {
                panic!("{got:?}")
            };
            assert!(
                error.contains("durability can be `memory` at the most"),
                "{error}"
            );
            assert_eq!(client.values(&key), [""; 0]);
            continue;
        }
        let [receipt] = got.samples.as_slice() else {
            panic!("{got:?}")
        };
        let receipt: Value = serde_json::from_slice(&receipt.value).unwrap();
        assert_eq!(receipt["admission"], "applied", "{receipt}");
        assert_eq!(receipt["durability"], "synced", "{receipt}");
        assert_eq!(receipt["storage"], space.storage().as_str(), "{receipt}");
        // Acknowledged means there: no waiting.
        let got = client.get(&key);
        assert_eq!(got.values(), [format!("{key}=7")]);
        assert_eq!(
            got.samples[0].timestamp.as_deref(),
            receipt["timestamp"].as_str()
        );
        assert_eq!(
            got.samples[0].attachment.as_deref(),
            Some(b"note".as_slice())
        );

        let got = client.get_with(json!({ "selector": format!("{key}?_delete"), "target": "all" }));
        let receipt: Value = serde_json::from_slice(&got.samples[0].value).unwrap();
        assert_eq!(receipt["admission"], "applied", "{receipt}");
        assert_eq!(client.values(&key), [""; 0]);
    }
}
