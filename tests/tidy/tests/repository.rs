//! The rules, asked about this repository.

use std::path::Path;

use weir_tidy::{Problem, Repo, attributes, dependencies, documents, layout, source, text};

#[track_caller]
fn holds(rule: fn(&Repo) -> Vec<Problem>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repo = Repo::from_git(&root).expect("the files of the repository");
    assert!(
        repo.has("Cargo.toml"),
        "not the root of the repository: {}",
        root.display()
    );
    let problems: Vec<_> = rule(&repo)
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect();
    assert!(
        problems.is_empty(),
        "{} problems:{}",
        problems.len(),
        problems.concat()
    );
}

#[test]
fn crates_depend_inward() {
    holds(dependencies::check);
}

#[test]
fn files_are_where_they_belong() {
    holds(layout::check);
}

#[test]
fn code_keeps_to_its_words() {
    holds(source::check);
}

#[test]
fn exceptions_carry_a_reason() {
    holds(attributes::check);
}

#[test]
fn documents_name_what_exists() {
    holds(documents::check);
}

#[test]
fn text_is_clean() {
    holds(text::check);
}
