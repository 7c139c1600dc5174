//! Acknowledged operations (S7): a query with `_put` or `_delete` whose payload is the value, answered
//! by each storage with what became of it.
//!
//! | parameter | meaning |
//! | --- | --- |
//! | `_put` | put the query's payload, encoding and attachment on its key |
//! | `_delete` | delete its key or key expression |
//! | `durability=memory`, `written`, `synced` | answer only when it is that durable |
//! | `timestamp=TIME/ID` | the change's own timestamp |
//! | `storage=NAME` | only storages of this name take it |
//!
//! The answer is JSON: `{"storage", "router", "admission", "timestamp", "durability"}`.

use std::sync::{Arc, mpsc};

use serde_json::json;
use weir_backend_api::Durability;
use weir_core::{change::Admission, version::Stamp};
use zenoh::{
    Wait,
    bytes::Encoding,
    query::{Parameters, Query},
};

use crate::{
    convert,
    storage::{
        Storage,
        offer::{Ack, Outcome},
    },
};

/// What an acknowledged operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `_put`
    Put,
    /// `_delete`
    Delete,
}

/// Sends acknowledgements, on a thread of its own: a client that does not read must not hold up the
/// storage that has decided.
#[derive(Clone)]
pub(crate) struct Acks {
    answers: mpsc::Sender<Answer>,
}

struct Answer {
    query: Query,
    storage: String,
    outcome: Outcome,
}

impl Kind {
    /// Which operation the parameters ask for, if any.
    pub(crate) fn of(parameters: &Parameters<'_>) -> Option<Self> {
        if parameters.contains_key("_put") {
            return Some(Self::Put);
        }
        parameters.contains_key("_delete").then_some(Self::Delete)
    }
}

impl Acks {
    pub(crate) fn new(router: String) -> Self {
        let (answers, queue) = mpsc::channel::<Answer>();
        // Ends when the last `Acks` is dropped.
        std::thread::spawn(move || {
            for answer in queue {
                answer.send(&router);
            }
        });
        Self { answers }
    }

    /// Offers the operation to a storage; the answer follows when it is decided.
    pub(crate) fn offer(&self, storage: &Arc<Storage>, kind: Kind, query: Query) {
        if query
            .parameters()
            .get("storage")
            .is_some_and(|name| name != storage.name)
        {
            return;
        }
        let (durability, stamp) = match parameters(query.parameters()) {
            Ok(parameters) => parameters,
            Err(message) => return self.refuse(storage, query, message),
        };
        let value = (kind == Kind::Put).then(|| {
            let empty = zenoh::bytes::ZBytes::new();
            let payload = query.payload().unwrap_or(&empty);
            convert::value(payload, query.encoding(), query.attachment())
        });
        let asked = durability.unwrap_or(Durability::Memory);
        if asked > storage.capability.durability_max {
            let most = name(storage.capability.durability_max);
            return self.refuse(
                storage,
                query,
                format!("durability can be `{most}` at the most"),
            );
        }
        let expr = query.key_expr().clone().into_owned();
        let (answers, name) = (self.answers.clone(), storage.name.clone());
        let ack = Ack {
            durability: asked,
            answer: Box::new(move |outcome| {
                // The receiver lives as long as any sender.
                let _ = answers.send(Answer {
                    query,
                    storage: name,
                    outcome,
                });
            }),
        };
        if let Err((ack, why)) = storage.offer(&expr, stamp, value, ack) {
            (ack.answer)(Outcome::Failed(why.to_owned()));
        }
    }

    fn refuse(&self, storage: &Storage, query: Query, message: String) {
        let outcome = Outcome::Failed(message);
        let _ = self.answers.send(Answer {
            query,
            storage: storage.name.clone(),
            outcome,
        });
    }
}

impl Answer {
    fn send(self, router: &str) {
        let sent = match &self.outcome {
            Outcome::Failed(message) => {
                let message = format!("storage `{}`: {message}", self.storage);
                self.query
                    .reply_err(message)
                    .encoding(Encoding::TEXT_PLAIN)
                    .wait()
            }
            Outcome::Decided(Admission::Rejected(why), _) => {
                let message = format!("storage `{}`: rejected: {why}", self.storage);
                self.query
                    .reply_err(message)
                    .encoding(Encoding::TEXT_PLAIN)
                    .wait()
            }
            Outcome::Decided(admission, durability) => {
                let answer = json!({
                    "storage": self.storage,
                    "router": router,
                    "admission": admission.name(),
                    "timestamp": admission.version().map(|version| version.stamp.to_string()),
                    "durability": name(*durability),
                });
                self.query
                    .reply(self.query.key_expr(), answer.to_string())
                    .encoding(Encoding::APPLICATION_JSON)
                    .wait()
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "an acknowledgement could not be sent");
        }
    }
}

fn parameters(parameters: &Parameters<'_>) -> Result<(Option<Durability>, Option<Stamp>), String> {
    let durability = match parameters.get("durability") {
        None => None,
        Some("memory") => Some(Durability::Memory),
        Some("written") => Some(Durability::Written),
        Some("synced") => Some(Durability::Synced),
        Some(other) => {
            return Err(format!(
                "`durability={other}`: expected memory, written or synced"
            ));
        }
    };
    let stamp = match parameters.get("timestamp") {
        None => None,
        Some(text) => match text.parse::<zenoh::time::Timestamp>() {
            Ok(timestamp) => Some(Stamp::from_uhlc(&timestamp)),
            Err(_) => return Err(format!("`timestamp={text}`: expected TIME/ID")),
        },
    };
    Ok((durability, stamp))
}

/// The word for a durability in parameters, answers and settings.
pub(crate) const fn name(durability: Durability) -> &'static str {
    match durability {
        Durability::Memory => "memory",
        Durability::Written => "written",
        Durability::Synced => "synced",
    }
}
