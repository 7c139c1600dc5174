//! Rows for the grammar.

use clap::CommandFactory;

use super::*;

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_and_argument_says_what_it_is_for() {
    fn check(command: &clap::Command) {
        assert!(
            command.get_about().is_some(),
            "{} has no description",
            command.get_name()
        );
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{} {} has no help",
                command.get_name(),
                argument.get_id()
            );
        }
        for command in command.get_subcommands() {
            check(command);
        }
    }
    check(&Cli::command());
}

#[test]
fn a_command_line_is_read_or_refused() {
    let rows = [
        ("run", true),
        (
            "run -c a.json5 -c b.yaml -l tcp/[::]:1 -e tcp/a:1 -i ab --cfg id:'ab' -P rest",
            true,
        ),
        ("run --adminspace-permissions all", false),
        ("check a.json5 --deny-warnings", true),
        ("config show --effective --origin", true),
        ("config schema", true),
        ("config", false),
        ("status --json --timeout 2", true),
        ("storage ls", true),
        ("forward ls --json", true),
        ("forward watch cloud -e tcp/a:1 --json --every 500ms", true),
        ("forward watch cloud --until-certified --router 5a1f", true),
        ("forward watch", false),
        ("forward", false),
        ("journal inspect d --json", true),
        ("journal verify d", true),
        ("journal export d --lane 0 --key a/** --format table", true),
        ("journal export d --lane 8", false),
        ("journal inspect", false),
        ("policy ls --json", true),
        ("policy", false),
        ("policy new geo --lang python --hook prioritize", true),
        ("policy new geo --lang cobol", false),
        ("policy build --out d a b", true),
        ("policy test", true),
        ("policy test a.wasm -c weir.json5", true),
        (
            "policy test a.wasm --update --json --junit r.xml --filter x",
            true,
        ),
        ("policy check a.wasm --settings {} --shards a,b", true),
        ("policy laws --json", true),
        (
            "policy bench a.wasm --max-p99 100us --max-fuel 5 --batch 64",
            true,
        ),
        ("policy replay a.wasm", false),
        ("policy replay a.wasm --recording r --each", true),
        ("policy diff a.wasm b.wasm --corpus r --hook route", true),
        ("policy sign a.wasm", false),
        ("policy verify a.wasm --key k --key l", true),
        ("policy keygen k", true),
        ("tap a/** --record r --for 5s --count 3", true),
        ("tap a/**", false),
        ("storage parked list demo", true),
        ("storage quarantine purge demo --router ab", true),
        ("storage quarantine purge", false),
        ("storage import --from zenohd-rocksdb /d --into demo", true),
        ("storage import --from redis /d --into demo", false),
        ("put a/b 5", true),
        ("put a/b 5 -e tcp/127.0.0.1:1 --ack --log debug", true),
        ("put a/b 5 --durability synced --timeout 500ms", true),
        ("--log debug get a/** --format raw --limit 3 --all", true),
        ("get a/** --format xml", false),
        ("get", false),
        ("get a --timeout soon", false),
        ("del a/** --timestamp 2026-05-04T10:00:00Z/ab", true),
        ("del a/** --timestamp noon", false),
        (
            "sub a --count 3 -m peer -e tcp/127.0.0.1:1 -e tcp/127.0.0.1:2",
            true,
        ),
        ("completions bash", true),
        ("completions tcl", false),
        ("man", true),
        ("", false),
        ("fly", false),
    ];
    for (line, read) in rows {
        let words = std::iter::once("weir").chain(line.split_whitespace());
        assert_eq!(Cli::try_parse_from(words).is_ok(), read, "weir {line}");
    }
}

#[test]
fn the_version_names_zenoh() {
    assert!(VERSION.contains("zenoh v1.10"), "{}", *VERSION);
}
