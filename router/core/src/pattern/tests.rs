use super::*;
use proptest::prelude::*;
use std::ops::Range;

fn pattern(text: &str) -> KeyPattern {
    KeyPattern::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn ke(text: &str) -> OwnedKeyExpr {
    OwnedKeyExpr::new(text).unwrap()
}

fn declares(text: &str, expected: &str) {
    let declared: Vec<_> = pattern(text)
        .declared()
        .iter()
        .map(|ke| ke.to_string())
        .collect();
    assert_eq!(declared.join(" "), expected, "{text}");
}

#[test]
fn compiles_to_plain_key_expressions() {
    declares("global/telemetry/**", "global/telemetry/**");
    declares("a/**/**", "a/**");
    declares("a/$*/b$*$*", "a/*/b$*");
    declares(
        "fleet/drone/[0-3]**",
        "fleet/drone/0$*/** fleet/drone/1$*/** fleet/drone/2$*/** fleet/drone/3$*/**",
    );
    declares("[0-1a]/x", "0/x 1/x a/x");
    declares("[]a]/[[]/[{]", "]/[/{ a/[/{");
    declares("[a-]", "- a");
    declares("light/{red, green}/on", "light/green/on light/red/on");
    declares("v{1..4}", "v1 v2 v3");
    declares(
        "n/{0..3000}",
        "n/0 n/1$* n/2$* n/3$* n/4$* n/5$* n/6$* n/7$* n/8$* n/9$*",
    );
    declares("n/{3000..6000}", "n/3$* n/4$* n/5$*");
    declares("n/{3000..=3099}", "n/30$*");
    declares(
        "n/{2500..3500}",
        "n/25$* n/26$* n/27$* n/28$* n/29$* n/30$* n/31$* n/32$* n/33$* n/34$*",
    );
    declares("n/{000..200}", "n/0$* n/1$*");
    declares("n/{7..=7}**", "n/7$*/**");
    // What another one includes is not declared.
    declares("{a,ab}$*", "a$*");
    declares(
        "[0-1]$*/{0..5}**",
        "0$*/0$*/** 0$*/1$*/** 0$*/2$*/** 0$*/3$*/** 0$*/4$*/** 1$*/0$*/** 1$*/1$*/** 1$*/2$*/** 1$*/3$*/** 1$*/4$*/**",
    );
}

fn refuses(text: &str, span: Range<usize>, message: &str) {
    let error = KeyPattern::parse(text).expect_err(text);
    assert_eq!(
        (error.span.clone(), error.to_string().as_str()),
        (span, message),
        "{text}"
    );
    assert!(!error.hint().is_empty());
}

#[test]
fn says_where_a_pattern_is_wrong() {
    refuses("", 0..0, "a key expression cannot be empty");
    refuses("/a", 0..1, "a key expression cannot start with `/`");
    refuses("a/", 1..2, "a key expression cannot end with `/`");
    refuses("a//b", 1..3, "empty chunk");
    refuses("a/b*", 3..4, "`*` inside a chunk");
    refuses("a/***", 2..5, "`*` inside a chunk");
    refuses("a**b", 1..3, "`*` inside a chunk");
    refuses("a/b$c", 3..4, "`$` without `*`");
    refuses("a?b=1", 1..2, "`?` is not allowed here");
    refuses("é/#", 3..4, "`#` is not allowed here");
    refuses("fleet/[0-3/x", 6..10, "`[` without `]`");
    refuses("fleet/{0..3/x", 6..11, "`{` without `}`");
    refuses("a/[]", 2..4, "nothing to choose from");
    refuses("a/{}", 2..4, "nothing to choose from");
    refuses("a/{x,,y}", 2..8, "nothing to choose from");
    refuses("a/[^0-3]", 3..4, "a class cannot be negated");
    refuses("a/[7-3]", 3..6, "the range is empty");
    refuses("a/{7..7}", 3..7, "the range is empty");
    refuses("a/{0..0}", 3..7, "the range is empty");
    refuses(
        "a/{x, -1..7}",
        6..11,
        "the bounds of a range must be decimal numbers",
    );
    refuses(
        "a/{0..99999999999999999999}",
        3..26,
        "the bounds of a range must be decimal numbers",
    );
    refuses(
        "a/{00..5}",
        3..8,
        "bounds with leading zeros must have the same number of digits",
    );
    refuses("a/{0..5}0", 8..9, "digits directly after a numeric range");
    refuses(
        "a/{0..5}[0-9]",
        8..13,
        "digits directly after a numeric range",
    );
    refuses(
        "a/@{0..50}",
        2..10,
        "a long numeric range in a chunk that starts with `@`",
    );
    refuses("a/[a*]", 4..5, "`*` is not allowed here");
    refuses("a/{b*}", 4..5, "`*` is not allowed here");
    refuses(
        "[0-9][0-9][0-9][0-9]",
        0..20,
        "the pattern stands for 10000 key expressions",
    );
    refuses(
        "[\u{1000}-\u{2000}]",
        1..8,
        "the pattern stands for 4097 key expressions",
    );
}

#[test]
fn reads_plain_key_expressions_literally() {
    for (text, canonical) in [
        ("a/**/**", "a/**"),
        ("x[0-3]/{a}", "x[0-3]/{a}"),
        ("a$*$*/b", "a$*/b"),
    ] {
        assert_eq!(parse_key_expr(text).unwrap().as_str(), canonical);
    }
    assert_eq!(parse_key_expr("a/b**").unwrap_err().span, 3..5);
}

fn holds(text: &str, yes: &[&str], no: &[&str]) {
    let pattern = pattern(text);
    for key in yes {
        assert!(
            pattern.matches(&ke(key)) && pattern.intersects(&ke(key)),
            "{text} lacks {key}"
        );
    }
    for key in no {
        assert!(
            !pattern.matches(&ke(key)) && !pattern.intersects(&ke(key)),
            "{text} has {key}"
        );
    }
}

#[test]
fn holds_exactly_its_keys() {
    holds(
        "fleet/drone/[4-6]**",
        &["fleet/drone/5", "fleet/drone/5500/video"],
        &["fleet/drone/35", "fleet/drone", "fleet/drone/x/5"],
    );
    holds(
        "d/{0..3000}/**",
        &["d/0", "d/2999/a"],
        &[
            "d/3000",
            "d/007",
            "d/0x1",
            "d/29a",
            "d/99999999999999999999",
        ],
    );
    holds("d/{0..300}**", &["d/29a/x", "d/299"], &["d/2999", "d/029"]);
    holds(
        "d/{000..300}",
        &["d/000", "d/299"],
        &["d/0", "d/300", "d/0001"],
    );
    holds(
        "d/{0..=18446744073709551615}",
        &["d/18446744073709551615"],
        &["d/18446744073709551616"],
    );
    holds("r{1..3}{a,b}", &["r1a", "r2b"], &["r1", "r3a", "ra"]);
    holds("**", &["a", "a/b"], &["@a", "a/@b/c"]);
    holds("@/*/router", &["@/1/router"], &["@/@1/router"]);
    holds("a/*", &["a/b"], &["a", "a/@b", "a/b/c"]);
    holds(
        "a$*b/**/c",
        &["ab/c", "axbb/x/y/c"],
        &["ab", "@ab/c", "axb/c/d"],
    );
}

#[test]
fn intersects_wildcards_by_what_it_declares() {
    let check = |p: &str, other: &str, yes: bool| {
        assert_eq!(pattern(p).intersects(&ke(other)), yes, "{p} {other}");
    };
    check("fleet/drone/[4-6]**", "fleet/drone/**", true);
    check("fleet/drone/[4-6]**", "fleet/drone/3$*", false);
    check("fleet/drone/[4-6]**", "**/video", true);
    check("n/{0..3000}", "n/4$*", true);
    check("n/{3000..6000}", "n/7$*", false);
    assert!(!pattern("a/**").matches(&ke("a/*")));
}

#[test]
fn knows_when_declaring_is_enough() {
    for (text, exact) in [
        ("a/[0-3]**", true),
        ("a/{0..3000}", false),
        ("a/{0..4}", true),
        ("a/{0..4}x", true),
        ("a/{0..4}**", false),
        ("a/{0..4}{0a,b}", false),
    ] {
        assert_eq!(pattern(text).is_exact(), exact, "{text}");
    }
}

fn set(patterns: &[&str], exclude: &[&str]) -> KeySet {
    KeySet {
        patterns: patterns.iter().map(|text| pattern(text)).collect(),
        exclude: exclude.iter().map(|text| ke(text)).collect(),
    }
}

#[test]
fn a_set_is_its_patterns_less_its_exclusions() {
    let keys = set(
        &["a/**", "a/b", "c/[01]", "secret/x"],
        &["a/private/**", "secret/*"],
    );
    let declared: Vec<_> = keys.declared().iter().map(|ke| ke.to_string()).collect();
    assert_eq!(declared, ["a/**", "c/0", "c/1"]);
    assert!(keys.matches(&ke("a/b/c")) && keys.matches(&ke("c/1")));
    assert!(!keys.matches(&ke("a/private/c")) && !keys.matches(&ke("secret/x")));
    assert!(keys.intersects(&ke("*/private/c/**")));
    assert!(!keys.intersects(&ke("a/private/*")) && !keys.intersects(&ke("d/**")));
    assert!(!keys.is_exact() && set(&["a/**"], &["b/**"]).is_exact());
    assert!(set(&[], &[]).declared().is_empty());
}

fn group(members: &[(&str, KeySet)], expected: &[&str]) {
    let members: Vec<_> = members.iter().map(|(name, keys)| (*name, keys)).collect();
    let problems: Vec<_> = check_group(&members)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(problems, expected);
}

fn shards(patterns: &[&str], expected: &[&str]) {
    let members: Vec<_> = patterns
        .iter()
        .map(|text| (*text, set(&[text], &[])))
        .collect();
    group(&members, expected);
}

#[test]
fn finds_overlaps_of_a_group() {
    shards(
        &["a/[0-5]**", "a/[4-9]**"],
        &["`a/[0-5]**` and `a/[4-9]**` both hold `a/4`"],
    );
    shards(
        &["a/{0..300}/**", "a/{299..=400}/**"],
        &["`a/{0..300}/**` and `a/{299..=400}/**` both hold `a/299`"],
    );
    shards(&["a/{0..300}/**", "a/{300..400}/**"], &[]);
    shards(
        &["a/{0..30}x**", "a/1$*y"],
        &["`a/{0..30}x**` and `a/1$*y` both hold `a/1xy`"],
    );
    shards(
        &["a/{0..3}**", "a/{10..30}**"],
        &["no shard holds `a/{3..=9}**`, for example `a/3`"],
    );
    shards(
        &["**/x/**", "**/y/**"],
        &["`**/x/**` and `**/y/**` both hold `x/y`"],
    );
    shards(&["a/**", "b/**"], &[]);
    shards(&["@a/**", "*/b"], &[]);
    group(
        &[
            ("all", set(&["a/**"], &["a/1/**"])),
            ("one", set(&["a/1/**"], &[])),
        ],
        &[],
    );
    group(
        &[
            ("all", set(&["a/[12]/**"], &["a/1/**"])),
            ("one", set(&["a/[12]/x"], &[])),
        ],
        &[
            "`all` and `one` both hold `a/2/x`",
            "no shard holds `a/[03-9]/**`, for example `a/0`",
            "no shard holds `a/[03-9]/x`, for example `a/0/x`",
        ],
    );
    // Several patterns of one storage may overlap: it stores a key once.
    group(&[("one", set(&["a/**", "a/b"], &[]))], &[]);
}

#[test]
fn finds_gaps_of_a_group() {
    shards(&["f/[0-3]**", "f/[4-6]**", "f/[7-9]**"], &[]);
    shards(
        &["f/[0-3]**", "f/[4-6]**"],
        &["no shard holds `f/[7-9]**`, for example `f/7`"],
    );
    shards(
        &["f/[0-3]**", "f/[5-9]**"],
        &["no shard holds `f/[4]**`, for example `f/4`"],
    );
    shards(&["f/[0-3]**", "f/[4-6]**", "f/7**", "f/{8,9}**"], &[]);
    shards(
        &["h/[0-7]", "h/[89ab]", "h/[c-e]"],
        &["no shard holds `h/[f]`, for example `h/f`"],
    );
    shards(
        &["l/[a-m]$*", "l/[n-y]$*"],
        &["no shard holds `l/[z]$*`, for example `l/z`"],
    );
    shards(&["[0-4][0-4]", "[0-4][5-9]", "[5-9][0-9]"], &[]);
    shards(
        &["n/{100..200}", "n/{300..400}"],
        &["no shard holds `n/{200..=299}`, for example `n/200`"],
    );
    shards(&["n/{red,green}"], &[]);
    shards(&["n/[-_]"], &[]);
}

/// A pattern as the oracle sees it: never parsed, only written out.
#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Class(Vec<char>),
    Words(Vec<String>),
    Numbers(u64, u64),
    Many,
}

#[derive(Clone, Debug)]
enum Piecewise {
    One,
    Deep,
    Pieces(Vec<Piece>, bool),
}

fn written(chunks: &[Piecewise]) -> String {
    let chunk = |chunk: &Piecewise| match chunk {
        Piecewise::One => "*".to_owned(),
        Piecewise::Deep => "**".to_owned(),
        Piecewise::Pieces(pieces, glued) => {
            let piece = |piece: &Piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Class(members) => format!("[{}]", members.iter().collect::<String>()),
                Piece::Words(words) => format!("{{{}}}", words.join(",")),
                Piece::Numbers(first, end) => format!("{{{first}..{end}}}"),
                Piece::Many => "$*".to_owned(),
            };
            let text: String = pieces.iter().map(piece).collect();
            text + if *glued { "**" } else { "" }
        }
    };
    chunks.iter().map(chunk).collect::<Vec<_>>().join("/")
}

/// Membership by positions: from every place that could be reached so far, try everything.
fn oracle(chunks: &[Piecewise], key: &[&str]) -> bool {
    let mut reached = vec![0];
    for chunk in chunks {
        let mut next = Vec::new();
        for &at in &reached {
            let deep = |from: usize| {
                let end = key[from..].iter().position(|c| c.starts_with('@'));
                from..=end.map_or(key.len(), |end| from + end)
            };
            match chunk {
                Piecewise::One if at < key.len() && !key[at].starts_with('@') => next.push(at + 1),
                Piecewise::Deep => next.extend(deep(at)),
                Piecewise::Pieces(pieces, glued) if at < key.len() => {
                    let wild = *glued || pieces.iter().any(|p| matches!(p, Piece::Many));
                    if !(wild && key[at].starts_with('@')) && oracle_chunk(pieces, *glued, key[at])
                    {
                        if *glued {
                            next.extend(deep(at + 1));
                        } else {
                            next.push(at + 1);
                        }
                    }
                }
                _ => {}
            }
        }
        reached = next;
    }
    reached.contains(&key.len())
}

fn oracle_chunk(pieces: &[Piece], glued: bool, chunk: &str) -> bool {
    let mut reached = vec![0];
    for piece in pieces {
        let mut next = Vec::new();
        for &at in &reached {
            for end in at..=chunk.len() {
                let taken = &chunk[at..end];
                let fits = match piece {
                    Piece::Text(text) => text == taken,
                    Piece::Class(members) => members.iter().any(|c| c.to_string() == taken),
                    Piece::Words(words) => words.iter().any(|word| word == taken),
                    Piece::Numbers(first, end_number) => {
                        (*first..*end_number).any(|n| n.to_string() == taken)
                            && !chunk[end..].starts_with(|c: char| c.is_ascii_digit())
                    }
                    Piece::Many => true,
                };
                if fits {
                    next.push(end);
                }
            }
        }
        reached = next;
    }
    if glued {
        !reached.is_empty()
    } else {
        reached.contains(&chunk.len())
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        3 => "[0-2ab@]{1,2}".prop_map(Piece::Text),
        2 => proptest::sample::subsequence(vec!['0', '1', '2', 'a', 'b', '@'], 1..4).prop_map(Piece::Class),
        1 => proptest::collection::vec("[0-2ab]{1,2}", 1..3).prop_map(Piece::Words),
        2 => (0_u64..30, 1_u64..200).prop_map(|(first, count)| Piece::Numbers(first, first + count)),
        1 => Just(Piece::Many),
    ]
}

fn piecewise() -> impl Strategy<Value = Vec<Piecewise>> {
    let chunk = prop_oneof![
        1 => Just(Piecewise::One),
        1 => Just(Piecewise::Deep),
        5 => (proptest::collection::vec(piece(), 1..4), proptest::bool::weighted(0.2))
            .prop_map(|(pieces, glued)| Piecewise::Pieces(pieces, glued)),
    ];
    proptest::collection::vec(chunk, 1..4)
}

fn key() -> impl Strategy<Value = String> {
    proptest::collection::vec("[0-2ab]{0,2}[0-2ab@]", 1..4).prop_map(|chunks| chunks.join("/"))
}

/// A key made from the pattern by the given choices, so that members are not left to luck.
fn sample(chunks: &[Piecewise], choices: &[usize]) -> String {
    let mut choices = choices.iter().copied().cycle();
    let mut pick = |n: usize| choices.next().unwrap() % n;
    let mut key = Vec::new();
    for chunk in chunks {
        match chunk {
            Piecewise::One => key.push("x".to_owned()),
            Piecewise::Deep => key.extend((0..pick(3)).map(|_| "y".to_owned())),
            Piecewise::Pieces(pieces, glued) => {
                let text: String = pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Text(text) => text.clone(),
                        Piece::Class(members) => members[pick(members.len())].to_string(),
                        Piece::Words(words) => words[pick(words.len())].clone(),
                        Piece::Numbers(first, end) => {
                            (first + pick(usize::try_from(end - first).unwrap()) as u64).to_string()
                        }
                        Piece::Many => ["", "1", "bb"][pick(3)].to_owned(),
                    })
                    .collect();
                key.push(if text.is_empty() {
                    "x".to_owned()
                } else {
                    text
                });
                if *glued {
                    key.extend((0..pick(2)).map(|_| "z".to_owned()));
                }
            }
        }
    }
    if key.is_empty() {
        "y".to_owned()
    } else {
        key.join("/")
    }
}

/// Parses, or tells that the generated pattern is one of those that are refused on purpose.
fn parse_generated(chunks: &[Piecewise]) -> Option<KeyPattern> {
    match KeyPattern::parse(&written(chunks)) {
        Ok(pattern) => Some(pattern),
        Err(e) => {
            let expected = matches!(
                e.kind,
                PatternErrorKind::DigitAfterNumber
                    | PatternErrorKind::NumberAfterAt
                    | PatternErrorKind::TooMany(_)
            );
            assert!(expected, "{}: {e}", written(chunks));
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn matches_what_the_oracle_matches(
        chunks in piecewise(),
        keys in proptest::collection::vec(key(), 8),
        choices in proptest::collection::vec(any::<usize>(), 8),
    ) {
        let Some(pattern) = parse_generated(&chunks) else { return Ok(()) };
        for key in keys.into_iter().chain([sample(&chunks, &choices)]) {
            let parts: Vec<&str> = key.split('/').collect();
            let key = ke(&key);
            prop_assert_eq!(pattern.matches(&key), oracle(&chunks, &parts), "{} {}", pattern, key);
            let declared = pattern.declared().iter().any(|ke| ke.intersects(&key));
            if pattern.is_exact() {
                prop_assert_eq!(pattern.matches(&key), declared, "{} {}", pattern, key);
            } else {
                prop_assert!(declared || !pattern.matches(&key), "{} {}", pattern, key);
            }
        }
        for (i, a) in pattern.declared().iter().enumerate() {
            for (j, b) in pattern.declared().iter().enumerate() {
                prop_assert!(i == j || !a.includes(b));
            }
        }
    }

    #[test]
    fn meets_in_a_key_of_both_or_not_at_all(
        a in piecewise(),
        b in piecewise(),
        keys in proptest::collection::vec(key(), 8),
        choices in proptest::collection::vec(any::<usize>(), 8),
    ) {
        let (Some(p), Some(q)) = (parse_generated(&a), parse_generated(&b)) else { return Ok(()) };
        match meet::meet(&p, &q) {
            Some(key) => prop_assert!(p.matches(&key) && q.matches(&key), "{} {} {}", p, q, key),
            None => for key in keys.into_iter().chain([sample(&a, &choices), sample(&b, &choices)]) {
                let key = ke(&key);
                prop_assert!(!(p.matches(&key) && q.matches(&key)), "{} {} {}", p, q, key);
            },
        }
    }
}
