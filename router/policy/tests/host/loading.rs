//! From bytes to a revision: what is refused, what is kept, and that no bytes do harm.

use std::{fs, path::Path, sync::Arc};

use weir_policy::{Environment, Hook, Host, Limits, Origin, RefusalCode, Settings};

use crate::{
    guest::Guest,
    support::{host, host_with, load, route, router, try_load},
};

fn cached(directory: &Path) -> Arc<Host> {
    Host::new(Settings {
        cache: Some(directory.join("cache")),
        ..Settings::default()
    })
    .unwrap()
}

fn policy() -> Guest {
    Guest::router_each("(i32.store8 (local.get $answer) (i32.const 2))")
}

#[test]
fn a_core_module_and_its_component_are_the_same_policy() {
    let host = host();
    let module = policy().wasm();
    let mut encoder = wit_component::ComponentEncoder::default()
        .module(&module)
        .unwrap();
    let component = encoder.encode().unwrap();
    for bytes in [&module, &component] {
        let revision = host.load("test", bytes).unwrap();
        assert_eq!(revision.hash, *blake3::hash(bytes).as_bytes());
        assert_eq!(revision.size, bytes.len());
        assert_eq!(revision.hooks.iter().collect::<Vec<_>>(), [Hook::Route]);
        let manifest = revision.manifest(&Environment::default()).unwrap();
        assert_eq!(manifest.reasons, ["no room"]);
    }
}

#[test]
fn a_later_minor_version_of_the_interface_loads() {
    let host = host();
    // The names alone say the version; what they stand for is checked function by function.
    let wasm = policy().wasm();
    let later = String::from_utf8_lossy(&wasm).contains("@0.1.0");
    assert!(later);
    let mut changed = wasm;
    while let Some(at) = changed.windows(6).position(|window| window == b"@0.1.0") {
        changed[at + 5] = b'7';
    }
    // The world's description in the module is in another section, with lengths of its own: all of
    // them are the same length.
    let revision = host.load("later", &changed).unwrap();
    assert!(revision.manifest(&Environment::default()).is_ok());
}

#[test]
fn another_shape_of_a_function_is_refused() {
    let wrong = Guest {
        more: r#"(func (export "weir:policy/shard-routing@0.1.0#extra"))"#.into(),
        ..policy()
    };
    // More than the interface has is no harm, unless the encoder knows better.
    if let Err(refusal) = try_load(&host(), &wrong) {
        assert_eq!(refusal.code, RefusalCode::Interface, "{refusal}");
    }
    // A component with the right names and the wrong functions.
    let component = r#"(component
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))
        (instance $lifecycle (export "init" (func $f)))
        (instance $routing (export "route" (func $f)))
        (export "weir:policy/lifecycle@0.1.0" (instance $lifecycle))
        (export "weir:policy/shard-routing@0.1.0" (instance $routing)))"#;
    let refusal = host()
        .load("wrong", &wat::parse_str(component).unwrap())
        .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Interface, "{refusal}");
    assert!(
        refusal.message.contains("lifecycle@0.1.0#init"),
        "{refusal}"
    );
    let component = component.replace("(export \"init\" (func $f))", "");
    let refusal = host()
        .load("gone", &wat::parse_str(component).unwrap())
        .unwrap_err();
    assert!(refusal.message.contains("is missing"), "{refusal}");
}

#[test]
fn too_much_memory_to_begin_with_is_refused() {
    let host = host_with(Limits {
        memory_bytes_max: 1 << 20,
        ..Limits::default()
    });
    let refusal = try_load(&host, &policy()).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Memory, "{refusal}");
    let refusal = host_with(Limits {
        module_bytes_max: 100,
        ..Limits::default()
    })
    .load("large", &policy().wasm())
    .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::TooLarge);
}

#[test]
fn no_cut_and_no_flipped_bit_does_harm() {
    let host = host();
    let module = policy().wasm();
    for length in 0..module.len() {
        let refusal = host.load("cut", &module[..length]).err();
        // Cut between two sections, what is left may be whole, but the description of the world comes
        // last: nothing that lacks it is served.
        assert!(
            refusal.is_some(),
            "{length} of {} bytes were served",
            module.len()
        );
    }
    // A bit of every byte: some make packages that need each other, which once filled the stack.
    for index in 0..module.len() {
        let mut flipped = module.clone();
        flipped[index] ^= 1 << (index % 8);
        if let Ok(revision) = host.load("flipped", &flipped) {
            drop(revision.manifest(&Environment::default()));
        }
    }
}

#[test]
fn what_was_compiled_once_is_not_compiled_again() {
    let directory = tempfile::tempdir().unwrap();
    let guest = policy();
    let first = load(&cached(directory.path()), &guest);
    assert_eq!(first.origin, Origin::Compiled);
    let host = cached(directory.path());
    let again = load(&host, &guest);
    assert_eq!(
        (again.origin, again.hash, again.hooks),
        (Origin::Cache, first.hash, first.hooks)
    );
    route(&mut router(&host, &guest).unwrap(), 10).1.unwrap();
    // Another module is another file.
    assert_eq!(
        load(&host, &Guest::resolver_constant(1)).origin,
        Origin::Compiled
    );
    assert_eq!(
        load(&host, &Guest::resolver_constant(1)).origin,
        Origin::Cache
    );
    // So is the same one for an engine with other limits of the stack.
    let other = Host::new(Settings {
        limits: Limits {
            stack_bytes_max: 128 << 10,
            ..Limits::default()
        },
        cache: Some(directory.path().join("cache")),
        ..Settings::default()
    });
    load(&other.unwrap(), &guest)
        .manifest(&Environment::default())
        .unwrap();
}

#[test]
fn a_damaged_file_of_the_cache_is_compiled_again() {
    let directory = tempfile::tempdir().unwrap();
    let guest = policy();
    load(&cached(directory.path()), &guest);
    let file = fs::read_dir(directory.path().join("cache"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let whole = fs::read(file.path()).unwrap();
    for at in [0, 8, 20, 60, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(file.path(), &damaged).unwrap();
        let host = cached(directory.path());
        assert_eq!(load(&host, &guest).origin, Origin::Compiled, "byte {at}");
        route(&mut router(&host, &guest).unwrap(), 10).1.unwrap();
        assert_eq!(
            fs::read(file.path()).unwrap(),
            whole,
            "byte {at}: it is whole again"
        );
    }
}
