//! A store that is put back from a copy, lost or copied is noticed by the mirror that has compared itself
//! with it, and shown; and both hold the same again.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{fs, path::Path};

use serde_json::{Value, json};
use weir_e2e::{Client, Router, http, python::packed, until};

/// A router of this id with one storage of its name, connected to the others.
fn router(id: &str, storage: &str, peers: &[&Router]) -> Router {
    let peers: Vec<_> = peers.iter().map(|peer| peer.endpoint.as_str()).collect();
    Router::start_with(&format!(
        r#"id: "{id}", connect: {{ endpoints: {peers:?} }}, storages: {{
            {storage}: {{
                key_expr: "demo/**", backend: "rocksdb", dir: "$DIR/zone",
                mirror: {{ period: "1s" }},
            }},
        }},"#
    ))
}

/// The mirror of a storage, as its status shows it, once it is as it should be.
#[track_caller]
fn wait_mirror(router: &Router, storage: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
    until(&format!("the mirror of {storage} is {what}"), || {
        let status = router.storage(storage).ok_or("no status")?;
        let mirror = &status["mirrors"][0];
        match is_so(mirror) {
            true => Ok(()),
            false => Err(mirror.to_string()),
        }
    });
}

/// Waits until that was noticed last of the store of a storage's mirror, and it is in step all the same.
#[track_caller]
fn wait_noticed(router: &Router, storage: &str, kind: &str) {
    wait_mirror(router, storage, kind, |mirror| {
        mirror["store"]["last"]["kind"] == kind && mirror["state"] == "in_step"
    });
}

/// Puts, and waits until the last is stored: one session's changes come in order.
fn put_many(client: &mut Client, numbers: std::ops::Range<u32>) {
    let last = numbers.end - 1;
    let puts: Vec<Value> = numbers
        .map(|n| json!({ "key": format!("demo/{n:03}"), "value": packed(format!("v{n}")) }))
        .collect();
    client.puts(&puts);
    let (key, value) = (format!("demo/{last:03}"), format!("v{last}"));
    client.wait_values(&key, &[&format!("{key}={value}")]);
}

/// Waits until `weir storage verify` finds the same items on both sides, and so many.
#[track_caller]
fn wait_same(at: &Router, items: u64) {
    until(&format!("seoul and ohio hold the same {items}"), || {
        let ended = at.weir(&["storage", "verify", "seoul", "--against", "ohio", "--json"]);
        let verified = ended.json().pop().ok_or(ended.err)?;
        if ended.code == 0 && verified["counts"] == json!([items, items]) {
            Ok(())
        } else {
            Err(verified.to_string())
        }
    });
}

/// The id and the incarnation of a storage's store.
fn store(router: &Router, storage: &str) -> (String, u64) {
    let status = router.storage(storage).unwrap();
    let stores = status["stores"].as_object().unwrap();
    let store = stores.values().next().unwrap();
    let id = store["id"].as_str().unwrap().to_owned();
    (id, store["incarnation"].as_u64().unwrap())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_store_that_is_put_back_or_lost_or_copied_is_noticed_by_its_mirror() {
    let mut seoul = router("5e0", "seoul", &[]);
    let mut ohio = router("41", "ohio", &[&seoul]);
    let (zone, backup) = (seoul.dir().join("zone"), seoul.dir().join("backup"));
    put_many(&mut ohio.python(), 0..50);
    wait_same(&seoul, 50);
    wait_mirror(&ohio, "ohio", "in step", |mirror| {
        mirror["state"] == "in_step"
    });
    let (first, incarnation) = store(&seoul, "seoul");
    assert_eq!(incarnation, 1);

    // A copy is made while it is down. Of the restart nobody has to be told.
    seoul.term();
    copy(&zone, &backup);
    seoul.restart();
    wait_mirror(&ohio, "ohio", "known again", |mirror| {
        mirror["store"]["changes"]["restarted"] == 1 && mirror["state"] == "in_step"
    });
    assert_eq!(store(&seoul, "seoul"), (first.clone(), 2));
    put_many(&mut ohio.python(), 50..100);
    wait_same(&seoul, 100);
    wait_mirror(&ohio, "ohio", "not noticed", |mirror| {
        mirror["store"]["last"].is_null() && mirror["state"] == "in_step"
    });

    // The copy takes the place of what has come since.
    seoul.term();
    fs::remove_dir_all(&zone).unwrap();
    copy(&backup, &zone);
    seoul.restart();
    wait_noticed(&ohio, "ohio", "restored");
    wait_same(&seoul, 100);
    assert_eq!(store(&seoul, "seoul"), (first.clone(), 2));
    assert!(
        ohio.log().contains("it is an older state of itself"),
        "{}",
        ohio.log()
    );

    // The disk is lost.
    seoul.term();
    fs::remove_dir_all(&zone).unwrap();
    seoul.restart();
    wait_noticed(&ohio, "ohio", "wiped");
    wait_same(&seoul, 100);
    let (second, incarnation) = store(&seoul, "seoul");
    assert_ne!(second, first);
    assert_eq!(incarnation, 1);
    let page = http::get(ohio.http, "/metrics").body;
    for (kind, count) in [
        ("restarted", 1),
        ("restored", 1),
        ("wiped", 1),
        ("swapped", 0),
    ] {
        let counter = format!(
            "weir_mirror_store_changes_total{{storage=\"ohio\",router=\"5e0\",mirror=\"seoul\",\
             kind=\"{kind}\"}} {count}"
        );
        assert!(page.contains(&counter), "{counter}: {page}");
    }
    let status = ohio.weir(&["status"]);
    let shown = String::from_utf8(status.out).unwrap();
    assert!(shown.contains("wiped 20"), "{shown}");

    // The other router is given a copy of it: both tell of one store.
    seoul.term();
    ohio.term();
    let theirs = ohio.dir().join("zone");
    fs::remove_dir_all(&theirs).unwrap();
    copy(&zone, &theirs);
    seoul.restart();
    ohio.restart();
    wait_noticed(&ohio, "ohio", "cloned");
    wait_noticed(&seoul, "seoul", "cloned");
    assert_eq!(store(&ohio, "ohio").0, store(&seoul, "seoul").0);
    wait_same(&seoul, 100);
}
