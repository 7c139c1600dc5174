//! The rules of this repository, as tests.
//!
//! Each module holds one family of rules: a function `check` that takes a [`Repo`] and returns a
//! [`Problem`] for every place that breaks a rule, with the fix. Small bad repositories in the
//! module's own tests show that each rule can fail; `tests/repository.rs` asks them about the real
//! one.
//!
//! | module | rule |
//! | --- | --- |
//! | [`dependencies`] | crates depend inward, and the core on nothing that acts |
//! | [`layout`] | where files may be, and how long one may get |
//! | [`source`] | words that may not stand in Rust code, or only in one place |
//! | [`attributes`] | every exception from a lint carries a reason |
//! | [`documents`] | what the documents name exists |
//! | [`text`] | white space, and nothing of one machine |

pub mod attributes;
pub mod dependencies;
pub mod documents;
pub mod layout;
mod lexer;
mod makefile;
mod repo;
pub mod source;
pub mod text;

pub use repo::{File, Problem, Repo};
