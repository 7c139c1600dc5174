//! What the registry knows of one file.

use std::{sync::Arc, time::SystemTime};

use weir_core::slot::ContentHash;

use crate::{
    directory::Dropped,
    environment::Manifest,
    revision::{Origin, Revision},
    signature::{self, Key, SignatureMode, Signer},
    status::{FileStatus, Refused, rfc3339},
};

/// A file as it is now.
pub(super) struct File {
    /// `None` if it cannot be read.
    pub(super) content: Option<ContentHash>,
    pub(super) size: usize,
    pub(super) signer: Option<Signer>,
    /// That nobody has signed it, where that is only worth a warning.
    pub(super) warning: Option<String>,
    pub(super) condition: Condition,
    pub(super) since: SystemTime,
}

/// How far it got.
pub(super) enum Condition {
    Loading,
    Ready(Loaded),
    Refused(Refused),
}

/// A module that could be loaded.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) revision: Arc<Revision>,
    /// What it says about itself without being bound; some say nothing without shards.
    pub(super) manifest: Option<Manifest>,
}

impl File {
    /// A file that was dropped; it is refused here already if nobody has signed it and somebody has to.
    pub(super) fn of(dropped: &Dropped, mode: SignatureMode, keys: &[Key]) -> Self {
        let Dropped {
            name,
            bytes,
            signature,
        } = dropped;
        let verdict = match mode {
            SignatureMode::Off => None,
            SignatureMode::Warn | SignatureMode::Require => {
                Some(signature::verify(name, bytes, signature.as_ref(), keys))
            }
        };
        let mut file = Self {
            content: Some(ContentHash(*blake3::hash(bytes).as_bytes())),
            size: bytes.len(),
            signer: None,
            warning: None,
            condition: Condition::Loading,
            since: SystemTime::now(),
        };
        match (verdict, mode) {
            (None, _) => {}
            (Some(Ok(signer)), _) => file.signer = Some(signer),
            (Some(Err(error)), SignatureMode::Require) => {
                let message = format!("{error}; sign it with a key that is trusted here");
                file.refuse("signature", message);
            }
            (Some(Err(error)), _) => file.warning = Some(error.to_string()),
        }
        file
    }

    /// A file that cannot be read.
    pub(super) fn unreadable(reason: String) -> Self {
        Self {
            content: None,
            size: 0,
            signer: None,
            warning: None,
            condition: Condition::Refused(Refused {
                code: "unreadable".into(),
                message: reason,
            }),
            since: SystemTime::now(),
        }
    }

    pub(super) fn refuse(&mut self, code: &str, message: String) {
        self.condition = Condition::Refused(Refused {
            code: code.to_owned(),
            message,
        });
    }

    pub(super) fn refusal(&self) -> Option<&Refused> {
        match &self.condition {
            Condition::Refused(refused) => Some(refused),
            Condition::Loading | Condition::Ready(_) => None,
        }
    }

    pub(super) fn status(&self) -> FileStatus {
        let loaded = match &self.condition {
            Condition::Ready(loaded) => Some(loaded),
            Condition::Loading | Condition::Refused(_) => None,
        };
        let revision = loaded.map(|loaded| &loaded.revision);
        let manifest = loaded.and_then(|loaded| loaded.manifest.as_ref());
        let hooks = revision.map(|revision| revision.hooks.iter());
        FileStatus {
            state: match &self.condition {
                Condition::Loading => "loading",
                Condition::Ready(_) => "ready",
                Condition::Refused(_) => "refused",
            }
            .into(),
            refusal: self.refusal().cloned(),
            hash: self.content.map(|content| content.to_string()),
            size: self.size,
            signer: self.signer.clone(),
            hooks: hooks
                .into_iter()
                .flatten()
                .map(|hook| hook.name().to_owned())
                .collect(),
            module: manifest.map(|manifest| manifest.name.clone()),
            version: manifest.map(|manifest| manifest.version.clone()),
            origin: revision.map(|revision| match revision.origin {
                Origin::Compiled => "compiled".into(),
                Origin::Cache => "cache".into(),
            }),
            load_ms: revision.map(|revision| revision.took.as_secs_f64() * 1e3),
            since: rfc3339(self.since),
        }
    }
}
