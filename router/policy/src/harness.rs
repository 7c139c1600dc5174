//! What stands behind `weir policy ...`: cases, laws, recordings, measurements, signatures.
//!
//! ```text
//! cases::read(path) -> Vec<Entry>                 case files beside a module
//!   cases::run(&revision, &entries) -> Report     the same run in `weir policy test` and in a router
//!   golden::rewrite(text, answers) -> String      a case file with what the policy answers now
//! check::check(&revision, &setup) -> Checked      manifest, limits, laws
//! recording::{Writer, Reader}                     samples of a running router, one a line
//!   replay::replay, replay::diff                  what a policy decides, what two decide differently
//! measure::measure(&revision, &setup) -> Measured calls a second, quantiles, fuel, memory
//! signing::{generate, sign}                       minisign keys and signatures
//! admission::{Cases, Laws}                        what a router asks of a module before it serves
//! ```
//!
//! Everything runs in the host that routers run, with its limits; nothing here prints.

pub mod admission;
pub mod answer;
pub mod case;
pub mod cases;
pub mod check;
pub mod golden;
pub mod junit;
pub mod measure;
pub mod recording;
pub mod replay;
pub mod sample;
pub mod signing;
pub mod templates;
pub mod written;
