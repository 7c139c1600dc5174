use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::*;
use crate::harness::{case::Case, cases};

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

/// Every file under a directory but what building left there.
fn all(dir: &Path, prefix: &str, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        let is_made = matches!(name.as_str(), "target" | "__pycache__") || name.ends_with(".wasm");
        if is_made {
            continue;
        }
        // A link to a file is a file.
        if entry.path().is_dir() {
            all(&entry.path(), &format!("{path}/"), files);
        } else {
            files.insert(path);
        }
    }
}

#[test]
fn no_file_of_a_template_is_forgotten() {
    let folders = [
        ("templates/rust", RUST),
        ("templates/js", JS),
        ("templates/python", PYTHON),
        ("templates/c", C),
        ("sdk", SDK),
    ];
    for (folder, list) in folders {
        let mut there = BTreeSet::new();
        all(&policies().join(folder), "", &mut there);
        let listed: BTreeSet<String> = list.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(
            listed, there,
            "{folder}: the list in harness/templates.rs is not what is there"
        );
    }
}

#[test]
fn a_project_has_its_own_name_and_cases_of_its_hook() {
    for template in TEMPLATES {
        let about = format!("{} {}", template.lang, template.hook);
        let files = template.files("by-night");
        let mut paths = BTreeSet::new();
        let mut found_cases = 0;
        for file in &files {
            assert!(paths.insert(&file.path), "{about}: {} twice", file.path);
            let Ok(text) = std::str::from_utf8(&file.content) else {
                continue;
            };
            if file.path.starts_with("sdk/") {
                continue;
            }
            for old in ["my-policy", "MyPolicy", "../../sdk"] {
                assert!(!text.contains(old), "{about}: {} says {old}", file.path);
            }
            if file.path.starts_with("cases/") {
                for entry in cases::parse(Path::new(&file.path), text).unwrap() {
                    let Case { hook, .. } = entry.case.unwrap();
                    assert_eq!(hook, template.hook, "{about}: {}", file.path);
                    found_cases += 1;
                }
            }
        }
        assert!(found_cases > 0, "{about} has no case");
        let text = |path: &str| {
            let file = files.iter().find(|file| file.path == path);
            let file = file.unwrap_or_else(|| panic!("{about} has no {path}"));
            String::from_utf8(file.content.to_vec()).unwrap()
        };
        assert!(text("README.md").starts_with("# by-night\n"), "{about}");
        if template.lang == "rust" {
            assert!(text("Cargo.toml").contains("name = \"by-night\""));
            let source = text("src/lib.rs");
            assert!(source.contains("export!(ByNight: "), "{about}: {source}");
            assert!(
                source.contains("impl Policy for ByNight"),
                "{about}: {source}"
            );
            assert!(files.iter().any(|file| file.path == "sdk/wit/policy.wit"));
        }
    }
}

#[test]
fn a_name_is_one_for_a_file_a_package_and_people() {
    for name in ["geo", "by-region", "v2", "a-1"] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
    for name in [
        "",
        "Geo",
        "by_region",
        "-a",
        "a-",
        "a--b",
        "2d",
        "a/b",
        "..",
        "std",
        &"a".repeat(65),
    ] {
        assert!(check_name(name).is_err(), "{name}");
    }
    assert_eq!(camel("by-region-2"), "ByRegion2");
}
