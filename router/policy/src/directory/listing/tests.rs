use super::*;
use Difference::{Added, Changed, Removed};

const SPAN: Duration = Duration::from_millis(50);
const SPAN_FINISHED: Duration = Duration::from_millis(10);

fn settling() -> Settling {
    Settling::new(SPAN, SPAN_FINISHED)
}

fn nobody() -> BTreeSet<String> {
    BTreeSet::new()
}

/// `geo=1` is a module of content 1; `geo=1+7` has a signature of content 7; `geo=1@3` was written
/// to at 3; `geo=!` cannot be read.
fn listing(text: &str) -> Listing {
    text.split_whitespace().map(entry).collect()
}

fn entry(text: &str) -> (String, Fingerprint) {
    let (name, rest) = text.split_once('=').unwrap();
    let (rest, modified) = rest.split_once('@').unwrap_or((rest, "0"));
    let (module, signature) = match rest.split_once('+') {
        Some((module, signature)) => (module, Some(signature)),
        None => (rest, None),
    };
    let look = Look {
        modified: (modified.parse().unwrap(), 0),
        ..Look::default()
    };
    let seen = |text: &str| Seen {
        look,
        content: match text {
            "!" => Content::Unreadable("no".into()),
            text => Content::Hash(blake3::hash(text.as_bytes())),
        },
    };
    let print = Fingerprint {
        module: seen(module),
        signature: signature.map(seen),
    };
    (name.to_owned(), print)
}

#[test]
fn two_listings_differ_in_their_contents_alone() {
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, Difference)]);
    let rows: &[Row<'_>] = &[
        ("", "", &[]),
        ("", "a=1 b=2", &[("a", Added), ("b", Added)]),
        ("a=1 b=2", "", &[("a", Removed), ("b", Removed)]),
        ("a=1", "a=2", &[("a", Changed)]),
        ("a=1", "a=1", &[]),
        // Touched, or replaced by the same bytes.
        ("a=1@1", "a=1@2", &[]),
        // A signature that comes, changes, goes.
        ("a=1", "a=1+7", &[("a", Changed)]),
        ("a=1+7", "a=1+8", &[("a", Changed)]),
        ("a=1+7", "a=1", &[("a", Changed)]),
        // A rename.
        ("a=1", "b=1", &[("a", Removed), ("b", Added)]),
        ("a=1", "a=!", &[("a", Changed)]),
        (
            "a=1 c=3",
            "b=2 c=4",
            &[("a", Removed), ("b", Added), ("c", Changed)],
        ),
    ];
    for (old, new, expected) in rows {
        let found = diff(&listing(old), &listing(new));
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, difference)| ((*name).to_owned(), *difference))
            .collect();
        assert_eq!(found, expected, "{old:?} -> {new:?}");
    }
}

/// Looks at the times given (ms) and accepts what has settled; returns what settled at each look.
fn story(looks: &[(u64, &str)]) -> Vec<String> {
    let mut settling = settling();
    let looks = looks.iter().map(|(at, text)| {
        let ripe = settling.observe(Duration::from_millis(*at), &listing(text), &nobody());
        let told: Vec<String> = ripe
            .iter()
            .map(|(name, difference)| {
                settling.accept(name);
                format!("{difference:?} {name}")
            })
            .collect();
        told.join(", ")
    });
    looks.collect()
}

#[test]
fn believes_what_two_looks_agree_on() {
    type Row<'a> = (&'a str, &'a [(u64, &'a str)], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (
            "a file that is dropped whole",
            &[(0, "a=1"), (50, "a=1"), (100, "a=1")],
            &["", "Added a", ""],
        ),
        (
            "looks that come too early say nothing yet",
            &[(0, "a=1"), (10, "a=1"), (49, "a=1"), (50, "a=1")],
            &["", "", "", "Added a"],
        ),
        (
            "a file that grows is waited for",
            &[(0, "a=1"), (50, "a=2"), (100, "a=3"), (150, "a=3")],
            &["", "", "", "Added a"],
        ),
        (
            "the same bytes written again are still being written",
            &[(0, "a=1@1"), (50, "a=1@2"), (100, "a=1@2")],
            &["", "", "Added a"],
        ),
        (
            "removed and copied again within the span was a replacement",
            &[(0, "a=1"), (50, "a=1"), (60, ""), (70, "a=2"), (120, "a=2")],
            &["", "Added a", "", "", "Changed a"],
        ),
        (
            "removed and brought back as it was is nothing",
            &[(0, "a=1"), (50, "a=1"), (60, ""), (70, "a=1"), (120, "a=1")],
            &["", "Added a", "", "", ""],
        ),
        (
            "removed",
            &[(0, "a=1"), (50, "a=1"), (60, ""), (110, "")],
            &["", "Added a", "", "Removed a"],
        ),
        (
            "each file settles by itself",
            &[
                (0, "a=1"),
                (40, "a=1 b=1"),
                (50, "a=1 b=1"),
                (90, "a=1 b=1"),
            ],
            &["", "", "Added a", "Added b"],
        ),
        (
            "a signature that arrives later",
            &[(0, "a=1"), (50, "a=1"), (60, "a=1+7"), (110, "a=1+7")],
            &["", "Added a", "", "Changed a"],
        ),
    ];
    for (name, looks, expected) in rows {
        assert_eq!(story(looks), *expected, "{name}");
    }
}

#[test]
fn what_was_not_read_as_it_was_seen_settles_again() {
    let mut settling = settling();
    let (ms, files) = (Duration::from_millis, listing("a=1"));
    assert!(settling.observe(ms(0), &files, &nobody()).is_empty());
    assert_eq!(settling.deadline(), Some(ms(50)));
    assert_eq!(settling.observe(ms(50), &files, &nobody()).len(), 1);
    settling.again("a", ms(50));
    assert_eq!(settling.deadline(), Some(ms(100)));
    assert!(settling.observe(ms(60), &files, &nobody()).is_empty());
    assert_eq!(settling.observe(ms(100), &files, &nobody()).len(), 1);
    settling.accept("a");
    assert_eq!(
        (settling.deadline(), settling.accepted()),
        (None, vec!["a"])
    );
}

#[test]
fn what_lay_there_before_is_believed_at_once() {
    let mut settling = settling();
    let files = listing("a=1 b=1");
    let now = Duration::from_millis(200);
    settling.trust("a", now, files["a"].clone());
    assert_eq!(
        settling.observe(now, &files, &nobody()),
        [("a".to_owned(), Added)]
    );
}

#[test]
fn what_its_writer_has_closed_settles_sooner() {
    let (ms, done) = (Duration::from_millis, BTreeSet::from(["a".to_owned()]));
    let one = listing("a=1 b=1");
    let mut settling = settling();
    assert!(settling.observe(ms(0), &one, &nobody()).is_empty());
    // Told after it was seen first.
    assert!(settling.observe(ms(5), &one, &done).is_empty());
    assert_eq!(settling.deadline(), Some(ms(10)));
    let ripe = settling.observe(ms(10), &one, &nobody());
    assert_eq!(ripe, [("a".to_owned(), Added)]);
    settling.accept("a");
    // Another writer has begun: what the first one has closed says nothing about it.
    assert!(
        settling
            .observe(ms(20), &listing("a=2 b=1"), &done)
            .is_empty()
    );
    assert!(
        settling
            .observe(ms(25), &listing("a=3 b=1"), &nobody())
            .is_empty()
    );
    let ripe = settling.observe(ms(50), &listing("a=3 b=1"), &nobody());
    assert_eq!(ripe, [("b".to_owned(), Added)]);
    // An absence is never finished.
    settling.accept("b");
    assert!(settling.observe(ms(60), &listing("b=1"), &done).is_empty());
    assert!(settling.observe(ms(70), &listing("b=1"), &done).is_empty());
}
