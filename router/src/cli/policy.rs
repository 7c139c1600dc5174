//! `weir policy ...`: modules on a laptop, and what routers run.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::client::policy::{self, LsArgs};

use super::logging::Color;
use super::print;

mod bench;
mod build;
mod check;
mod common;
mod new;
mod replay;
mod sign;
mod test;

use bench::BenchArgs;
use build::BuildArgs;
use check::CheckArgs;
use common::Paint;
use new::NewArgs;
use replay::{DiffArgs, ReplayArgs};
use sign::{KeygenArgs, SignArgs, VerifyArgs};
use test::TestArgs;

/// Arguments of `weir policy`.
#[derive(Args, Debug)]
#[command(after_help = "\
Start here:
  weir policy new geo --lang rust         a policy with its cases
  weir policy test geo                    build it, run its cases
  weir policy build geo --out policies.d  drop it where a router watches
  weir policy ls                          see it serve")]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Subcommand, Debug)]
enum PolicyCommand {
    /// Begin a policy: sources, cases and a README
    New(Box<NewArgs>),
    /// Build policies from their sources
    Build(Box<BuildArgs>),
    /// Run the cases of policies in the router's own engine
    Test(Box<TestArgs>),
    /// Say what a module is, and try a resolver on the laws
    Check(Box<CheckArgs>),
    /// Explain the laws of resolvers
    Laws {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure what a policy costs
    Bench(Box<BenchArgs>),
    /// Ask a policy about recorded samples
    Replay(Box<ReplayArgs>),
    /// Say which decisions would change
    Diff(Box<DiffArgs>),
    /// Make a pair of keys for signing
    Keygen(Box<KeygenArgs>),
    /// Sign a module
    Sign(Box<SignArgs>),
    /// Say who has signed a module
    Verify(Box<VerifyArgs>),
    /// List the policies of all routers, and what serves where
    Ls(Box<LsArgs>),
}

/// Runs `weir policy ...`.
pub(super) fn policy(args: &PolicyArgs, color: Color) -> Result<ExitCode> {
    let paint = Paint(color.wanted(std::io::stdout().is_terminal()));
    match &args.command {
        PolicyCommand::New(args) => print(|streams| new::new(args, streams)),
        PolicyCommand::Build(args) => print(|streams| build::build(args, streams)),
        PolicyCommand::Test(args) => print(|streams| test::test(args, paint, streams)),
        PolicyCommand::Check(args) => print(|streams| check::check(args, paint, streams)),
        PolicyCommand::Laws { json } => print(|streams| check::laws(*json, streams)),
        PolicyCommand::Bench(args) => print(|streams| bench::bench(args, paint, streams)),
        PolicyCommand::Replay(args) => print(|streams| replay::replay(args, paint, streams)),
        PolicyCommand::Diff(args) => print(|streams| replay::diff(args, paint, streams)),
        PolicyCommand::Keygen(args) => print(|streams| sign::keygen(args, streams)),
        PolicyCommand::Sign(args) => print(|streams| sign::sign(args, streams)),
        PolicyCommand::Verify(args) => print(|streams| sign::verify(args, streams)),
        PolicyCommand::Ls(args) => super::client(async |streams| policy::ls(args, streams).await),
    }
}
