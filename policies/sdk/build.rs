//! Writes the descriptions that `export!` puts into a module, one for each set of hooks.
//!
//! A core module says in a custom section which world it implements, and the host makes a component
//! of it by that. wit-bindgen writes such a section for one world; a policy exports what it serves.

use std::{env, fs, path::Path};

use anyhow::{Context, Result};
use wit_component::{StringEncoding, metadata};
use wit_parser::Resolve;

const WIT: &str = "wit/policy.wit";

/// The hooks in the order of `hooks` in the WIT, and the interfaces that serve them.
const HOOKS: [(&str, &str); 3] = [
    ("route", "shard-routing"),
    ("resolve", "conflict-resolution"),
    ("prioritize", "backlog-priority"),
];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed={WIT}");
    let text = fs::read_to_string(WIT).with_context(|| format!("cannot read {WIT}"))?;
    let out = env::var("OUT_DIR").context("cargo sets OUT_DIR")?;
    for set in 1..1u32 << HOOKS.len() {
        let hooks = || (0..HOOKS.len()).filter(|hook| set & 1 << hook != 0);
        let name = hooks()
            .map(|hook| HOOKS[hook].0)
            .collect::<Vec<_>>()
            .join("-");
        let exports: String = hooks()
            .map(|hook| format!(" export {};", HOOKS[hook].1))
            .collect();
        let world = format!("serves-{name}");
        let text = format!("{text}\nworld {world} {{ import host; export lifecycle;{exports} }}\n");
        let mut resolve = Resolve::default();
        let package = resolve.push_str(WIT, &text)?;
        let world = resolve.select_world(&[package], Some(&world))?;
        let section = metadata::encode(&resolve, world, StringEncoding::UTF8, None)?;
        let file = Path::new(&out).join(format!("{name}.section"));
        fs::write(&file, section).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
