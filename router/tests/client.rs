//! The client commands as a user runs them: the real program against a real Zenoh router in this
//! process, whose subscribers and queryables the tests declare.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::{Duration, Instant};

use zenoh::bytes::{Encoding, ZBytes};
use zenoh::query::Query;
use zenoh::sample::SampleKind;

#[path = "client/operate.rs"]
mod operate;
#[path = "client/policies.rs"]
mod policies;
#[path = "client/storages.rs"]
mod storages;
#[path = "client/support.rs"]
mod support;

use support::{Answer, Ended, Router, start, weir, weir_with};

/// Exit statuses.
const DONE: i32 = 0;
const NOTHING: i32 = 1;
const ERROR: i32 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn put_takes_its_value_from_an_argument_a_file_or_standard_input() {
    let router = Router::start().await;
    let samples = router.session.declare_subscriber("demo/**").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("value");
    std::fs::write(&file, b"\x00from\nfile").unwrap();
    let at_file = format!("@{}", file.display());
    let file = file.display().to_string();
    let bytes = "zenoh/bytes";
    // Arguments, standard input, payload, encoding.
    type Row<'r> = (&'r [&'r str], &'r [u8], &'r [u8], &'r str);
    let rows: [Row<'_>; 7] = [
        (&["21.5"], b"", b"21.5", "text/plain"),
        (&["-5"], b"", b"-5", "text/plain"),
        (&["-"], b"\xffstdin\n", b"\xffstdin\n", bytes),
        (&[], b"piped", b"piped", bytes),
        (&[&at_file], b"", b"\x00from\nfile", bytes),
        (
            &["--file", &file, "--encoding", "application/json"],
            b"",
            b"\x00from\nfile",
            "application/json",
        ),
        (&["--text", "@literal"], b"", b"@literal", "text/plain"),
    ];
    for (args, stdin, payload, encoding) in rows {
        let line = [&["put", "demo/a", "-e", &router.endpoint], args].concat();
        let ended = weir_with(&line, stdin).await;
        assert_eq!(ended, Ended::quietly(DONE), "{args:?}");
        let sample = samples
            .recv_timeout(Duration::from_secs(5))
            .unwrap()
            .expect("no sample");
        assert_eq!(sample.key_expr().as_str(), "demo/a");
        assert_eq!(&*sample.payload().to_bytes(), payload, "{args:?}");
        assert_eq!(sample.encoding().to_string(), encoding, "{args:?}");
        assert!(sample.timestamp().is_some(), "the router stamps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn put_and_del_carry_timestamp_and_attachment() {
    let router = Router::start().await;
    let samples = router.session.declare_subscriber("demo/**").await.unwrap();
    let given = [
        "--timestamp",
        "2026-05-04T10:00:00.5Z/ab",
        "--attachment",
        "note",
    ];
    for (command, kind, key) in [
        (&["put", "demo/a", "1"][..], SampleKind::Put, "demo/a"),
        (&["del", "demo/a"], SampleKind::Delete, "demo/a"),
        (&["del", "demo/**"], SampleKind::Delete, "demo/**"),
    ] {
        let line = [command, &given, &["-e", &router.endpoint]].concat();
        assert_eq!(weir(&line).await, Ended::quietly(DONE), "{command:?}");
        let sample = samples
            .recv_timeout(Duration::from_secs(5))
            .unwrap()
            .expect("no sample");
        assert_eq!((sample.kind(), sample.key_expr().as_str()), (kind, key));
        let timestamp = sample.timestamp().unwrap();
        assert_eq!(
            timestamp.to_string_rfc3339_lossy(),
            "2026-05-04T10:00:00.500000000Z/ab"
        );
        assert_eq!(sample.attachment().unwrap().to_bytes(), &b"note"[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_not_there_is_told_at_once() {
    let endpoint = format!("tcp/127.0.0.1:{}", support::free_port());
    for line in [
        &["put", "a", "1"][..],
        &["get", "a"],
        &["del", "a"],
        &["sub", "a"],
    ] {
        let asked = Instant::now();
        let ended = weir(&[line, &["-e", &endpoint]].concat()).await;
        assert_eq!(ended.code, ERROR, "{line:?}");
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{line:?} took {:?}",
            asked.elapsed()
        );
        let told = format!(
            "error: no router at {endpoint}: start one with `weir run`, or name one with -e\n"
        );
        assert!(ended.err.starts_with(&told), "{}", ended.err);
    }
    let ended = weir(&["get", "a", "-e", "nonsense"]).await;
    assert!(
        ended.code == ERROR && ended.err.contains("`nonsense` is not an endpoint"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_endpoint_is_tried_when_the_first_refuses() {
    let router = Router::start().await;
    let _queryable = router.answer("demo/a", |query| query.reply_value("demo/a", "1"));
    let dead = format!("tcp/127.0.0.1:{}", support::free_port());
    let line = [
        "get",
        "demo/a",
        "--format",
        "raw",
        "-e",
        &dead,
        "-e",
        &router.endpoint,
    ];
    assert_eq!(
        weir(&line).await,
        Ended {
            code: DONE,
            out: "1".into(),
            err: String::new()
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn get_prints_in_each_format() {
    let router = Router::start().await;
    let _queryable = router.answer("demo/**", |query| {
        query.reply_value("demo/a", "one");
        query.reply_with("demo/b", r#"{"n": 1.0}"#, "application/json");
    });
    let zid = router.session.zid();
    let get = |format: &'static str| {
        let line = ["get", "demo/**", "--format", format, "-e", &router.endpoint];
        let line = line.map(str::to_owned);
        async move { weir(&line.each_ref().map(String::as_str)).await }
    };
    let ended = get("json").await;
    assert_eq!((ended.code, ended.err.as_str()), (DONE, ""));
    let expected = [
        format!(
            r#"{{"key":"demo/a","kind":"put","value":"one","encoding":"zenoh/bytes","timestamp":"4294967296/33","time":"1970-01-01T00:00:01.000000000Z","source":"{zid}"}}"#
        ),
        format!(
            r#"{{"key":"demo/b","kind":"put","value":{{"n": 1.0}},"encoding":"application/json","timestamp":"4294967296/33","time":"1970-01-01T00:00:01.000000000Z","source":"{zid}"}}"#
        ),
    ];
    assert_eq!(ended.sorted_lines(), expected);

    let ended = get("raw").await;
    assert!(
        ended.out == "one{\"n\": 1.0}" || ended.out == "{\"n\": 1.0}one",
        "{ended:?}"
    );

    let ended = get("table").await;
    assert!(ended.out.starts_with("KEY     VALUE"), "{}", ended.out);
    assert!(
        ended
            .out
            .contains(r#"demo/b  {"n": 1.0}  application/json  1970-01-01T00:00:01"#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn get_says_by_its_status_whether_anything_matched() {
    let router = Router::start().await;
    let _good = router.answer("demo/good", |query| query.reply_value("demo/good", "1"));
    let _bad = router.answer("demo/bad", |query| query.refuse("disk on fire"));
    let get = |selector: &'static str| {
        let endpoint = router.endpoint.clone();
        async move { weir(&["get", selector, "--format", "raw", "-e", &endpoint]).await }
    };
    let nothing = get("demo/other").await;
    assert_eq!((nothing.code, nothing.out.as_str()), (NOTHING, ""));
    assert_eq!(nothing.err, "nothing matches demo/other\n");

    let both = get("demo/*").await;
    assert_eq!((both.code, both.out.as_str()), (ERROR, "1"));
    assert!(both.err.contains("disk on fire"), "{}", both.err);

    let wrong = get("demo//a").await;
    assert_eq!((wrong.code, wrong.out.as_str()), (ERROR, ""));
    assert!(
        wrong.err.contains("`demo//a` is no key expression"),
        "{}",
        wrong.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn get_stops_at_its_limit_and_tells_it() {
    let router = Router::start().await;
    let (selectors, asked) = std::sync::mpsc::channel();
    let _queryable = router.answer("demo/**", move |query| {
        selectors.send(query.selector().to_string()).unwrap();
        for n in 0..10_000 {
            query.reply_value(&format!("demo/{n}"), "x");
        }
    });
    for all in [&[][..], &["--all"]] {
        let line = [
            "get",
            "demo/**",
            "--limit",
            "3",
            "--format",
            "json",
            "-e",
            &router.endpoint,
        ];
        let ended = weir(&[&line, all].concat()).await;
        assert_eq!(
            (ended.code, ended.out.lines().count()),
            (DONE, 3),
            "{}",
            ended.err
        );
        assert_eq!(ended.err, "");
        assert_eq!(
            asked.recv_timeout(Duration::from_secs(5)).unwrap(),
            "demo/**?_limit=3"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_gives_one_answer_a_key_or_all() {
    let router = Router::start().await;
    let _first = router.answer("demo/a", |query| query.reply_value("demo/a", "1"));
    let _second = router.answer("demo/*", |query| query.reply_value("demo/a", "2"));
    let line = [
        "get",
        "demo/a",
        "--format",
        "raw",
        "--target",
        "all",
        "-e",
        &router.endpoint,
    ];
    let one = weir(&line).await;
    assert_eq!((one.code, one.out.len()), (DONE, 1), "{one:?}");
    let all = weir(&[&line[..], &["--all"]].concat()).await;
    assert!(all.out == "12" || all.out == "21", "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_tells_that_somebody_did_not_answer_in_time() {
    let router = Router::start().await;
    // A query is over when all its clones are dropped.
    let (held, keeper) = std::sync::mpsc::channel::<Query>();
    let _queryable = router.answer("demo/a", move |query| {
        query.reply_value("demo/a", "1");
        held.send(query.clone()).unwrap();
    });
    let line = [
        "get",
        "demo/a",
        "--format",
        "raw",
        "--timeout",
        "300ms",
        "-e",
        &router.endpoint,
    ];
    let ended = weir(&line).await;
    assert_eq!((ended.code, ended.out.as_str()), (ERROR, "1"));
    assert!(ended.err.contains("raise --timeout"), "{}", ended.err);
    drop(keeper);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_ends_well_when_its_reader_goes_away() {
    let router = Router::start().await;
    let _queryable = router.answer("demo/**", |query| {
        for n in 0..20_000 {
            query.reply_value(&format!("demo/{n}"), "a value of some length");
        }
    });
    let line = [
        "get",
        "demo/**",
        "--all",
        "--format",
        "json",
        "-e",
        &router.endpoint,
    ];
    let mut child = start(&line);
    drop(child.stdout.take());
    let ended = Ended::of(child).await;
    assert_eq!(ended, Ended::quietly(DONE));
}

#[tokio::test(flavor = "multi_thread")]
async fn sub_prints_what_is_put_after_it_says_so() {
    let router = Router::start().await;
    let line = [
        "sub",
        "demo/**",
        "--count",
        "3",
        "--format",
        "json",
        "-e",
        &router.endpoint,
    ];
    let mut child = start(&line);
    support::wait_for_line(&mut child, "subscribed to demo/**").await;
    let session = &router.session;
    session
        .put("demo/a", "1")
        .encoding(Encoding::TEXT_PLAIN)
        .await
        .unwrap();
    session.put("other", "2").await.unwrap();
    session.delete("demo/b").await.unwrap();
    session
        .put("demo/c", vec![0xff, 0])
        .attachment(ZBytes::from("note"))
        .await
        .unwrap();
    let ended = Ended::of(child).await;
    assert_eq!((ended.code, ended.err.as_str()), (DONE, ""));
    let lines: Vec<serde_json::Value> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let field = |name: &str| {
        lines
            .iter()
            .map(|line| line[name].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(field("key"), ["demo/a", "demo/b", "demo/c"]);
    assert_eq!(field("kind"), ["put", "delete", "put"]);
    assert_eq!(lines[0]["value"], "1");
    assert_eq!(lines[0]["encoding"], "text/plain");
    assert_eq!(lines[2]["base64"], "/wA=");
    assert_eq!(lines[2]["attachment"], "note");
}

#[tokio::test(flavor = "multi_thread")]
async fn sub_ends_well_when_interrupted() {
    let router = Router::start().await;
    let mut child = start(&["sub", "demo/**", "-e", &router.endpoint]);
    support::wait_for_line(&mut child, "subscribed to demo/**").await;
    support::interrupt(&child).await;
    assert_eq!(Ended::of(child).await, Ended::quietly(DONE));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_put_says_what_every_storage_answered() {
    let router = Router::start().await;
    let (queries, asked) = std::sync::mpsc::channel();
    let _storage = router.answer("demo/**", move |query| {
        queries.send(Asked::from(query)).unwrap();
        query.reply_value(query.key_expr().as_str(), RECEIPT);
    });
    let _other = router.answer("demo/*", move |query| {
        query.reply_value(query.key_expr().as_str(), RECEIPT);
    });
    let common = ["--format", "json", "-e", &router.endpoint];
    let put = ["put", "demo/a", "5", "--attachment", "note", "--ack"];
    let ended = weir(&[&put[..], &common].concat()).await;
    assert_eq!((ended.code, ended.err.as_str()), (DONE, ""));
    let lines: Vec<&str> = ended.out.lines().collect();
    assert_eq!(lines.len(), 2, "one a storage: {}", ended.out);
    let answer: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(
        answer,
        serde_json::from_str::<serde_json::Value>(RECEIPT).unwrap()
    );
    let expected = Asked {
        selector: "demo/a?_put".to_owned(),
        payload: Some(b"5".to_vec()),
        encoding: Some("text/plain".to_owned()),
        attachment: Some(b"note".to_vec()),
    };
    assert_eq!(
        asked.recv_timeout(Duration::from_secs(5)).unwrap(),
        expected
    );

    let del = [
        "del",
        "demo/a",
        "--durability",
        "written",
        "--timestamp",
        "4294967296/33",
    ];
    let ended = weir(&[&del[..], &common].concat()).await;
    assert_eq!(ended.code, DONE, "{}", ended.err);
    let expected = Asked {
        selector: "demo/a?_delete;durability=written;timestamp=4294967296/33".to_owned(),
        payload: None,
        encoding: None,
        attachment: None,
    };
    assert_eq!(
        asked.recv_timeout(Duration::from_secs(5)).unwrap(),
        expected
    );
}

/// What a storage was asked. The query itself must not be kept: that would be a late answer.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    selector: String,
    payload: Option<Vec<u8>>,
    encoding: Option<String>,
    attachment: Option<Vec<u8>>,
}

impl From<&Query> for Asked {
    fn from(query: &Query) -> Self {
        let bytes = |bytes: &ZBytes| bytes.to_bytes().into_owned();
        Self {
            selector: query.selector().to_string(),
            payload: query.payload().map(bytes),
            encoding: query.encoding().map(Encoding::to_string),
            attachment: query.attachment().map(bytes),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_put_fails_unless_every_storage_accepts() {
    let router = Router::start().await;
    let _fine = router.answer("some/**", |query| {
        query.reply_value(query.key_expr().as_str(), RECEIPT);
    });
    let _full = router.answer("some/full", |query| query.refuse("no space left"));
    let put = |key: &'static str, more: &'static [&'static str]| {
        let endpoint = router.endpoint.clone();
        async move {
            weir(
                &[
                    &[
                        "put", key, "5", "--ack", "--format", "table", "-e", &endpoint,
                    ],
                    more,
                ]
                .concat(),
            )
            .await
        }
    };
    assert_eq!(put("some/a", &[]).await.code, DONE);

    let nobody = put("none/a", &[]).await;
    assert_eq!((nobody.code, nobody.out.as_str()), (NOTHING, ""));
    assert_eq!(nobody.err, "no storage holds or takes none/a\n");

    let full = put("some/full", &[]).await;
    assert_eq!(full.code, ERROR);
    assert!(
        full.out.contains("applied") && full.err.contains("no space left"),
        "{full:?}"
    );

    let weaker = put("some/a", &["--durability", "synced"]).await;
    assert_eq!(weaker.code, ERROR);
    assert!(
        weaker.err.contains("synced was asked for and only written"),
        "{weaker:?}"
    );
}

const RECEIPT: &str = r#"{"storage":"demo","router":"ab12","admission":"applied","timestamp":"4294967296/33","durability":"written"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_program_describes_itself() {
    let version = weir(&["--version"]).await;
    assert!(
        version.code == DONE && version.out.contains("zenoh v1.10"),
        "{version:?}"
    );
    let help = weir(&["get", "--help"]).await;
    assert!(
        help.code == DONE && help.out.contains("Examples:"),
        "{help:?}"
    );
    let script = weir(&["completions", "bash"]).await;
    assert!(
        script.code == DONE && script.out.contains("complete -F"),
        "{script:?}"
    );
    let page = weir(&["man"]).await;
    assert!(
        page.code == DONE && page.out.contains(".TH weir"),
        "{page:?}"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("man1");
    assert_eq!(
        weir(&["man", "--dir", path.to_str().unwrap()]).await,
        Ended::quietly(DONE)
    );
    assert!(path.join("weir-get.1").exists());
    let wrong = weir(&["put"]).await;
    assert!(
        wrong.code == ERROR && wrong.err.contains("Usage:"),
        "{wrong:?}"
    );
}
