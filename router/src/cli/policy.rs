//! `weir policy ...`: what routers run.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::client::policy::{self, LsArgs};

/// Arguments of `weir policy`.
#[derive(Args, Debug)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Subcommand, Debug)]
enum PolicyCommand {
    /// List the policies of all routers, and what serves where
    Ls(Box<LsArgs>),
}

/// Runs `weir policy ...`.
pub(super) fn policy(args: &PolicyArgs) -> Result<ExitCode> {
    match &args.command {
        PolicyCommand::Ls(args) => super::client(async |streams| policy::ls(args, streams).await),
    }
}
