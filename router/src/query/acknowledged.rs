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
//! The answer is JSON: `{"storage", "router", "admission", "timestamp", "durability"}`. A link answers
//! as a storage of its name does, with the admission `queued`.

use std::sync::{Arc, mpsc};

use serde_json::json;
use weir_backend_api::Durability;
use weir_core::{change::Admission, value::Value, version::Stamp};
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

/// What an acknowledged operation asks for.
pub(crate) struct Operation {
    /// How durable it has to be before it is answered.
    pub durability: Durability,
    /// Its own timestamp.
    pub stamp: Option<Stamp>,
    /// What is put; nothing for a delete.
    pub value: Option<Value>,
}

/// Sends acknowledgements, on a thread of its own: a client that does not read must not hold up the
/// storage that has decided.
#[derive(Clone)]
pub(crate) struct Acks {
    router: Arc<str>,
    answers: mpsc::Sender<Answer>,
}

/// What is answered, or why it was refused.
type Said = Result<serde_json::Value, String>;

struct Answer {
    query: Query,
    said: Said,
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

impl Operation {
    /// What a query asks for, if it is for who has this name.
    ///
    /// # Errors
    /// What of it makes no sense.
    pub(crate) fn read(query: &Query, kind: Kind, name: &str) -> Result<Option<Self>, String> {
        let parameters = query.parameters();
        if parameters.get("storage").is_some_and(|one| one != name) {
            return Ok(None);
        }
        let (durability, stamp) = self::parameters(parameters)?;
        let value = (kind == Kind::Put).then(|| {
            let empty = zenoh::bytes::ZBytes::new();
            let payload = query.payload().unwrap_or(&empty);
            convert::value(payload, query.encoding(), query.attachment())
        });
        Ok(Some(Self {
            durability: durability.unwrap_or(Durability::Memory),
            stamp,
            value,
        }))
    }
}

impl Acks {
    pub(crate) fn new(router: String) -> Self {
        let (answers, queue) = mpsc::channel::<Answer>();
        // Ends when the last `Acks` is dropped.
        std::thread::spawn(move || {
            for answer in queue {
                answer.send();
            }
        });
        Self {
            router: router.into(),
            answers,
        }
    }

    /// Offers the operation to a storage; the answer follows when it is decided.
    pub(crate) fn offer(&self, storage: &Arc<Storage>, kind: Kind, query: Query) {
        let asked = match Operation::read(&query, kind, &storage.name) {
            Ok(Some(asked)) => asked,
            Ok(None) => return,
            Err(why) => return self.refuse(query, &of(storage), &why),
        };
        if asked.durability > storage.capability.durability_max {
            let most = name(storage.capability.durability_max);
            let why = format!("durability can be `{most}` at the most");
            return self.refuse(query, &of(storage), &why);
        }
        let expr = query.key_expr().clone().into_owned();
        let (acks, name) = (self.clone(), storage.name.clone());
        let ack = Ack {
            durability: asked.durability,
            answer: Box::new(move |outcome| acks.tell(query, &name, outcome)),
        };
        if let Err((ack, why)) = storage.offer(&expr, asked.stamp, asked.value, ack) {
            (ack.answer)(Outcome::Failed(why.to_owned()));
        }
    }

    /// Answers that who has this name has taken the change into its care: it is `admission`.
    pub(crate) fn accept(
        &self,
        query: Query,
        who: &str,
        admission: &str,
        stamp: Option<Stamp>,
        durability: Durability,
    ) {
        let said = json!({
            "storage": who,
            "router": &*self.router,
            "admission": admission,
            "timestamp": stamp.map(|stamp| stamp.to_string()),
            "durability": name(durability),
        });
        self.send(query, Ok(said));
    }

    /// Answers that `who` (``storage `x` ``) does not take it, and why.
    pub(crate) fn refuse(&self, query: Query, who: &str, why: &str) {
        self.send(query, Err(format!("{who}: {why}")));
    }

    fn tell(&self, query: Query, storage: &str, outcome: Outcome) {
        let who = format!("storage `{storage}`");
        match outcome {
            Outcome::Failed(why) => self.refuse(query, &who, &why),
            Outcome::Decided(Admission::Rejected(why), _) => {
                self.refuse(query, &who, &format!("rejected: {why}"));
            }
            Outcome::Decided(admission, durability) => {
                let stamp = admission.version().map(|version| version.stamp);
                self.accept(query, storage, admission.name(), stamp, durability);
            }
        }
    }

    fn send(&self, query: Query, said: Said) {
        // The receiver lives as long as any sender.
        let _ = self.answers.send(Answer { query, said });
    }
}

impl Answer {
    fn send(self) {
        let sent = match self.said {
            Err(message) => self
                .query
                .reply_err(message)
                .encoding(Encoding::TEXT_PLAIN)
                .wait(),
            Ok(answer) => self
                .query
                .reply(self.query.key_expr(), answer.to_string())
                .encoding(Encoding::APPLICATION_JSON)
                .wait(),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "an acknowledgement could not be sent");
        }
    }
}

fn of(storage: &Storage) -> String {
    format!("storage `{}`", storage.name)
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
