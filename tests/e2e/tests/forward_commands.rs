//! The commands about links and their journals, against a router that has them open.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use serde_json::Value;
use weir_e2e::{Ended, Router, line::Line, until, weir};

fn text(ended: Ended) -> String {
    String::from_utf8(ended.out).unwrap()
}

#[test]
fn a_link_is_listed_looked_into_and_watched() {
    let cloud = Router::start_with(
        r#"id: "c1", storages: { s: { key_expr: "v/**", volume: "memory", history: "all", mirror: false } },"#,
    );
    let line = Line::to(&cloud.endpoint);
    let edge = Router::start_with(&format!(
        r#"id: "ed", connect: {{ endpoints: ["{}"] }},
        forward: {{ cloud: {{ key_expr: "v/42/**", period: "300ms", timeout: "2s" }} }},"#,
        line.endpoint
    ));
    let listed = || {
        let listed = edge.weir(&["forward", "ls", "--json"]).with_code(0).json();
        listed[0]["link"].clone()
    };
    let wait = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        until(what, || {
            let link = listed();
            if is_it(&link) {
                Ok(link)
            } else {
                Err(link.to_string())
            }
        })
    };
    wait("the link has met the cloud", &|link| link["state"] == "up");
    line.cut();
    wait("the link is down", &|link| link["state"] == "down");

    let keys = ["v/42/alarm", "v/42/pose", "v/42/speed"];
    for key in keys {
        let put = ["put", key, "7", "--ack", "--durability", "synced"];
        let receipts = edge.weir(&put).with_code(0).json();
        assert_eq!(receipts[0]["admission"], "queued", "{receipts:?}");
        assert_eq!(receipts[0]["durability"], "synced", "{receipts:?}");
    }
    let link = wait("all of it waits", &|link| link["queued"]["records"] == 3);
    let status = edge.weir(&["status", "--json"]).with_code(0).json();
    assert_eq!(status[0]["routers"][0]["forward"][0]["name"], "cloud");
    let table = text(edge.weir(&["status"]).with_code(0));
    assert!(table.contains("CERTIFIED THROUGH"), "{table}");

    // What was acknowledged is there for whoever looks from outside.
    let dir = link["dir"].as_str().unwrap();
    let exported = weir(&["journal", "export", dir]).with_code(0).json();
    let exported: Vec<&str> = exported
        .iter()
        .map(|sample| sample["key"].as_str().unwrap())
        .collect();
    assert_eq!(exported, keys);
    let table = text(weir(&["journal", "inspect", dir]).with_code(0));
    assert!(table.contains(" open "), "{table}");

    line.mend();
    let watch = [
        "forward",
        "watch",
        "cloud",
        "--until-certified",
        "--every",
        "200ms",
    ];
    let watched = text(edge.weir(&watch).with_code(0));
    let last = watched.lines().last().unwrap();
    assert!(last.contains("up, 0 waiting"), "{watched}");
    let got = cloud.weir(&["get", "v/42/**"]).with_code(0).json();
    assert_eq!(got.len(), 3, "{got:?}");
    let verdict = text(weir(&["journal", "verify", dir]).with_code(0));
    assert!(
        verdict.contains(" 3 records, ") && verdict.contains("nothing is damaged"),
        "{verdict}"
    );
    let none = edge.weir(&["forward", "watch", "none"]).with_code(1);
    assert!(none.err.contains("no router has a link `none`"), "{none:?}");
}
