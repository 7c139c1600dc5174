//! The side that answers: what a storage says of itself, and frames of mirrors and links.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Semaphore};
use weir_core::{
    forward::frame::is_forward,
    mirror::answer::{self, Limits},
    pattern::KeySet,
};
use xxhash_rust::xxh3::xxh3_64;
use zenoh::{
    Wait,
    bytes::{Encoding, ZBytes},
    key_expr::KeyExpr,
    query::Query,
};

use super::{
    board::{Board, Figures, Inquiry},
    hello::{Address, Introduction, Own, WHO},
    packing::Packing,
};
use crate::{forward::Links, storage::Storage};

/// Frames that are answered at once, of all storages of a router: they read, and readers of users come
/// first.
const AT_ONCE_MAX: usize = 4;
/// Frames that may wait; one more is refused, and asked again later.
const WAITING_MAX: usize = 1_024;
/// Introductions that are remembered. When they are more, all are forgotten and asked for again.
const KNOWN_MAX: usize = 4_096;

/// What the answering storages of a router share.
pub(super) struct Desk {
    handle: Handle,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    known: Mutex<HashMap<[u8; 8], Arc<Asker>>>,
    board: Board,
    links: Arc<Links>,
}

/// Somebody who asks.
pub(super) struct Asker {
    pub who: Introduction,
    /// Its keys.
    pub keys: KeySet,
}

/// A storage that answers.
pub(super) struct Answering {
    /// Where and what it is.
    pub own: Own,
    /// The storage.
    pub storage: Arc<Storage>,
    /// What it is stored on.
    pub backends: Vec<String>,
    /// What it shares with others.
    pub desk: Arc<Desk>,
}

impl Desk {
    /// A desk on the runtime that calls this.
    pub(super) fn new(board: Board, links: Arc<Links>) -> Self {
        Self {
            handle: Handle::current(),
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            waiting: AtomicUsize::new(0),
            known: Mutex::default(),
            board,
            links,
        }
    }

    /// The router's own links.
    pub(super) fn links(&self) -> &Links {
        &self.links
    }

    /// How many frames wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Who asks, if it says so or has said so before.
    fn identify(&self, attachment: Option<&ZBytes>) -> Result<Arc<Asker>, String> {
        let bytes = attachment.ok_or(WHO)?.to_bytes();
        let mut known = self.known.lock();
        if let Ok(hash) = <[u8; 8]>::try_from(&*bytes) {
            return Ok(Arc::clone(known.get(&hash).ok_or(WHO)?));
        }
        let who: Introduction = serde_json::from_slice(&bytes)
            .map_err(|error| format!("the introduction cannot be read: {error}"))?;
        let keys = who.keys.set()?;
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let asker = Arc::new(Asker { who, keys });
        let hash = xxh3_64(&bytes).to_be_bytes();
        known.insert(hash, Arc::clone(&asker));
        Ok(asker)
    }
}

impl Answering {
    /// Takes a query; called on Zenoh's receive threads, returns at once.
    pub(super) fn take(self: &Arc<Self>, query: Query) {
        let desk = &self.desk;
        if desk.waiting.fetch_add(1, Relaxed) >= WAITING_MAX {
            desk.waiting.fetch_sub(1, Relaxed);
            return refuse(&query, "too many mirrors are asking; try again");
        }
        let (answering, came) = (Arc::clone(self), Instant::now());
        desk.handle.spawn(async move {
            let turn = Arc::clone(&answering.desk.turns).acquire_owned().await;
            answering.desk.waiting.fetch_sub(1, Relaxed);
            answering.serve(query, came).await;
            drop(turn);
        });
    }

    async fn serve(self: &Arc<Self>, query: Query, came: Instant) {
        let answer = match query.payload() {
            None => self.greet(),
            Some(frame) => {
                self.answer(frame.to_bytes().into_owned(), came, query.attachment())
                    .await
            }
        };
        let key = self.own.address.key();
        // A full link makes a sender wait, so not on a thread that others wait for.
        let sent = tokio::task::spawn_blocking(move || match answer {
            Ok((bytes, encoding)) => {
                let Ok(key) = KeyExpr::new(key) else { return };
                if let Err(error) = query.reply(key, bytes).encoding(encoding).wait() {
                    tracing::debug!(%error, "an answer to a mirror could not be sent");
                }
            }
            Err(why) => refuse(&query, &why),
        });
        if let Err(error) = sent.await {
            tracing::error!(%error, "answering a mirror failed");
        }
    }

    fn greet(&self) -> Result<(Vec<u8>, Encoding), String> {
        let hello = self.own.hello(&self.storage, &self.backends);
        let hello = serde_json::to_vec(&hello).map_err(|error| error.to_string())?;
        Ok((hello, Encoding::APPLICATION_JSON))
    }

    async fn answer(
        self: &Arc<Self>,
        frame: Vec<u8>,
        came: Instant,
        attachment: Option<&ZBytes>,
    ) -> Result<(Vec<u8>, Encoding), String> {
        let peer = self.desk.identify(attachment)?;
        if is_forward(&frame) {
            let reply = self.answer_link(frame, came, &peer).await?;
            return Ok((reply, Encoding::ZENOH_BYTES));
        }
        let (take, give) = self.permits(&peer.who);
        if !take && !give {
            return Err(format!(
                "the settings of {} allow no such mirror",
                self.own.address
            ));
        }
        let figures = self.figures(&peer.who);
        let (asked, now) = (frame.len(), self.storage.now());
        let covers = self.storage.is_covered_by(&peer.keys);
        let answering = Arc::clone(self);
        let answered = tokio::task::spawn_blocking(move || {
            let mut replica = Packing(answering.storage.replica(&peer.keys));
            let limits = Limits {
                give,
                take,
                ..Limits::default()
            };
            answer::answer(&frame, &mut replica, &limits)
        });
        let reply = match answered.await.map_err(|error| error.to_string())? {
            Ok(answer) => {
                if let Some(admit) = answer.admit {
                    let admitted = self.storage.admit(admit).await?;
                    if let Some(figures) = &figures {
                        figures.show(|shown| shown.taken += admitted.applied);
                        if admitted.is_behind && covers {
                            figures.fell_behind();
                        }
                    }
                }
                if let (Some(figures), Some(in_step)) = (&figures, answer.probed) {
                    figures.probed(Inquiry {
                        in_step,
                        stores: answer.stores,
                        at: now,
                    });
                }
                answer.reply
            }
            Err(refused) => {
                let storage = &self.own.address.storage;
                tracing::debug!(storage, why = %refused, cause = ?refused.unreadable, "a mirror is refused");
                refused.reply
            }
        };
        if let Some(figures) = figures {
            figures.answered(asked, reply.len());
        }
        Ok((reply, Encoding::ZENOH_BYTES))
    }

    /// Whether changes are taken from it and given to it. A person may look, as with any query.
    fn permits(&self, peer: &Introduction) -> (bool, bool) {
        let Some(storage) = &peer.storage else {
            return (false, true);
        };
        let Some(mirror) = &self.own.mirror else {
            return (false, false);
        };
        let takes = !self.own.read_only && mirror.from.contains(&peer.router, storage);
        (takes, mirror.to.contains(&peer.router, storage))
    }

    fn figures(&self, peer: &Introduction) -> Option<Arc<Figures>> {
        let address = Address {
            router: peer.router.clone(),
            storage: peer.storage.clone()?,
        };
        self.desk.board.get(&self.own.address.storage, &address)
    }
}

fn refuse(query: &Query, why: &str) {
    if let Err(error) = query.reply_err(why).encoding(Encoding::TEXT_PLAIN).wait() {
        tracing::debug!(%error, "a refusal could not be sent");
    }
}
