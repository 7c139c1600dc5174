//! What `weir policy new` writes: the repository's templates, inside this program, so that nobody needs
//! the repository to begin.
//!
//! Rust has a template for each hook: the one in `policies/templates`, and two of the policies that
//! ship, which are as short. `policies/templates/README.md` says what a copy differs in.

use std::borrow::Cow;

use crate::Hook;

/// A file of the repository: where it goes in the new project, and its content.
macro_rules! file {
    ($to:literal, $from:literal) => {
        (
            $to,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $from)),
        )
    };
}

/// A policy to begin with.
#[derive(Debug)]
pub struct Template {
    /// `rust`, `js`, `python` or `c`.
    pub lang: &'static str,
    /// The hook that it serves.
    pub hook: Hook,
    /// Its own files; they take the place of those below.
    own: &'static [(&'static str, &'static [u8])],
    /// Files that it shares with another.
    shared: &'static [(&'static str, &'static [u8])],
    /// The template's name in kebab case and where its type is named, with `{}` for the type.
    name: &'static str,
    type_name: &'static str,
}

/// A file of a new project.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Its path in the project.
    pub path: String,
    /// Its content.
    pub content: Cow<'static, [u8]>,
}

/// All templates; the first of a language is what it begins with.
pub const TEMPLATES: &[Template] = &[
    Template {
        lang: "rust",
        hook: Hook::Route,
        own: &[],
        shared: RUST,
        name: "my-policy",
        type_name: "MyPolicy",
    },
    Template {
        lang: "rust",
        hook: Hook::Resolve,
        own: RUST_RESOLVE,
        shared: RUST,
        name: "keep-first",
        type_name: "KeepFirst",
    },
    Template {
        lang: "rust",
        hook: Hook::Prioritize,
        own: RUST_PRIORITIZE,
        shared: RUST,
        name: "latest-only",
        type_name: "LatestOnly",
    },
    Template {
        lang: "js",
        hook: Hook::Resolve,
        own: &[],
        shared: JS,
        name: "my-policy",
        type_name: "MyPolicy",
    },
    Template {
        lang: "python",
        hook: Hook::Prioritize,
        own: &[],
        shared: PYTHON,
        name: "my-policy",
        type_name: "MyPolicy",
    },
    Template {
        lang: "c",
        hook: Hook::Route,
        own: &[],
        shared: C,
        name: "my-policy",
        type_name: "MyPolicy",
    },
];

/// Where a policy in Rust names its type; an answer may have the same name.
const TYPE_PLACES: [&str; 4] = ["struct {}", "for {}", "<{}>", "export!({}"];

/// Behind the README of a policy that ships.
const README_END: &str = "
```sh
weir policy build      # NAME.wasm
weir policy test       # the cases in cases/, in the router's own engine
cargo test             # the same natively, in a debugger if you like
```
";

impl Template {
    /// The files of a project called `name`; see [`check_name`].
    #[must_use]
    pub fn files(&self, name: &str) -> Vec<File> {
        let is_own = |path: &str| self.own.iter().any(|(own, _)| *own == path);
        // Another template's cases are about another hook.
        let has_own_cases = self.own.iter().any(|(path, _)| path.starts_with("cases/"));
        let is_shared = |path: &str| match path.starts_with("cases/") {
            true => !has_own_cases,
            false => !is_own(path),
        };
        let shared = self.shared.iter().filter(|(path, _)| is_shared(path));
        let mut files: Vec<File> = self
            .own
            .iter()
            .chain(shared)
            .map(|(path, content)| File {
                path: (*path).to_owned(),
                content: self.renamed(path, content, name),
            })
            .collect();
        if self.lang == "rust" {
            files.extend(SDK.iter().map(|(path, content)| File {
                path: format!("sdk/{path}"),
                content: Cow::Borrowed(content),
            }));
        }
        files
    }

    fn renamed(&self, path: &str, content: &'static [u8], name: &str) -> Cow<'static, [u8]> {
        let Ok(text) = std::str::from_utf8(content) else {
            return Cow::Borrowed(content);
        };
        let type_name = camel(name);
        let mut text = text
            .replace("my-policy", name)
            .replace("my_policy", &name.replace('-', "_"))
            .replace("MyPolicy", &type_name);
        if path == "Cargo.toml" {
            text = text.replace("../../sdk", "sdk");
        }
        if self.name != "my-policy" {
            if path.ends_with(".rs") {
                for place in TYPE_PLACES {
                    let (from, to) = (
                        place.replace("{}", self.type_name),
                        place.replace("{}", &type_name),
                    );
                    text = text.replace(&from, &to);
                }
            }
            if path == "README.md" {
                text = text.replacen(self.name, name, 1);
                text.push_str(&README_END.replace("NAME", name));
            }
        }
        Cow::Owned(text.into_bytes())
    }
}

/// Whether a policy can be called so: its module is NAME.wasm, its package NAME.
///
/// # Errors
/// What a name is.
pub fn check_name(name: &str) -> Result<(), String> {
    /// Of packages that a policy in Rust uses itself, or that Rust has.
    const TAKEN: [&str; 7] = [
        "alloc",
        "core",
        "serde",
        "std",
        "sdk",
        "test",
        "weir-policy-sdk",
    ];
    let is_kebab = name.split('-').all(|part| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    });
    if !is_kebab || name.len() > 64 || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "`{name}` is no name for a policy: lower-case letters, digits and single hyphens, a letter \
             first, as in `by-region`"
        ));
    }
    if TAKEN.contains(&name) {
        return Err(format!("`{name}` is taken: call the policy something else"));
    }
    Ok(())
}

fn camel(name: &str) -> String {
    let part = |part: &str| {
        let mut chars = part.chars();
        let first = chars.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(chars).collect::<String>()
    };
    name.split('-').map(part).collect()
}

/// For `resolve`: a policy that ships.
const RUST_RESOLVE: &[(&str, &[u8])] = &[
    file!("src/lib.rs", "policies/resolve/keep-first/src/lib.rs"),
    file!("README.md", "policies/resolve/keep-first/README.md"),
    file!(
        "cases/first.json",
        "policies/resolve/keep-first/cases/first.json"
    ),
];

/// For `prioritize`: another.
const RUST_PRIORITIZE: &[(&str, &[u8])] = &[
    file!("src/lib.rs", "policies/prioritize/latest-only/src/lib.rs"),
    file!("README.md", "policies/prioritize/latest-only/README.md"),
    file!(
        "cases/states.json",
        "policies/prioritize/latest-only/cases/states.json"
    ),
];

/// The template in Rust.
const RUST: &[(&str, &[u8])] = &[
    file!(".gitignore", "policies/templates/rust/.gitignore"),
    file!("Cargo.lock", "policies/templates/rust/Cargo.lock"),
    file!("Cargo.toml", "policies/templates/rust/Cargo.toml"),
    file!("README.md", "policies/templates/rust/README.md"),
    file!(
        "cases/route.json",
        "policies/templates/rust/cases/route.json"
    ),
    file!("src/lib.rs", "policies/templates/rust/src/lib.rs"),
];

/// The template in JavaScript.
const JS: &[(&str, &[u8])] = &[
    file!(".gitignore", "policies/templates/js/.gitignore"),
    file!("README.md", "policies/templates/js/README.md"),
    file!(
        "cases/resolve.json",
        "policies/templates/js/cases/resolve.json"
    ),
    file!("policy.js", "policies/templates/js/policy.js"),
    file!("wit/policy.wit", "policies/templates/js/wit/policy.wit"),
];

/// The template in Python.
const PYTHON: &[(&str, &[u8])] = &[
    file!(".gitignore", "policies/templates/python/.gitignore"),
    file!("README.md", "policies/templates/python/README.md"),
    file!(
        "cases/prioritize.json",
        "policies/templates/python/cases/prioritize.json"
    ),
    file!("policy.py", "policies/templates/python/policy.py"),
    file!("wit/policy.wit", "policies/templates/python/wit/policy.wit"),
];

/// The template in C.
const C: &[(&str, &[u8])] = &[
    file!(".gitignore", "policies/templates/c/.gitignore"),
    file!("README.md", "policies/templates/c/README.md"),
    file!(
        "bindings/router.c",
        "policies/templates/c/bindings/router.c"
    ),
    file!(
        "bindings/router.h",
        "policies/templates/c/bindings/router.h"
    ),
    file!(
        "bindings/router_component_type.o",
        "policies/templates/c/bindings/router_component_type.o"
    ),
    file!("cases/route.json", "policies/templates/c/cases/route.json"),
    file!("policy.c", "policies/templates/c/policy.c"),
    file!("support/stdlib.h", "policies/templates/c/support/stdlib.h"),
    file!("support/string.h", "policies/templates/c/support/string.h"),
    file!(
        "support/support.c",
        "policies/templates/c/support/support.c"
    ),
];

/// What a policy in Rust is written with; a copy goes into each project.
const SDK: &[(&str, &[u8])] = &[
    file!("Cargo.toml", "policies/sdk/Cargo.toml"),
    file!("build.rs", "policies/sdk/build.rs"),
    file!("src/batch.rs", "policies/sdk/src/batch.rs"),
    file!("src/bindings.rs", "policies/sdk/src/bindings.rs"),
    file!("src/export.rs", "policies/sdk/src/export.rs"),
    file!("src/hash.rs", "policies/sdk/src/hash.rs"),
    file!("src/host.rs", "policies/sdk/src/host.rs"),
    file!("src/lattice.rs", "policies/sdk/src/lattice.rs"),
    file!("src/lib.rs", "policies/sdk/src/lib.rs"),
    file!("src/manifest.rs", "policies/sdk/src/manifest.rs"),
    file!("src/number.rs", "policies/sdk/src/number.rs"),
    file!("src/pattern.rs", "policies/sdk/src/pattern.rs"),
    file!("src/policy.rs", "policies/sdk/src/policy.rs"),
    file!("src/testing.rs", "policies/sdk/src/testing.rs"),
    file!("src/testing/cases.rs", "policies/sdk/src/testing/cases.rs"),
    file!("src/testing/laws.rs", "policies/sdk/src/testing/laws.rs"),
    file!(
        "src/testing/values.rs",
        "policies/sdk/src/testing/values.rs"
    ),
    file!("src/time.rs", "policies/sdk/src/time.rs"),
    file!("wit/policy.wit", "policies/sdk/wit/policy.wit"),
];

#[cfg(test)]
mod tests;
