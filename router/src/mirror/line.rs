//! The way to one storage: asks it frames, and says who asks when it does not know.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use zenoh::{
    bytes::ZBytes,
    qos::Priority,
    query::{ConsolidationMode, QueryTarget},
};

use super::hello::{Address, Introduction, WHO};
use crate::session::{Bus, GetOptions};

/// A storage that can be asked.
pub(crate) struct Line {
    bus: Bus,
    key: String,
    introduction: (Vec<u8>, [u8; 8]),
    introduced: AtomicBool,
}

impl Line {
    /// The way to `address` for who introduces itself so. Sends nothing.
    pub(crate) fn new(bus: Bus, address: &Address, who: &Introduction) -> Self {
        Self {
            bus,
            key: address.key(),
            introduction: who.encode(),
            introduced: AtomicBool::new(false),
        }
    }

    /// Asks a frame and gives the frame that is answered. Asks again, once, if it has to introduce
    /// itself.
    ///
    /// # Errors
    /// In words: nobody answers in time, or why it will not.
    pub(crate) async fn ask(
        &self,
        frame: &[u8],
        priority: Priority,
        limit: Duration,
    ) -> Result<Bytes, String> {
        let (full, hash) = &self.introduction;
        if self.introduced.load(Relaxed) {
            match self.ask_as(hash, frame, priority, limit).await {
                Err(why) if why == WHO => {}
                answered => return answered,
            }
        }
        let answered = self.ask_as(full, frame, priority, limit).await;
        self.introduced.store(answered.is_ok(), Relaxed);
        answered
    }

    async fn ask_as(
        &self,
        who: &[u8],
        frame: &[u8],
        priority: Priority,
        limit: Duration,
    ) -> Result<Bytes, String> {
        let options = GetOptions {
            payload: Some((ZBytes::from(frame), None)),
            attachment: Some(ZBytes::from(who)),
            timeout: limit,
            target: QueryTarget::All,
            consolidation: ConsolidationMode::None,
            priority,
        };
        let mut replies = self
            .bus
            .get(&self.key, options)
            .await
            .map_err(|error| error.to_string())?;
        let reply = replies.next().await.ok_or("nobody answers")?;
        // Zenoh warns of the end of a query that nobody waits for any more.
        while replies.next().await.is_some() {}
        match reply.result() {
            Ok(sample) => Ok(Bytes::from(sample.payload().to_bytes().into_owned())),
            Err(error) => Err(String::from_utf8_lossy(&error.payload().to_bytes()).into_owned()),
        }
    }
}
