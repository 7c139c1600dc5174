//! `weir del`.

use anyhow::Result;
use clap::Args;
use zenoh::bytes::ZBytes;

use super::ack::{AckArgs, Operation};
use super::put::ChangeArgs;
use super::{ConnectArgs, FLUSH_LIMIT, Outcome, Streams, check_key_expr};
use crate::session::PutOptions;

/// Arguments of `weir del`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir del demo/room/temperature
  weir del 'demo/room/**' --ack

Exit status: 0 done; 1 --ack and no storage answered; 2 error, or a storage refused.")]
pub struct DelArgs {
    /// Key, or key expression: everything that it matches is deleted
    pub key_expr: String,

    /// What the change carries besides.
    #[command(flatten)]
    pub change: ChangeArgs,

    /// Whether to wait for the storages.
    #[command(flatten)]
    pub ack: AckArgs,

    /// Where the router is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Deletes what a key expression matches.
pub async fn del(args: &DelArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    check_key_expr(&args.key_expr)?;
    let attachment = args.change.attachment.as_deref().map(ZBytes::from);

    let bus = args.connect.open().await?;
    let timestamp = args
        .change
        .timestamp
        .map(|given| given.resolve(*bus.new_timestamp().get_id()));
    let outcome = if args.ack.wanted() {
        let delete = Operation::Delete;
        args.ack
            .ask(&bus, &args.key_expr, delete, attachment, timestamp, streams)
            .await?
    } else {
        let options = PutOptions {
            encoding: None,
            attachment,
            timestamp,
        };
        bus.delete(&args.key_expr, options).await?;
        bus.flush(FLUSH_LIMIT).await?;
        Outcome::Done
    };
    bus.close().await?;
    Ok(outcome)
}
