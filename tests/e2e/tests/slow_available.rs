//! Three mirrors, clients that know two of them, and any one router killed under load: no read fails,
//! nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use weir_e2e::{
    Client, Router,
    mortal::{Ledger, Operation},
    until,
};

/// Each router is killed so often.
const TIMES: usize = 3;
const KEYS: u64 = 50;
/// How long a client waits for one router before it asks the other.
const PATIENCE: u64 = 2;

/// A client with a session to each of two routers: what one does not answer it asks the other.
struct TwoWays([Client; 2]);

impl TwoWays {
    fn to(routers: [&Router; 2]) -> Self {
        Self(routers.map(Router::python))
    }

    fn read(&mut self, key: &str) -> Option<String> {
        let ask = json!({ "selector": key, "target": "all", "timeout": PATIENCE });
        self.0
            .iter_mut()
            .find_map(|client| client.get_with(ask.clone()).values().pop())
    }

    fn write(&mut self, number: u64, operation: &Operation) -> bool {
        let mut request = operation.numbered(number);
        request["timeout"] = json!(PATIENCE);
        let is_acknowledged = |client: &mut Client| {
            client.acks(&[request.clone()], || {})[0]["admission"].is_string()
        };
        self.0.iter_mut().any(is_acknowledged)
    }
}

fn start(id: &str, peers: &[&Router]) -> Router {
    let peers: Vec<_> = peers.iter().map(|peer| peer.endpoint.as_str()).collect();
    Router::start_with(&format!(
        r#"id: "{id}", connect: {{ endpoints: {peers:?} }}, storages: {{
            a: {{ key_expr: "a/**", backend: "rocksdb", mirror: {{ period: "1s" }} }} }},"#
    ))
}

fn operation(number: u64) -> Operation {
    Operation {
        key: format!("a/{}", number % KEYS),
        value: Some(number.to_string().into_bytes()),
    }
}

#[test]
fn any_one_of_three_routers_may_die_while_two_are_known() {
    let first = start("a1", &[]);
    let second = start("a2", &[&first]);
    let third = start("a3", &[&first, &second]);
    let (mut writer, mut reader) = (
        TwoWays::to([&first, &second]),
        TwoWays::to([&first, &second]),
    );
    let mut ledger = Ledger::default();
    for number in 0..KEYS {
        let operation = operation(number);
        ledger.record(&operation, writer.write(number, &operation));
    }
    assert_eq!(ledger.acknowledged, 50);
    let mut routers = [first, second, third];
    let is_over = AtomicBool::new(false);
    let (writes, reads) = thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let mut number = KEYS;
            while !is_over.load(Relaxed) {
                let operation = operation(number);
                ledger.record(&operation, writer.write(number, &operation));
                number += 1;
            }
            number
        });
        let reads = scope.spawn(|| {
            let (mut count, mut failed, mut longest) = (0_u64, Vec::new(), Duration::ZERO);
            while !is_over.load(Relaxed) {
                let began = Instant::now();
                let key = format!("a/{}", count % KEYS);
                if reader.read(&key).is_none() {
                    failed.push(key);
                }
                longest = longest.max(began.elapsed());
                count += 1;
            }
            (count, failed, longest)
        });
        for _ in 0..TIMES {
            for victim in 0..routers.len() {
                routers[victim].kill9();
                routers[victim].restart();
                // The next one dies when this one knows its mirrors again, and holds the same.
                let other = (victim + 1) % routers.len();
                let against = routers[other].id().to_owned();
                until("the one that died has caught up", || {
                    let verify = [
                        "storage",
                        "verify",
                        "a",
                        "--against",
                        &against,
                        "--within",
                        "5s",
                    ];
                    let ended = routers[victim].weir(&verify);
                    (ended.code == 0).then_some(()).ok_or(ended.err)
                });
            }
        }
        is_over.store(true, Relaxed);
        (writes.join().unwrap(), reads.join().unwrap())
    });
    let (count, failed, longest) = reads;
    assert_eq!(
        failed,
        Vec::<String>::new(),
        "reads that failed, of {count}"
    );
    for router in &routers {
        let got = router.python().get_with(json!({ "selector": "a/**" }));
        ledger.check(&got, router.id());
    }
    weir_e2e::say(&format!(
        "{} kills, {count} reads, none failed, the longest took {longest:.1?}; {writes} writes, {} acknowledged",
        TIMES * routers.len(),
        ledger.acknowledged,
    ));
    assert!(ledger.acknowledged > 1_000, "{}", ledger.acknowledged);
}
