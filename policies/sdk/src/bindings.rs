//! What wit-bindgen makes of `wit/policy.wit`; use the names that the crate's root gives it.

#![expect(
    missing_docs,
    reason = "the documentation is in the WIT, and what has none there is generated"
)]

wit_bindgen::generate!({
    path: "wit",
    world: "policy",
    pub_export_macro: true,
    export_macro_name: "export_every_hook",
    default_bindings_module: "weir_policy_sdk::bindings",
    additional_derives: [PartialEq, Eq, PartialOrd, Ord],
    runtime_path: "::wit_bindgen::rt",
});
