//! kill -9 at any moment, two hundred times: what was acknowledged is there, whole, and stays.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{thread, time::Duration};

use serde_json::{Value, json};
use weir_e2e::{
    Router,
    mortal::{Ledger, Operation},
    rng::Rng,
};

const KILLS: usize = 200;
/// Few, so that most operations meet a key that is there.
const KEYS: u64 = 400;
/// More than a router can acknowledge before it is killed.
const OPERATIONS: usize = 1_500;
/// Between the first operation and the kill.
const LIFE_MS: u64 = 250;
/// After so many seconds the client tells itself `Timeout`, for a query that it had just sent to a
/// router that died.
const TIMEOUT_S: u64 = 3;

#[test]
fn nothing_acknowledged_is_lost_when_the_router_is_killed() {
    let mut rng = Rng::from_environment();
    let mut router = Router::start(r#"k: { key_expr: "k/**", backend: "rocksdb" }"#);
    let mut client = router.python();
    let mut ledger = Ledger::default();
    let (mut number, mut cut_off) = (0, 0);
    for kill in 0..KILLS {
        let operations: Vec<Operation> = (0..OPERATIONS)
            .map(|_| {
                number += 1;
                let key = format!("k/{}", rng.below(KEYS));
                let is_put = rng.below(5) > 0;
                let fill = usize::try_from(rng.below(400)).unwrap();
                let value = format!("{number}:{}", "x".repeat(fill)).into_bytes();
                Operation {
                    key,
                    value: is_put.then_some(value),
                }
            })
            .collect();
        let requests: Vec<Value> = operations
            .iter()
            .map(|operation| {
                let mut request = operation.request();
                request["timeout"] = json!(TIMEOUT_S);
                request
            })
            .collect();
        // Chance, not patience: the kill comes wherever it comes.
        let life = Duration::from_millis(rng.below(LIFE_MS));
        let receipts = client.acks(&requests, || {
            thread::sleep(life);
            router.kill9();
        });
        for (operation, receipt) in operations.iter().zip(&receipts) {
            let acknowledged = receipt["admission"].is_string();
            cut_off += usize::from(!acknowledged);
            let refused = receipt.get("error").is_some_and(|error| error != "Timeout");
            assert!(!refused, "kill {kill}: {receipt}");
            ledger.record(operation, acknowledged);
        }
        router.restart();
        client.reconnect();
        let got = client.get_with(json!({ "selector": "k/**", "target": "all" }));
        ledger.check(&got, &format!("after kill {kill}, {life:?} into its life"));
        if (kill + 1) % 50 == 0 {
            weir_e2e::say(&format!(
                "{} kills, {} acknowledged",
                kill + 1,
                ledger.acknowledged
            ));
        }
    }
    weir_e2e::say(&format!(
        "{KILLS} kills, {} acknowledged, {cut_off} cut off",
        ledger.acknowledged
    ));
    // Otherwise nothing was shown: each life should do some work, and some of it be cut off.
    assert!(ledger.acknowledged > KILLS * 10, "{}", ledger.acknowledged);
    assert!(cut_off > KILLS, "{cut_off}");
}
