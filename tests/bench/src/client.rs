//! Zenoh sessions of this program, and the questions that it asks as a client.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use zenoh::{
    Config, Session, Wait as _,
    query::{ConsolidationMode, QueryTarget},
    sample::SampleKind,
};

use crate::dataset::{self, Share};

/// Longer than any query here takes; a wildcard get of a million keys from the stock router takes
/// half a minute.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Opens a client of the router at `endpoint`.
pub fn connect(endpoint: &str) -> Result<Session> {
    let config = config("client", "connect", endpoint)?;
    zenoh::open(config).wait().map_err(Error::from_boxed)
}

/// A configuration with one endpoint and no scouting.
pub fn config(mode: &str, direction: &str, endpoint: &str) -> Result<Config> {
    let mut config = Config::default();
    for (key, value) in [
        ("mode", format!("{mode:?}")),
        (&format!("{direction}/endpoints"), format!("[{endpoint:?}]")),
        ("scouting/multicast/enabled", "false".to_owned()),
        ("adminspace/enabled", "true".to_owned()),
    ] {
        config
            .insert_json5(key, &value)
            .map_err(Error::from_boxed)?;
    }
    Ok(config)
}

/// Everything that `selector` finds, each as key and value; of several answers for one key all.
pub fn get(session: &Session, selector: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let replies = session
        .get(selector)
        .consolidation(ConsolidationMode::None)
        .target(QueryTarget::All)
        .timeout(PATIENCE)
        .wait()
        .map_err(Error::from_boxed)?;
    let mut found = Vec::new();
    for reply in replies {
        match reply.result() {
            Ok(sample) => {
                found.push((
                    sample.key_expr().to_string(),
                    sample.payload().to_bytes().into_owned(),
                ));
            }
            Err(error) => bail!(
                "{selector}: {}",
                error.payload().try_to_string().unwrap_or_default()
            ),
        }
    }
    Ok(found)
}

/// What routers say about themselves, as JSON.
pub fn statuses(session: &Session, selector: &str) -> Result<Vec<serde_json::Value>> {
    let found = get(session, selector)?.into_iter();
    let parse = |(key, value): (String, Vec<u8>)| serde_json::from_slice(&value).context(key);
    found.map(parse).collect()
}

/// Waits until a storage answers for what is put: it is there, and it is known to be.
pub fn wait_serving(session: &Session, within: Duration) -> Result<()> {
    const PROBE: &str = "bench/probe";
    poll(within, "the storage does not answer", || {
        session
            .put(PROBE, "probe")
            .wait()
            .map_err(Error::from_boxed)?;
        Ok(!get(session, PROBE)?.is_empty())
    })?;
    // Gone again, so that it is not counted. A probe that is still under way would bring it back:
    // the delete follows the last put on the same path, so it is the later one.
    session.delete(PROBE).wait().map_err(Error::from_boxed)?;
    poll(within, "the storage does not forget", || {
        Ok(get(session, PROBE)?.is_empty())
    })
}

/// Waits until the storage holds the last value of each share, having been sent that many.
pub fn wait_stored(session: &Session, sent: &[(Share, u64)], within: Duration) -> Result<()> {
    for (share, sent) in sent {
        // A publisher's samples arrive in order, so its last one is the last to be stored.
        let Some((index, number)) = share.last(*sent).max_by_key(|(_, number)| *number) else {
            continue;
        };
        let key = dataset::key(index);
        poll(within, "the last sample is not stored", || {
            let found = get(session, &key)?;
            Ok(found
                .iter()
                .any(|(_, value)| dataset::number(value) == Some(number)))
        })?;
    }
    Ok(())
}

/// Checks that the storage holds the last value of every key and nothing else.
pub fn check_stored(session: &Session, sent: &[(Share, u64)]) -> Result<()> {
    let mut expected: HashMap<String, u64> = sent
        .iter()
        .flat_map(|(share, sent)| share.last(*sent))
        .map(|(index, number)| (dataset::key(index), number))
        .collect();
    for (key, value) in get(session, dataset::ALL)? {
        let wanted = expected
            .remove(&key)
            .with_context(|| format!("{key}: unexpected or doubled"))?;
        let found = dataset::number(&value);
        ensure!(
            found == Some(wanted),
            "{key}: holds sample {found:?}, the last was {wanted}"
        );
    }
    ensure!(expected.is_empty(), "{} keys are missing", expected.len());
    Ok(())
}

/// What the counting subscriber has counted.
pub fn counted(session: &Session) -> Result<u64> {
    let found = get(session, crate::worker::COUNT)?;
    let (_, value) = found
        .first()
        .context("the counting router does not answer")?;
    std::str::from_utf8(value)?
        .parse()
        .context("the count is no number")
}

/// Waits until the counting subscriber has counted `total`; more is an error.
pub fn wait_counted(session: &Session, total: u64, within: Duration) -> Result<()> {
    poll(within, "the counting router misses samples", || {
        let counted = counted(session)?;
        ensure!(counted <= total, "{counted} samples counted of {total}");
        Ok(counted == total)
    })
}

/// Asks every 2 ms: often enough for runs of seconds, too rarely to weigh on a core.
pub fn poll(within: Duration, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + within;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what} after {within:?}");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Whether a reply is a live value of a key, as opposed to an error or a delete.
pub fn is_value(reply: &zenoh::query::Reply) -> bool {
    reply
        .result()
        .is_ok_and(|sample| sample.kind() == SampleKind::Put)
}
