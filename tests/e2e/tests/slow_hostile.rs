//! A burst of a hundred hostile policies into the directory of a running router: it stays up, every
//! sample is kept by the native rule, and the status names each villain with its cause.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use weir_e2e::{Router, python::packed};

/// Samples on each storage: enough calls for the breakers to open.
const SAMPLES: u64 = 24;
/// Compiling what can be compiled, one by one, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The corpus: rows for `route`, each with the bytes of its module. `None` if no guest can be built.
fn corpus() -> Option<Vec<(Value, Vec<u8>)>> {
    let dir = tempfile::tempdir().unwrap();
    let make = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/hostile/make");
    let made = Command::new(make).arg(dir.path()).output().unwrap();
    let errors = String::from_utf8_lossy(&made.stderr);
    if errors.contains("cannot build Rust guests") {
        weir_e2e::skip(&format!("no guest can be built here: {errors}"));
        return None;
    }
    assert!(made.status.success(), "{errors}");
    let rows = fs::read(dir.path().join("corpus.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&rows).unwrap();
    let bytes = |row: &Value| {
        let bytes = fs::read(dir.path().join(row["file"].as_str().unwrap())).unwrap();
        // Of those that are cut at many places, one cut.
        let cut = row["truncate_every"].as_u64().map(usize::try_from);
        cut.map_or(bytes.clone(), |every| bytes[..every.unwrap() * 3].to_vec())
    };
    let routes = rows.into_iter().filter(|row| row["hook"] == "route");
    Some(routes.map(|row| (row.clone(), bytes(&row))).collect())
}

/// One storage for each row, bound to it.
fn settings(rows: &[(Value, Vec<u8>)]) -> String {
    let (mut storages, mut own) = (String::new(), String::new());
    for (row, _) in rows {
        let name = row["name"].as_str().unwrap();
        writeln!(
            storages,
            r#""{name}": {{ key_expr: "v/{name}/**", shards: [
                {{ name: "a", backend: "memory" }}, {{ name: "b", backend: "memory" }},
                {{ name: "c", backend: "memory" }}, {{ name: "d", backend: "memory" }},
            ], policies: {{ route: "{name}" }} }},"#
        )
        .unwrap();
        if !row["settings"].is_null() {
            writeln!(own, r#""{name}": {},"#, row["settings"]).unwrap();
        }
    }
    format!(
        r#"policies: {{ dir: "$DIR/policies", settings: {{ {own} }} }}, storages: {{ {storages} }},"#
    )
}

/// Why a row is not what the corpus says of it, by what the router says.
fn differs(row: &Value, policy: &Value) -> Option<String> {
    let expect = &row["expect"];
    let (file, slot) = (&policy["file"], &policy["slots"][0]);
    let is = |condition: bool| (!condition).then(|| policy.to_string());
    if let Some(code) = expect["refused"].as_str() {
        return is(file["state"] == "refused" && file["refusal"]["code"] == code);
    }
    if expect["refused_any"] == true || expect["each_refused"] == true {
        return is(file["state"] == "refused");
    }
    if let Some(cause) = expect["start"].as_str() {
        let message = slot["report"]["message"].as_str().unwrap_or_default();
        return is(slot["service"] == "native" && message.contains(cause));
    }
    if let Some(cause) = expect["fault"].as_str() {
        return is(slot["errors"][cause].as_u64().unwrap_or(0) > 0);
    }
    if let Some(causes) = expect["fault_any"].as_array() {
        let any = |cause: &Value| slot["errors"][cause.as_str().unwrap()].is_u64();
        return is(causes.iter().any(any));
    }
    // Harmless, or anything: it has been looked at, whatever became of it.
    is(file["state"] != "loading" && slot["loading"].is_null())
}

#[test]
fn a_burst_of_hostile_policies_costs_the_router_nothing() {
    let Some(rows) = corpus() else { return };
    assert!(rows.len() >= 30, "{}", rows.len());
    let router = Router::start_with(&settings(&rows));
    let dir = router.dir().join("policies");
    fs::create_dir_all(&dir).unwrap();
    for (row, bytes) in &rows {
        let name = row["name"].as_str().unwrap();
        fs::write(dir.join(format!("{name}.wasm")), bytes).unwrap();
    }
    let status = || -> Vec<Value> {
        let all = router.rest_get(&format!("@weir/{}/policies/*", router.id()));
        let all = all.json().as_array().unwrap().clone();
        all.into_iter()
            .map(|entry| entry["value"].clone())
            .collect()
    };
    let of = |all: &[Value], row: &Value| {
        let found = all.iter().find(|policy| policy["name"] == row["name"]);
        found.cloned().unwrap_or_default()
    };
    weir_e2e::until_within(PATIENCE, "every file has been looked at", || {
        let all = status();
        let is_open = |(row, _): &&(Value, Vec<u8>)| {
            let policy = of(&all, row);
            let state = policy["file"]["state"].as_str().unwrap_or("loading");
            state == "loading" || !policy["slots"][0]["loading"].is_null()
        };
        match rows.iter().filter(is_open).count() {
            0 => Ok(()),
            open => Err(format!("{open} are loading")),
        }
    });

    let mut client = router.python();
    for sample in 0..SAMPLES {
        // A batch each, so that a policy is called again and again.
        let puts: Vec<Value> = rows
            .iter()
            .map(|(row, _)| {
                let key = format!("v/{}/{sample}", row["name"].as_str().unwrap());
                json!({ "key": key, "value": packed("x") })
            })
            .collect();
        client.puts(&puts);
        // Some fail at their fifth call, and a call is a batch: no two samples in one.
        for (row, _) in rows
            .iter()
            .filter(|(row, _)| !row["expect"]["fault_at_call"].is_null())
        {
            router.wait_decided(row["name"].as_str().unwrap(), sample + 1);
        }
    }
    let judge = |all: &[Value]| {
        let found = rows
            .iter()
            .filter_map(|(row, _)| differs(row, &of(all, row)));
        found.collect::<Vec<_>>()
    };
    weir_e2e::until_within(PATIENCE, "each is named with its cause", || {
        match judge(&status()).as_slice() {
            [] => Ok(()),
            [first, ..] => Err(first.clone()),
        }
    });
    for (row, _) in &rows {
        let name = row["name"].as_str().unwrap();
        router.wait_decided(name, SAMPLES);
        // What harms nothing may still say no; what fails or is refused decides nothing.
        let decides = ["harmless", "harmless_or_fault", "anything", "fault_at_call"];
        if decides.iter().any(|kind| !row["expect"][kind].is_null()) {
            continue;
        }
        let found = client.get(&format!("v/{name}/**")).samples.len() as u64;
        assert_eq!(found, SAMPLES, "{row}: {}", of(&status(), row));
    }
    let named = fs::read_dir(&dir).unwrap();
    let is_note = |path: &Path| path.extension().is_some_and(|end| end == "error");
    let notes = named.filter(|entry| is_note(&entry.as_ref().unwrap().path()));
    let refused = status()
        .iter()
        .filter(|policy| policy["file"]["state"] == "refused")
        .count();
    assert!(
        refused > 0 && notes.count() >= refused,
        "a note beside each refused file"
    );
}
