//! From a file's bytes to a component that this host can serve, or to a refusal that says what to do.
//! Nothing of the guest runs here.

mod shape;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::Serialize;
use thiserror::Error;
use wasmparser::{ComponentInstance, Encoding, Parser, Payload, Validator, WasmFeatures};
use wit_component::ComponentEncoder;
use wit_parser::decoding::decode_world;

use crate::{
    bindings::{PACKAGE, VERSION},
    environment::{Hook, Hooks},
};

/// Why a file is not served. The names never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// It is longer than the limit, or more than the compiler can digest.
    TooLarge,
    /// It is no WebAssembly.
    NotWasm,
    /// It is WebAssembly that is damaged, cut off, or uses what the host does not run.
    Invalid,
    /// It imports what the host does not give.
    Import,
    /// It exports no hook, or no `lifecycle`.
    World,
    /// It was built for a version of the interface that the host does not speak.
    Version,
    /// A function has other parameters or results than the interface says.
    Interface,
    /// It asks for more memory than it may have before it has run.
    Memory,
    /// The compiler could not make machine code of it.
    Compile,
}

impl RefusalCode {
    /// A name that never changes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::NotWasm => "not-wasm",
            Self::Invalid => "invalid",
            Self::Import => "import",
            Self::World => "world",
            Self::Version => "version",
            Self::Interface => "interface",
            Self::Memory => "memory",
            Self::Compile => "compile",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A file that is not served: why, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The kind of reason.
    pub code: RefusalCode,
    /// Why, and what to do, in a sentence or two.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// A component and the hooks that it exports.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub component: Cow<'a, [u8]>,
    pub hooks: Hooks,
}

/// How deep components may lie in components, and how often they may be instantiated on the way:
/// each level multiplies, and the compiler walks them all.
const DEPTH_MAX: usize = 4;
const INSTANTIATIONS_MAX: usize = 10_000;

/// Begins descriptions that wit-bindgen wrote before they were components themselves.
const OLD_DESCRIPTION: u8 = 3;

/// What a policy may be made of. Threads, garbage collection and exceptions are not among it.
const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::COMPONENT_MODEL)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::MULTI_MEMORY);

/// A component of `bytes`, which hold a component or a core module.
pub(crate) fn examine(bytes: &[u8], bytes_max: usize) -> Result<Parts<'_>, Refusal> {
    if bytes.len() > bytes_max {
        let (length, mib) = (bytes.len(), bytes_max >> 20);
        return Err(Refusal::new(
            RefusalCode::TooLarge,
            format!(
                "the file has {length} bytes, {mib} MiB is the limit: build without debug \
                 information, or raise the limit"
            ),
        ));
    }
    check_header(bytes)?;
    Validator::new_with_features(FEATURES).validate_all(bytes)?;
    let surface = Surface::read(bytes)?;
    surface.check_imports()?;
    let hooks = surface.hooks()?;
    shape::check(bytes)?;
    let component = match surface.encoding {
        Encoding::Component => Cow::Borrowed(bytes),
        Encoding::Module => {
            let component = encode(bytes)?;
            // The encoder leaves out whatever the module does not describe.
            if Surface::read(&component)?.hooks().ok() != Some(hooks) {
                return Err(no_component(
                    "it does not describe the types of its functions",
                ));
            }
            Cow::Owned(component)
        }
    };
    Ok(Parts { component, hooks })
}

fn check_header(bytes: &[u8]) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::new(RefusalCode::NotWasm, message));
    match bytes {
        [] => refuse("the file is empty: copy it again, under another name, and rename it"),
        [b'(', ..] => refuse(
            "the file is WebAssembly text, not WebAssembly: translate it with `wasm-tools parse`",
        ),
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ => refuse(
            "the file does not begin as WebAssembly does: build it for wasm32-unknown-unknown",
        ),
    }
}

impl From<wasmparser::BinaryReaderError> for Refusal {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::new(
            RefusalCode::Invalid,
            format!(
                "{error}: the file is damaged, cut off, or uses WebAssembly features that policies \
                 do not have (threads, 64-bit memory, garbage collection, exceptions); build or copy \
                 it again"
            ),
        )
    }
}

/// A component of a core module. The encoder panics on some modules that are valid but strange.
fn encode(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let encode = || {
        check_description(bytes)?;
        let encoder = ComponentEncoder::default().validate(true).module(bytes);
        let component = encoder.and_then(|mut encoder| encoder.encode());
        component.map_err(|error| format!("{error:#}"))
    };
    match catch_unwind(AssertUnwindSafe(encode)) {
        Ok(Ok(component)) => Ok(component),
        Ok(Err(error)) => Err(no_component(&error)),
        Err(panic) => Err(no_component(panic_text(panic.as_ref()))),
    }
}

/// Looks at how a core module describes its world, before the encoder does: descriptions whose packages
/// need each other in a circle would have it recurse until the stack is full, which nothing can catch.
fn check_description(bytes: &[u8]) -> Result<(), String> {
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| error.to_string())?;
        let Payload::CustomSection(section) = payload else {
            continue;
        };
        if !section.name().starts_with("component-type") {
            continue;
        }
        if section.data().first() == Some(&OLD_DESCRIPTION) {
            return Err("its description is of a format that is out of use".into());
        }
        let (resolve, _) =
            decode_world(section.data()).map_err(|error| format!("its description: {error:#}"))?;
        let name = |id| resolve.packages[id].name.to_string();
        for (id, _) in resolve.packages.iter() {
            let needed = resolve.package_direct_deps(id).map(name);
            needs.entry(name(id)).or_default().extend(needed);
        }
    }
    // Takes away whatever needs nothing that is left, until only circles are.
    while !needs.is_empty() {
        let (rest, ready): (BTreeMap<_, _>, BTreeMap<_, _>) = needs
            .into_iter()
            .partition(|(_, needed)| !needed.is_empty());
        if ready.is_empty() {
            return Err("the packages of its description need each other in a circle".into());
        }
        needs = rest;
        for needed in needs.values_mut() {
            needed.retain(|name| !ready.contains_key(name));
        }
    }
    Ok(())
}

fn no_component(why: &str) -> Refusal {
    Refusal::new(
        RefusalCode::Interface,
        format!(
            "no component can be made of the module: {why}; build it with wit-bindgen against \
             {PACKAGE}@{VERSION}"
        ),
    )
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("the encoder panicked")
}

/// What a module shows to its host.
struct Surface {
    encoding: Encoding,
    /// Interfaces, or modules of a core module.
    imports: BTreeSet<String>,
    /// Interfaces, or those before the `#` of a core module's function.
    exports: BTreeSet<String>,
}

impl Surface {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut surface = Self {
            encoding: Encoding::Module,
            imports: BTreeSet::new(),
            exports: BTreeSet::new(),
        };
        // Instantiations of components at each depth.
        let mut instantiations: Vec<usize> = Vec::new();
        let mut depth = 0usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding, .. } => {
                    if depth == 0 {
                        surface.encoding = encoding;
                    }
                    depth += 1;
                    instantiations.resize(instantiations.len().max(depth), 0);
                    if depth > DEPTH_MAX + 1 {
                        return Err(too_nested());
                    }
                }
                Payload::End(_) => depth -= 1,
                Payload::ComponentInstanceSection(instances) => {
                    for instance in instances {
                        if let ComponentInstance::Instantiate { .. } = instance? {
                            instantiations[depth - 1] += 1;
                        }
                    }
                }
                Payload::ImportSection(imports) if depth == 1 => {
                    for import in imports.into_imports() {
                        surface.imports.insert(import?.module.into());
                    }
                }
                Payload::ExportSection(exports) if depth == 1 => {
                    for export in exports {
                        if let Some((interface, _)) = export?.name.split_once('#') {
                            surface.exports.insert(interface.into());
                        }
                    }
                }
                Payload::ComponentImportSection(imports) if depth == 1 => {
                    for import in imports {
                        surface.imports.insert(import?.name.name.into());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 1 => {
                    for export in exports {
                        surface.exports.insert(export?.name.name.into());
                    }
                }
                _ => {}
            }
        }
        let levels = instantiations.into_iter();
        let product = levels.fold(1usize, |product, count| product.saturating_mul(count + 1));
        if product > INSTANTIATIONS_MAX {
            return Err(too_nested());
        }
        Ok(surface)
    }

    fn check_imports(&self) -> Result<(), Refusal> {
        for import in &self.imports {
            match Name::of(import) {
                Name::Ours("host" | "types") => {}
                Name::OtherVersion(version) => return Err(other_version(import, version)),
                Name::Ours(_) | Name::Foreign => return Err(unknown_import(import)),
            }
        }
        Ok(())
    }

    fn hooks(&self) -> Result<Hooks, Refusal> {
        let mut lifecycle = false;
        let mut hooks = Vec::new();
        for export in &self.exports {
            match Name::of(export) {
                Name::Ours("lifecycle") => lifecycle = true,
                Name::Ours(name) => {
                    hooks.extend(
                        Hook::ALL
                            .into_iter()
                            .filter(|hook| hook.interface() == name),
                    );
                }
                Name::OtherVersion(version) => return Err(other_version(export, version)),
                Name::Foreign => {}
            }
        }
        let world = |message: String| Err(Refusal::new(RefusalCode::World, message));
        let build = format!("build it for one of the worlds of {PACKAGE}@{VERSION}");
        match (lifecycle, hooks.is_empty()) {
            (true, false) => Ok(hooks.into_iter().collect()),
            (true, true) => world(format!(
                "the module exports lifecycle and no hook (shard-routing, conflict-resolution, \
                 backlog-priority): {build}"
            )),
            (false, false) => world(format!(
                "the module exports hooks and no lifecycle: {build}"
            )),
            (false, true) if self.exports.is_empty() => world(format!(
                "the module exports nothing that a policy has: {build}"
            )),
            (false, true) => {
                let names: Vec<_> = self.exports.iter().take(3).map(String::as_str).collect();
                let names = names.join(", ");
                world(format!(
                    "the module exports {names}, and nothing of {PACKAGE}: {build}"
                ))
            }
        }
    }
}

fn too_nested() -> Refusal {
    Refusal::new(
        RefusalCode::Invalid,
        "components lie too deep in components, or are instantiated too often: compose the policy of \
         fewer",
    )
}

/// A name of an interface, as this host sees it.
enum Name<'a> {
    /// Of our package, in a version that we speak.
    Ours(&'a str),
    /// Of our package, in another version (empty: none is given).
    OtherVersion(&'a str),
    Foreign,
}

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Self {
        let rest = name
            .strip_prefix(PACKAGE)
            .and_then(|rest| rest.strip_prefix('/'));
        let Some(rest) = rest else {
            return Self::Foreign;
        };
        let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
        // 0.1.x only adds, so whatever a guest of 0.1.x uses is there or is refused by name.
        let minor = version.rsplit_once('.').map(|(minor, _)| minor);
        if minor == VERSION.rsplit_once('.').map(|(minor, _)| minor) {
            Self::Ours(interface)
        } else {
            Self::OtherVersion(version)
        }
    }
}

fn other_version(name: &str, version: &str) -> Refusal {
    let built = if version.is_empty() {
        "without a version".to_owned()
    } else {
        format!("for version {version}")
    };
    Refusal::new(
        RefusalCode::Version,
        format!(
            "{name}: the module was built {built} of the interface, this router speaks \
             {PACKAGE}@{VERSION}: build it against that, or use a router that speaks the other"
        ),
    )
}

fn unknown_import(import: &str) -> Refusal {
    let fix = match import {
        "env" => {
            "something was left to the linker: link every library in, and build without \
             `--allow-undefined`"
        }
        "wasi_snapshot_preview1" | "wasi_unstable" => {
            "it was built for wasm32-wasip1: build it for wasm32-unknown-unknown, where there are no \
             files, clocks or randomness"
        }
        name if name.starts_with("wasi:") => {
            "policies have no WASI: build Rust and C for wasm32-unknown-unknown, JavaScript and Python \
             with `--stub-wasi`"
        }
        name if name.starts_with("__wbindgen") || name == "wbg" => {
            "it was built with wasm-bindgen, which needs a browser: leave the crates out that use it \
             (`getrandom` with feature `js`, for one)"
        }
        _ => "a policy can import weir:policy/host alone: `log` and `count`",
    };
    Refusal::new(
        RefusalCode::Import,
        format!("the module imports {import:?}, which policies are not given: {fix}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wat: &str, code: RefusalCode, says: &str) {
        let bytes = wat::parse_str(wat).unwrap();
        let refusal = examine(&bytes, 1 << 20).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(says), "{refusal}");
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        use RefusalCode::{Import, Interface, Version, World};
        check("(module)", World, "exports nothing");
        check("(component)", World, "exports nothing");
        check(
            r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#,
            Import,
            "wasm32-unknown-unknown",
        );
        check(
            r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#,
            Import,
            "--stub-wasi",
        );
        check(r#"(module (import "env" "puts" (func)))"#, Import, "linker");
        check(r#"(module (import "x" "y" (func)))"#, Import, "\"x\"");
        check(
            r#"(module (import "weir:policy/host@0.2.0" "log" (func)))"#,
            Version,
            "version 0.2.0",
        );
        check(
            r#"(module (func (export "weir:policy/lifecycle@1.0.0#init")))"#,
            Version,
            "version 1.0.0",
        );
        check(
            r#"(module (func (export "weir:policy/lifecycle#init")))"#,
            Version,
            "without a version",
        );
        check(
            r#"(module (func (export "weir:policy/lifecycle@0.1.7#init")))"#,
            World,
            "no hook",
        );
        check(
            r#"(module (func (export "weir:policy/shard-routing@0.1.0#route")))"#,
            World,
            "no lifecycle",
        );
        check(
            r#"(module (func (export "acme:thing/api@0.1.0#run")))"#,
            World,
            "exports acme:thing/api",
        );
        // The right names, but nothing that says what their types are.
        check(
            r#"(module
                (func (export "weir:policy/lifecycle@0.1.0#init"))
                (func (export "weir:policy/shard-routing@0.1.0#route")))"#,
            Interface,
            "wit-bindgen",
        );
    }

    #[test]
    fn what_is_no_webassembly_is_refused_before_it_is_parsed() {
        for (bytes, code) in [
            (&b""[..], RefusalCode::NotWasm),
            (b"(module)", RefusalCode::NotWasm),
            (b"\x7fELF", RefusalCode::NotWasm),
            (b"\0asm", RefusalCode::Invalid),
            (b"\0asm\x01\0\0", RefusalCode::Invalid),
            (b"\0asm\x02\0\0\0", RefusalCode::Invalid),
            (b"\0asm\x01\0\0\0\xff", RefusalCode::Invalid),
            (&[0; 2000], RefusalCode::TooLarge),
        ] {
            assert_eq!(examine(bytes, 1000).unwrap_err().code, code, "{bytes:?}");
        }
    }

    #[test]
    fn threads_and_wide_memories_are_not_run() {
        check(
            "(module (memory 1 1 shared))",
            RefusalCode::Invalid,
            "threads",
        );
        check("(module (memory i64 1))", RefusalCode::Invalid, "64-bit");
    }

    #[test]
    fn components_that_double_at_each_level_are_refused() {
        let mut inside = String::new();
        for _ in 0..4 {
            let instances = "(instance (instantiate $c))".repeat(20);
            inside = format!("(component $c {inside}) {instances}");
        }
        let wat = format!("(component {inside})");
        check(&wat, RefusalCode::Invalid, "too deep");
    }
}
