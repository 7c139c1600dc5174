//! Hundreds of storages in one router.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use serde_json::{Value, json};
use weir_e2e::{Router, python::packed};

#[test]
fn three_hundred_storages_answer_one_wildcard_get() {
    const STORAGES: usize = 300;
    let storages: Vec<String> = (0..STORAGES)
        .map(|number| {
            format!(r#"s{number}: {{ key_expr: "many/{number}/**", backend: "rocksdb" }}"#)
        })
        .collect();
    let mut router = Router::start(&storages.join(",\n"));
    assert!(
        router
            .greeting
            .iter()
            .any(|line| line.contains("and 290 more"))
    );
    let mut client = router.python();
    let puts: Vec<Value> = (0..STORAGES)
        .map(|number| json!({ "key": format!("many/{number}/a"), "value": packed("1") }))
        .collect();
    client.puts(&puts);
    let mut expected: Vec<String> = (0..STORAGES)
        .map(|number| format!("many/{number}/a=1"))
        .collect();
    expected.sort();
    let check = |router: &Router| {
        let mut client = router.python();
        weir_e2e::until("all of them answer", || {
            let got = client.get_all("many/**");
            let seen = got.values();
            if seen == expected {
                Ok(())
            } else {
                Err(format!("{} {:?}", seen.len(), got.errors))
            }
        });
    };
    check(&router);
    drop(client);
    router.term();
    router.restart();
    check(&router);
}
