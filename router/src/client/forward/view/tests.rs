//! Rows for what is shown of links.

use serde_json::json;

use super::*;

/// 2026-11-23T07:40:00Z.
fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-11-23T07:40:00Z").unwrap()
}

fn draining() -> Value {
    json!({
        "name": "cloud", "key_exprs": ["telemetry/**"], "dir": "/data/forward/cloud",
        "state": "draining",
        "queued": { "records": 6_000_000, "bytes": 402_653_184 },
        "lanes": [
            { "lane": 0, "records": 0, "bytes": 0, "oldest": null },
            { "lane": 4, "records": 6_000_000, "bytes": 402_653_184, "oldest": "2026-11-23T07:29:50Z" },
        ],
        "oldest": "2026-11-23T07:29:50.250Z", "budget_bytes": 8_589_934_592_u64,
        "appended": 6_000_500, "rejected": 0, "expired": 7, "dropped": { "full": 12, "7": 0 },
        "coalesced": 0,
        "lost": [
            { "source": "5a1f", "from": "2026-11-23T07:00:00Z", "to": "2026-11-23T07:00:09Z",
              "records": 12, "cause": "full" },
        ],
        "upstreams": [{
            "router": "77b2", "storage": "telemetry", "state": "draining",
            "since": "2026-11-23T07:39:57.500Z", "certified_through": "2026-11-23T07:29:50Z",
            "waiting": 6_000_000, "shipped_records": 100_000, "shipped_bytes": 1_048_576,
            "rounds": 3, "last_error": null, "left_s": 145.0,
        }],
        "rates": { "append_per_s": 10_000.0, "drain_per_s": 41_250.5 },
        "poisoned": null, "policy": null,
    })
}

fn up() -> Value {
    let mut link = draining();
    link["state"] = json!("up");
    link["queued"] = json!({ "records": 0, "bytes": 0 });
    link["oldest"] = Value::Null;
    link["lost"] = json!([]);
    link["lanes"] = json!([]);
    link["expired"] = json!(0);
    link["dropped"] = json!({});
    link["upstreams"][0]["state"] = json!("up");
    link["upstreams"][0]["waiting"] = json!(0);
    link["upstreams"][0]["left_s"] = Value::Null;
    link
}

#[test]
fn a_link_is_told_on_one_line() {
    let rows = [
        (
            draining(),
            "cloud@5a1f0123: draining, 6,000,000 waiting (384.00 MiB of 8.00 GiB), oldest 10m 9s, \
             in 10000/s, out 41250/s, 2m 25s left, 12 lost",
        ),
        (
            up(),
            "cloud@5a1f0123: up, 0 waiting (0 B of 8.00 GiB), oldest -, in 10000/s, out 41250/s",
        ),
        (
            json!({ "name": "cloud", "state": "down" }),
            "cloud@5a1f0123: down, - waiting (- of -), oldest -, in -, out -",
        ),
    ];
    for (link, expected) in rows {
        assert_eq!(line("5a1f0123456789", &link, now()), expected);
    }
}

#[test]
fn below_the_bar_stands_what_a_person_wants_to_know() {
    let expected = [
        "  77b2/telemetry draining for 2.5s: lacks 6000000, certified through \
         2026-11-23T07:29:50Z, shipped 100000 (1.00 MiB)",
        "  lanes 4: 6000000",
        "  expired 7, dropped (full) 12",
        "  known lost: 12 of 5a1f from 2026-11-23T07:00:00Z to 2026-11-23T07:00:09Z (full)",
    ];
    assert_eq!(details(&draining(), now()), expected);

    let mut bad = up();
    let lost = draining()["lost"][0].clone();
    bad["lost"] = json!(vec![lost; 5]);
    bad["poisoned"] = json!("no space\nleft");
    bad["upstreams"][0]["last_error"] = json!({ "message": "nobody answers" });
    let lines = details(&bad, now());
    assert!(lines[0].ends_with("; nobody answers"), "{lines:?}");
    assert_eq!(lines.len(), 1 + LOST_SHOWN_MAX + 2, "{lines:?}");
    assert_eq!(lines[LOST_SHOWN_MAX + 1], "  and 2 intervals more");
    assert_eq!(
        lines[LOST_SHOWN_MAX + 2],
        "  the journal takes nothing: no space\\nleft"
    );
}

#[test]
fn links_are_a_table_with_a_row_for_each_upstream() {
    let mut alone = up();
    alone["name"] = json!("depot");
    alone["upstreams"] = json!([]);
    alone["state"] = json!("down");
    let links = [("5a1f", &draining()), ("5a1f", &alone)];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams = Streams {
        out: &mut out,
        err: &mut err,
        out_is_terminal: true,
    };
    print_links(links, &mut streams).unwrap();
    let expected = "\
LINK   ROUTER  UPSTREAM        STATE     WAITING  BYTES       OLDEST                    LACKS    IN/S     OUT/S    LEFT    CERTIFIED THROUGH     SHIPPED  LOST  LAST ERROR
cloud  5a1f    77b2/telemetry  draining  6000000  384.00 MiB  2026-11-23T07:29:50.250Z  6000000  10000.0  41250.5  2m 25s  2026-11-23T07:29:50Z  100000   12    -
depot  5a1f    -               down      0        0 B         -                         -        10000.0  41250.5  -       -                     -        0     -
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn certified_is_only_what_an_upstream_has_said() {
    let mut nobody = up();
    nobody["upstreams"] = json!([]);
    let mut behind = up();
    behind["upstreams"][0]["waiting"] = json!(1);
    let mut probing = up();
    probing["state"] = json!("probing");
    let rows = [
        (up(), true),
        (draining(), false),
        (nobody, false),
        (behind, false),
        (probing, false),
        (Value::Null, false),
    ];
    for (link, expected) in rows {
        assert_eq!(is_certified(&link), expected, "{link}");
    }
}

#[test]
fn a_backlog_is_measured_by_the_most_that_has_waited() {
    let mut backlog = Backlog::default();
    let rows = [
        (0, (1, 1)),
        (100, (0, 100)),
        (400, (0, 400)),
        (100, (300, 400)),
        (0, (1, 1)),
        (50, (0, 50)),
    ];
    for (waiting, expected) in rows {
        let link = json!({ "queued": { "records": waiting } });
        assert_eq!(backlog.look([&link].into_iter()), expected, "{waiting}");
    }
}

#[test]
fn a_span_has_two_units_at_the_most() {
    let rows = [
        (None, "-"),
        (Some(0.0), "0.0s"),
        (Some(1.54), "1.5s"),
        (Some(145.7), "2m 25s"),
        (Some(7_509.0), "2h 5m"),
        (Some(93_784.0), "1day 2h"),
        (Some(-1.0), "-"),
    ];
    for (seconds, expected) in rows {
        assert_eq!(span(seconds), expected, "{seconds:?}");
    }
}
