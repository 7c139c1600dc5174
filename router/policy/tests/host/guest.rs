//! Guests written as WebAssembly text against the canonical ABI, so that a test can have one do exactly
//! what no compiler would let it do.

use std::fmt::Write;

use wit_component::StringEncoding;
use wit_parser::Resolve;

/// Bits of `fields` in the interface.
pub const TIMESTAMP: u8 = 1;
pub const ENCODING: u8 = 2;
pub const PRIORITY: u8 = 4;
pub const SIZE: u8 = 8;
pub const KIND: u8 = 16;
pub const PAYLOAD: u8 = 32;
pub const ATTACHMENT: u8 = 64;
pub const KEY: u8 = 128;
/// Bits of `hooks`.
pub const ROUTE: u8 = 1;
pub const RESOLVE: u8 = 2;
pub const PRIORITIZE: u8 = 4;

/// Where the manifest lies in the guest's memory; below it is room for results.
const MANIFEST: u32 = 1024;

/// What a guest is made of. The functions are bodies in WebAssembly text.
#[derive(Clone)]
pub struct Guest {
    pub world: &'static str,
    pub hooks: u8,
    pub needs: u8,
    pub payload_prefix: u32,
    pub varies: u8,
    pub reasons: Vec<String>,
    /// Leaves the address of a `result<manifest, init-error>`; `$manifest` is that of the manifest.
    pub init: String,
    pub route: Option<String>,
    pub resolve: Option<String>,
    pub prioritize: Option<String>,
    /// Further definitions.
    pub more: String,
    /// Pages to begin with.
    pub pages: u32,
}

impl Guest {
    fn new(world: &'static str, hooks: u8) -> Self {
        Self {
            world,
            hooks,
            needs: 0,
            payload_prefix: 0,
            varies: TIMESTAMP,
            reasons: vec!["no room".into()],
            init: "(global.get $manifest)".into(),
            route: None,
            resolve: None,
            prioritize: None,
            more: String::new(),
            pages: 20,
        }
    }

    /// Routes with this body: `$shards`, `$samples`, `$count`, `$keys`, `$payloads` are there, and it
    /// leaves the address of a `result<list<destination>, string>`.
    pub fn router(body: &str) -> Self {
        Self {
            route: Some(body.into()),
            ..Self::new("router", ROUTE)
        }
    }

    /// Routes each sample by itself: `$sample` is its address and `$answer` that of its destination,
    /// 16 zeroed bytes, which mean the default.
    pub fn router_each(body: &str) -> Self {
        Self::router(&each(body, 56, 16))
    }

    /// Resolves with this body: `$args` is the address of the arguments, and it leaves the address of a
    /// `result<resolution, string>`.
    pub fn resolver(body: &str) -> Self {
        Self {
            resolve: Some(body.into()),
            ..Self::new("resolver", RESOLVE)
        }
    }

    /// Resolves by a constant: the number of the case.
    pub fn resolver_constant(case: u8) -> Self {
        Self::resolver(&format!(
            "(i32.store8 (i32.const 516) (i32.const {case})) (i32.const 512)"
        ))
    }

    /// Puts the payload of the second behind that of the first.
    pub fn resolver_concatenating() -> Self {
        Self::resolver(
            "(local $at i32) (local $first i32) (local $second i32)
            (local.set $first (i32.load (i32.add (local.get $args) (i32.const 52))))
            (local.set $second (i32.load (i32.add (local.get $args) (i32.const 116))))
            (local.set $at
              (call $alloc (i32.const 1) (i32.add (local.get $first) (local.get $second))))
            (memory.copy (local.get $at)
              (i32.load (i32.add (local.get $args) (i32.const 48))) (local.get $first))
            (memory.copy (i32.add (local.get $at) (local.get $first))
              (i32.load (i32.add (local.get $args) (i32.const 112))) (local.get $second))
            (i32.store8 (i32.const 516) (i32.const 3))
            (i32.store (i32.const 532) (local.get $at))
            (i32.store (i32.const 536) (i32.add (local.get $first) (local.get $second)))
            (i32.const 512)",
        )
    }

    /// Orders each sample by itself: as [`Guest::router_each`], with 32 bytes for a verdict.
    pub fn prioritizer_each(body: &str) -> Self {
        Self {
            prioritize: Some(each(body, 56, 32)),
            ..Self::new("prioritizer", PRIORITIZE)
        }
    }

    /// The module.
    pub fn wasm(&self) -> Vec<u8> {
        let mut wasm = wat::parse_str(self.wat()).unwrap_or_else(|error| panic!("{error}"));
        let mut resolve = Resolve::default();
        let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/policy-0.1");
        let (package, _) = resolve.push_dir(wit).unwrap();
        let world = resolve.select_world(&[package], Some(self.world)).unwrap();
        wit_component::embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8)
            .unwrap();
        wasm
    }

    fn wat(&self) -> String {
        let (manifest, heap) = self.manifest();
        let Self {
            init, more, pages, ..
        } = self;
        let batch =
            "(param $samples i32) (param $count i32) (param $keys i32) (param $keys_len i32)
            (param $payloads i32) (param $payloads_len i32)
            (param $attachments i32) (param $attachments_len i32) (result i32)";
        let mut hooks = String::new();
        let mut hook = |name: &str, params: &str, body: &Option<String>| {
            if let Some(body) = body {
                write!(
                    hooks,
                    "(func (export \"weir:policy/{name}\") {params} {body})
                     (func (export \"cabi_post_weir:policy/{name}\") (param i32)
                        (global.set $heap (i32.const {heap})))"
                )
                .unwrap();
            }
        };
        let route = format!("(param $shards i32) {batch}");
        hook("shard-routing@0.1.0#route", &route, &self.route);
        let resolve = "(param $args i32) (result i32)";
        hook("conflict-resolution@0.1.0#resolve", resolve, &self.resolve);
        let prioritize = format!(
            "(param $name i32) (param $name_len i32) (param $now i64) (param $queued i64)
             (param $queued_bytes i64) (param $capacity_bytes i64) {batch}"
        );
        hook(
            "backlog-priority@0.1.0#prioritize",
            &prioritize,
            &self.prioritize,
        );
        format!(
            r#"(module
            (import "weir:policy/host@0.1.0" "log" (func $log (param i32 i32 i32)))
            (import "weir:policy/host@0.1.0" "count" (func $count_up (param i32 i64)))
            (memory (export "memory") {pages})
            (global $manifest i32 (i32.const {MANIFEST}))
            (global $heap (mut i32) (i32.const {heap}))
            (data (i32.const {MANIFEST}) "{manifest}")
            (func $alloc (param $align i32) (param $size i32) (result i32)
              (local $at i32)
              (local.set $at (i32.and
                (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                (i32.sub (i32.const 0) (local.get $align))))
              (global.set $heap (i32.add (local.get $at) (local.get $size)))
              (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
                (then (if (i32.eq (i32.const -1) (memory.grow (i32.const 16)))
                  (then (unreachable)))))
              (local.get $at))
            (func (export "cabi_realloc")
              (param $old i32) (param $old_size i32) (param $align i32) (param $size i32)
              (result i32)
              (call $alloc (local.get $align) (local.get $size)))
            ;; A result that holds a list.
            (func $list (param $at i32) (param $count i32) (result i32)
              (i32.store8 (i32.const 512) (i32.const 0))
              (i32.store (i32.const 516) (local.get $at))
              (i32.store (i32.const 520) (local.get $count))
              (i32.const 512))
            (func (export "weir:policy/lifecycle@0.1.0#init")
              (param $router i32) (param $router_len i32) (param $zone i32) (param $zone_len i32)
              (param $shards i32) (param $shards_len i32)
              (param $settings i32) (param $settings_len i32) (result i32)
              {init})
            {hooks}
            {more})"#
        )
    }

    /// The manifest in memory, and where what follows it may lie.
    fn manifest(&self) -> (String, u32) {
        let mut text = Vec::new();
        let base = MANIFEST + 48;
        let mut put = |bytes: &[u8]| {
            let at = base + u32::try_from(text.len()).unwrap();
            text.extend_from_slice(bytes);
            [at, u32::try_from(bytes.len()).unwrap()]
        };
        let name = put(b"test");
        let version = put(b"1.2.3");
        let reasons: Vec<_> = self
            .reasons
            .iter()
            .map(|reason| put(reason.as_bytes()))
            .collect();
        while !text.len().is_multiple_of(4) {
            text.push(0);
        }
        let at = base + u32::try_from(text.len()).unwrap();
        for pair in &reasons {
            pair.iter().for_each(|word| text.extend(word.to_le_bytes()));
        }
        let mut head = Vec::new();
        let mut word = |value: u32| head.extend(value.to_le_bytes());
        word(0);
        name.into_iter().chain(version).for_each(&mut word);
        word(u32::from(self.hooks) | u32::from(self.needs) << 8);
        word(self.payload_prefix);
        word(u32::from(self.varies));
        word(0);
        word(0);
        word(at);
        word(u32::try_from(reasons.len()).unwrap());
        // The result's own tag, and the manifest behind it.
        assert_eq!(head.len(), 48);
        let bytes = head.into_iter().chain(text);
        let mut escaped = String::new();
        let mut length = 0;
        for byte in bytes {
            write!(escaped, "\\{byte:02x}").unwrap();
            length += 1;
        }
        (escaped, (MANIFEST + length + 15) & !15)
    }
}

/// A loop over samples that has the answers ready in `$answers`.
fn each(body: &str, sample_size: u32, answer_size: u32) -> String {
    format!(
        "(local $answers i32) (local $answer i32) (local $sample i32) (local $i i32)
        (local.set $answers
          (call $alloc (i32.const 8) (i32.mul (local.get $count) (i32.const {answer_size}))))
        (memory.fill (local.get $answers) (i32.const 0)
          (i32.mul (local.get $count) (i32.const {answer_size})))
        (block $done (loop $next
          (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
          (local.set $sample
            (i32.add (local.get $samples) (i32.mul (local.get $i) (i32.const {sample_size}))))
          (local.set $answer
            (i32.add (local.get $answers) (i32.mul (local.get $i) (i32.const {answer_size}))))
          {body}
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))
        (call $list (local.get $answers) (local.get $count))"
    )
}
