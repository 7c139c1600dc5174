//! Answering queries: from a snapshot, by key range, on threads of their own, never through the
//! writer's queue (S8).

mod acknowledged;
mod merge;
mod scan;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::SystemTime,
};

use tokio::{runtime::Handle, sync::Semaphore};
use weir_core::selection::Selection;
use zenoh::{
    Wait,
    key_expr::{KeyExpr, keyexpr},
    query::{Parameters, Query, ZenohParameters},
};

pub(crate) use self::acknowledged::{Acks, Kind, Operation, name as durability_name};
use self::scan::Found;
#[cfg(test)]
pub(crate) use self::scan::run;
use crate::{convert, storage::Storage};

/// Queries that are answered at once; others wait their turn. They read and send, and mostly wait.
const AT_ONCE_MAX: usize = 128;
/// Queries that may wait; one more is refused.
const WAITING_MAX: usize = 8_192;

/// Threads for queries, shared by the storages of a router.
#[derive(Clone)]
pub(crate) struct QueryPool {
    handle: Handle,
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    acks: Acks,
}

/// Why a query cannot be answered, in words for whoever asked.
pub(crate) type Refusal = String;

impl QueryPool {
    /// A pool on the runtime that calls this.
    pub(crate) fn new(router: String) -> Self {
        Self {
            handle: Handle::current(),
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            waiting: Arc::default(),
            acks: Acks::new(router),
        }
    }

    /// Who sends acknowledgements.
    pub(crate) fn acks(&self) -> Acks {
        self.acks.clone()
    }

    /// Takes a query for a storage; called on Zenoh's receive threads, returns at once.
    pub(crate) fn take(&self, storage: &Arc<Storage>, query: Query) {
        if let Some(change) = Kind::of(query.parameters()) {
            return self.acks.offer(storage, change, query);
        }
        storage.counters.queries.fetch_add(1, Relaxed);
        let storage = Arc::clone(storage);
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            self.handle.spawn_blocking(move || {
                answer(&storage, &query);
                drop(turn);
            });
            return;
        }
        if self.waiting.fetch_add(1, Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Relaxed);
            return refuse(&storage, &query, "too many queries are waiting; try again");
        }
        let (turns, waiting) = (Arc::clone(&self.turns), Arc::clone(&self.waiting));
        self.handle.spawn(async move {
            let turn = turns.acquire_owned().await;
            waiting.fetch_sub(1, Relaxed);
            tokio::task::spawn_blocking(move || {
                answer(&storage, &query);
                drop(turn);
            });
        });
    }
}

/// Answers a query, or says why not.
fn answer(storage: &Storage, query: &Query) {
    let mut sent = 0u64;
    let result = selection(query.parameters()).and_then(|selection| {
        scan::run(storage, query.key_expr(), &selection, |found| {
            sent += 1;
            reply(query, found)
        })
    });
    storage.counters.replies.fetch_add(sent, Relaxed);
    if let Err(refusal) = result {
        refuse(storage, query, &refusal);
    }
}

/// What the parameters ask for.
fn selection(parameters: &Parameters<'_>) -> Result<Selection, Refusal> {
    let time = match parameters.time_range() {
        None => None,
        Some(Ok(range)) => Some(convert::time_range(range, SystemTime::now())),
        Some(Err(error)) => return Err(format!("`_time` cannot be read: {error}")),
    };
    Selection::parse(|name| parameters.get(name), time).map_err(|error| error.to_string())
}

/// Sends one sample. An error means that nobody listens any more.
fn reply(query: &Query, found: Found<'_>) -> Result<(), Refusal> {
    let reply = query
        .reply(
            KeyExpr::from(found.key),
            convert::zbytes(&found.live.value.payload),
        )
        .encoding(convert::encoding(&found.live.value.encoding))
        .timestamp(convert::timestamp(found.live.version.stamp))
        .attachment(found.live.value.attachment.as_ref().map(convert::zbytes));
    reply.wait().map_err(|error| error.to_string())
}

/// Answers with an error.
fn refuse(storage: &Storage, query: &Query, refusal: &str) {
    storage.counters.query_errors.fetch_add(1, Relaxed);
    let message = format!("storage `{}`: {refusal}", storage.name);
    tracing::debug!(key_expr = %query.key_expr(), message, "a query is refused");
    if let Err(error) = query
        .reply_err(message)
        .encoding(zenoh::bytes::Encoding::TEXT_PLAIN)
        .wait()
    {
        tracing::debug!(%error, "an error reply could not be sent");
    }
}

/// What a query asks for, to be held against key after key.
struct Asked<'a> {
    expr: &'a keyexpr,
    /// What comes before the `/**` of an expression that asks for all keys under a plain one.
    under: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn new(expr: &'a keyexpr) -> Self {
        let under = expr.as_str().strip_suffix("**");
        let under = under.filter(|under| !under.contains('*'));
        Self { expr, under }
    }

    /// Whether a full key lies in it.
    fn has(&self, key: &keyexpr) -> bool {
        // The usual question. A chunk that begins with `@` is only found by its name.
        let under = self
            .under
            .and_then(|under| key.as_str().strip_prefix(under));
        under.is_some_and(|rest| !rest.contains('@')) || self.expr.intersects(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_says_what_zenoh_says() {
        let exprs = [
            "**", "a/**", "a/b/**", "@a/**", "a/*/**", "a$*/**", "a/b", "a/@b/**",
        ];
        let keys = [
            "a", "a/b", "ab", "ab/c", "a/b/c", "@a/b", "a/@b", "a/@b/c", "a/b@c", "b", "a/b/@c",
        ];
        for expr in exprs.map(|expr| keyexpr::new(expr).unwrap()) {
            let asked = Asked::new(expr);
            for key in keys.map(|key| keyexpr::new(key).unwrap()) {
                assert_eq!(asked.has(key), expr.intersects(key), "{expr} {key}");
            }
        }
    }
}
