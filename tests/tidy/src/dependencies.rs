//! Crates depend inward, and the core on nothing that acts.
//!
//! `router -> {router/policy, backends/*} -> backends/api -> router/core`. The rows below are that
//! picture; a crate in a folder that has no row is a problem, so that nobody adds one without
//! saying where it stands.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::{File, Problem, Repo};

/// What the crates in one folder may depend on.
struct Rule {
    /// The folder of the crate; a `*` at the end stands for one more name.
    folder: &'static str,
    /// The crates of this workspace that it may name; a `*` at the end stands for any ending.
    workspace: &'static [&'static str],
    /// The crates of others that it may never name; a name covers its family (`zenoh-ext`).
    never: &'static [&'static str],
    why: &'static str,
}

/// The first row that fits a folder counts.
const RULES: &[Rule] = &[
    Rule {
        folder: "router/core",
        workspace: &[],
        never: ACTS,
        why: "the core decides and does not act; whatever needs this belongs into a driver",
    },
    Rule {
        folder: "router/settings",
        workspace: &["weir-core"],
        never: &["zenoh", "tokio", "rocksdb", "wasmtime"],
        why: "settings are read before anything runs; parse into types of the core",
    },
    Rule {
        folder: "router/policy",
        workspace: &["weir-core"],
        never: &["zenoh", "rocksdb"],
        why: "the policy host knows wasmtime and the core, never Zenoh",
    },
    Rule {
        folder: "router/journal",
        workspace: &["weir-core"],
        never: &["zenoh", "tokio", "rocksdb", "wasmtime"],
        why: "the journal is files and the core's types; who drives it belongs into the router",
    },
    Rule {
        folder: "router",
        workspace: &[
            "weir-core",
            "weir-journal",
            "weir-settings",
            "weir-policy",
            "weir-backend-*",
        ],
        never: &[],
        why: "the router is put together from the crates under router/ and backends/",
    },
    Rule {
        folder: "backends/api",
        workspace: &["weir-core"],
        never: &["zenoh", "rocksdb", "wasmtime"],
        why: "the seam knows the core alone",
    },
    Rule {
        folder: "backends/influxdb",
        // Its tests need a local store to stand on; the crate itself is given one as a `Volume`.
        workspace: &[
            "weir-core",
            "weir-backend-api",
            "weir-backend-memory",
            "weir-backend-filesystem",
        ],
        never: &["zenoh", "wasmtime", "rocksdb"],
        why: "the store beside the server is handed over by the router; only tests name one",
    },
    Rule {
        folder: "backends/*",
        workspace: &["weir-core", "weir-backend-api"],
        never: &["zenoh", "wasmtime"],
        why: "a backend never sees Zenoh or another backend; what two need belongs into backends/api",
    },
    Rule {
        folder: "tests/sim",
        workspace: &["weir-core", "weir-backend-api", "weir-backend-memory"],
        never: ACTS,
        why: "the simulation runs on seeds; a thread, a clock or a socket would make it differ",
    },
    Rule {
        folder: "tests/*",
        workspace: &["weir*"],
        never: &[],
        why: "tests may name anything",
    },
    Rule {
        folder: "examples/*",
        workspace: &["weir*"],
        never: &[],
        why: "examples are users",
    },
    Rule {
        folder: "policies",
        workspace: &["weir-policy-sdk"],
        never: GUESTS_NEVER,
        why: "a guest knows the policy interface alone",
    },
    Rule {
        folder: "policies/*",
        workspace: &["weir-policy-sdk"],
        never: GUESTS_NEVER,
        why: "a guest knows the policy interface alone",
    },
];

/// What no guest can use.
const GUESTS_NEVER: &[&str] = &["zenoh", "tokio", "wasmtime", "rocksdb"];

/// Crates that act: they wait, read files, open sockets, start threads or compile code.
const ACTS: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "zenoh",
    "wasmtime",
    "rocksdb",
    "redb",
    "notify",
    "reqwest",
    "axum",
    "hyper",
    "socket2",
];

/// Members of those families that only compute. Key expressions are defined by this crate, and
/// nothing else in it acts.
const PURE: &[&str] = &["zenoh-keyexpr", "zenoh-result"];

/// Checks every manifest, and for the core the whole tree below it.
pub fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut manifests = Vec::new();
    for file in repo
        .files()
        .iter()
        .filter(|f| f.path.ends_with("/Cargo.toml"))
    {
        match file.text.parse::<Table>() {
            Ok(table) => manifests.push((file, table)),
            Err(error) => problems.push(file.problem(0, error.to_string(), "make it valid TOML")),
        }
    }
    let members: BTreeSet<&str> = manifests
        .iter()
        .filter_map(|(_, table)| name(table))
        .collect();
    for (file, table) in &manifests {
        check_manifest(file, table, &members, &mut problems);
    }
    if let Some(lock) = repo.file("Cargo.lock") {
        check_core_tree(lock, &mut problems);
    }
    problems
}

fn check_manifest(
    file: &File,
    table: &Table,
    members: &BTreeSet<&str>,
    problems: &mut Vec<Problem>,
) {
    let folder = file.path.trim_end_matches("/Cargo.toml");
    let Some(rule) = RULES.iter().find(|rule| fits_folder(rule.folder, folder)) else {
        problems.push(file.problem(
            0,
            "the crate stands nowhere in the order of dependencies",
            "give its folder a row in tests/tidy/src/dependencies.rs",
        ));
        return;
    };
    for dependency in dependencies(table) {
        let allowed = if members.contains(dependency.as_str()) {
            rule.workspace
                .iter()
                .any(|pattern| fits_name(pattern, &dependency))
        } else {
            !is_banned(rule.never, &dependency)
        };
        if !allowed {
            let line = file
                .lines()
                .find(|(_, text)| text.trim_start().starts_with(&dependency));
            problems.push(file.problem(
                line.map_or(0, |(line, _)| line),
                format!("may not depend on {dependency}"),
                format!("remove it: {}", rule.why),
            ));
        }
    }
    // A crate that is a workspace of its own, such as one that builds the stock router, has no
    // lints of ours to take.
    let inherits = table.get("lints").and_then(|lints| lints.get("workspace"));
    if !table.contains_key("workspace") && inherits.and_then(Value::as_bool) != Some(true) {
        problems.push(file.problem(
            0,
            "the crate does not take the lints of the workspace",
            "add `[lints]` with `workspace = true`",
        ));
    }
}

/// What the core needs in turn counts as well: a crate that brings an executor is one.
fn check_core_tree(lock: &File, problems: &mut Vec<Problem>) {
    let tree = match lock.text.parse::<Table>() {
        Ok(tree) => tree,
        Err(error) => {
            problems.push(lock.problem(0, error.to_string(), "run `cargo metadata`"));
            return;
        }
    };
    let mut below: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in tree
        .get("package")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let needs = package
            .get("dependencies")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        // An entry is `name`, or `name version` where several versions are in the tree.
        let names = needs.filter_map(|n| n.as_str()?.split(' ').next());
        if let Some(name) = package.get("name").and_then(Value::as_str) {
            below.entry(name).or_default().extend(names);
        }
    }
    let mut seen = BTreeSet::from(["weir-core"]);
    let mut open = vec![("weir-core", "weir-core".to_owned())];
    while let Some((name, path)) = open.pop() {
        for needed in below.get(name).into_iter().flatten() {
            let path = format!("{path} -> {needed}");
            if is_banned(ACTS, needed) {
                problems.push(lock.problem(
                    0,
                    format!("the core's tree holds a crate that acts: {path}"),
                    "drop the dependency of router/core, or switch the feature off that brings it",
                ));
            } else if seen.insert(needed) {
                open.push((needed, path));
            }
        }
    }
}

/// The names of all that a manifest depends on, in whatever table, under their real names.
fn dependencies(table: &Table) -> BTreeSet<String> {
    const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = table.get("target").and_then(Value::as_table);
    let targets = targets
        .into_iter()
        .flat_map(|all| all.values().filter_map(Value::as_table));
    targets
        .chain([table])
        .flat_map(|place| KINDS.iter().filter_map(|kind| place.get(*kind)?.as_table()))
        .flatten()
        .map(|(name, value)| {
            value
                .get("package")
                .and_then(Value::as_str)
                .unwrap_or(name)
                .to_owned()
        })
        .collect()
}

fn name(table: &Table) -> Option<&str> {
    table.get("package")?.get("name")?.as_str()
}

fn fits_folder(pattern: &str, folder: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(above) => folder
            .strip_prefix(above)
            .is_some_and(|name| !name.is_empty()),
        None => pattern == folder,
    }
}

fn fits_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

fn is_banned(never: &[&str], name: &str) -> bool {
    let in_family = |family: &&str| {
        name.strip_prefix(*family)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    !PURE.contains(&name) && never.iter().any(in_family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::findings;

    /// What the rule says about a crate in `folder` with these lines of dependencies.
    #[track_caller]
    fn check_row(folder: &str, dependencies: &str, expected: &[&str]) {
        let path = format!("{folder}/Cargo.toml");
        let text = format!(
            "[package]\nname = \"it\"\n[lints]\nworkspace = true\n[dependencies]\n{dependencies}"
        );
        let named = |name: &str| {
            format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n[dependencies]\n")
        };
        let found = findings(
            check,
            &[
                (&path, &text),
                ("tests/one/Cargo.toml", &named("weir-core")),
                ("tests/two/Cargo.toml", &named("weir-backend-api")),
                ("tests/three/Cargo.toml", &named("weir-backend-memory")),
                ("tests/four/Cargo.toml", &named("weir")),
            ],
        );
        let expected: Vec<_> = expected.iter().map(|e| format!("{path}:{e}")).collect();
        assert_eq!(found, expected, "{folder} with {dependencies}");
    }

    #[test]
    fn crates_depend_inward() {
        let core = "weir-core.workspace = true";
        let api = "weir-backend-api.workspace = true";
        let memory = "weir-backend-memory.workspace = true";
        check_row("router/core", "bytes = \"1\"\nzenoh-keyexpr = \"1\"", &[]);
        check_row(
            "router/core",
            api,
            &["6: may not depend on weir-backend-api"],
        );
        check_row(
            "router/core",
            "tokio-util = \"1\"",
            &["6: may not depend on tokio-util"],
        );
        check_row("router/settings", core, &[]);
        check_row("router/journal", core, &[]);
        check_row(
            "router/journal",
            "tokio = \"1\"",
            &["6: may not depend on tokio"],
        );
        check_row(
            "router/settings",
            "\nzenoh = \"1\"",
            &["7: may not depend on zenoh"],
        );
        check_row(
            "router/policy",
            "zenoh-ext = \"1\"",
            &["6: may not depend on zenoh-ext"],
        );
        check_row("backends/api", core, &[]);
        check_row(
            "backends/api",
            memory,
            &["6: may not depend on weir-backend-memory"],
        );
        check_row("backends/rocksdb", &format!("{api}\nrocksdb = \"1\""), &[]);
        check_row(
            "backends/rocksdb",
            memory,
            &["6: may not depend on weir-backend-memory"],
        );
        check_row(
            "backends/rocksdb",
            "zenoh = \"1\"",
            &["6: may not depend on zenoh"],
        );
        check_row("router", &format!("{api}\n{memory}\nzenoh = \"1\""), &[]);
        check_row(
            "tests/sim",
            "zenoh = \"1\"",
            &["6: may not depend on zenoh"],
        );
        check_row("tests/e2e", "weir.workspace = true\nzenoh = \"1\"", &[]);
        check_row(
            "router",
            "weir.workspace = true",
            &["6: may not depend on weir"],
        );
    }

    #[test]
    fn no_table_and_no_other_name_hides_a_dependency() {
        let zenoh = &["0: may not depend on zenoh"];
        let line = |l: usize| format!("{l}: may not depend on zenoh");
        check_row(
            "backends/api",
            "z = { package = \"zenoh\", version = \"1\" }",
            zenoh,
        );
        check_row(
            "backends/api",
            "[dev-dependencies]\nzenoh = \"1\"",
            &[&line(7)],
        );
        check_row(
            "backends/api",
            "[build-dependencies]\nzenoh = \"1\"",
            &[&line(7)],
        );
        check_row(
            "backends/api",
            "[target.'cfg(unix)'.dependencies]\nzenoh = \"1\"",
            &[&line(7)],
        );
    }

    #[test]
    fn every_crate_has_a_place_and_the_lints() {
        check_row(
            "tools",
            "",
            &["0: the crate stands nowhere in the order of dependencies"],
        );
        let found = findings(
            check,
            &[("router/Cargo.toml", "[package]\nname = \"weir\"\n")],
        );
        assert_eq!(
            found,
            ["router/Cargo.toml:0: the crate does not take the lints of the workspace"]
        );
        let alone = "[package]\nname = \"stock\"\n[workspace]\n[dependencies]\nzenoh = \"1\"\n";
        assert_eq!(
            findings(check, &[("tests/bench/stock/Cargo.toml", alone)]),
            [""; 0]
        );
        let found = findings(check, &[("router/Cargo.toml", "[package")]);
        assert!(
            found[0].starts_with("router/Cargo.toml:0: TOML parse error"),
            "{found:?}"
        );
    }

    #[test]
    fn the_core_brings_nothing_that_acts_by_a_detour() {
        let package = |name: &str, needs: &str| {
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\ndependencies = [{needs}]\n"
            )
        };
        let lock = [
            package("weir-core", "\"uhlc\", \"bytes\""),
            package("bytes", ""),
            package("uhlc", "\"rand 0.8.5\""),
            package("rand", "\"tokio\""),
            package("weir", "\"zenoh\""),
        ];
        let found = findings(check, &[("Cargo.lock", &lock.concat())]);
        let path = "weir-core -> uhlc -> rand -> tokio";
        assert_eq!(
            found,
            [format!(
                "Cargo.lock:0: the core's tree holds a crate that acts: {path}"
            )]
        );
        assert_eq!(
            findings(check, &[("Cargo.lock", &lock[1..].concat())]),
            [""; 0]
        );
    }
}
