//! The harness of the end-to-end tests: real `weir` processes on loopback, the Python client that
//! others wrote, the program's own client commands, plain HTTP.
//!
//! Everything here panics with what it saw instead of answering an error: a test has nothing better
//! to do with one, and the log of every router that it started is printed below.

#![allow(
    clippy::unwrap_used,
    reason = "a harness of tests: what fails here fails the test, and says where"
)]

pub mod cli;
pub mod failpoint;
pub mod flight;
pub mod guest;
pub mod http;
pub mod line;
pub mod mortal;
pub mod netns;
pub mod process;
pub mod python;
pub mod rng;
pub mod router;
pub mod say;
pub mod time;
pub mod tried;
pub mod wait;

pub use cli::{Ended, weir, weir_with};
pub use http::Answer;
pub use python::{Client, Got, Sample};
pub use router::Router;
pub use say::{say, skip};
pub use wait::{PATIENCE, until, until_within};
