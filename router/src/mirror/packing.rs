//! A storage as reconciliation sees it, that packs what it sends: records in columns and zstd, as links
//! ship them. The core asks only whether and what.

use std::sync::Arc;

use bytes::Bytes;
use weir_backend_api::replica::StoreReplica;
use weir_core::{
    change::{Change, KeptChange},
    forward::Entry,
    identity::Identity,
    ledger::{Item, Span, Summary},
    mirror::{Marks, Page, Replica, State, Unreadable, frame::Bad},
    record::Record,
    version::Version,
    wildcard::WildcardOp,
};
use weir_journal::pack::{Unpackable, pack, unpack};

/// Fewer records are not worth the head of a parcel.
const RECORDS_MIN: usize = 8;
/// Bytes of keys and values that are packed at once. A page has some hundred KiB; one with a longer record
/// in it goes as it is.
const PACK_MAX: usize = 4 << 20;
/// What a page may become when it is unpacked: keys, values and 64 bytes a record, so that a page of
/// [`PACK_MAX`] fits whatever is in it.
const UNPACK_MAX: usize = 16 << 20;

/// A storage that packs.
pub(super) struct Packing(pub(super) StoreReplica);

impl Replica for Packing {
    fn marks(&mut self) -> Result<Marks, Unreadable> {
        self.0.marks()
    }

    fn stores(&mut self) -> Result<Vec<Identity>, Unreadable> {
        self.0.stores()
    }

    fn wildcards(&mut self) -> Result<Vec<Arc<WildcardOp>>, Unreadable> {
        self.0.wildcards()
    }

    fn summary(&mut self, span: &Span) -> Result<Summary, Unreadable> {
        self.0.summary(span)
    }

    fn split(&mut self, span: &Span, parts: usize) -> Result<Vec<(Span, Summary)>, Unreadable> {
        self.0.split(span, parts)
    }

    fn items(&mut self, span: &Span, max: usize) -> Result<Vec<Item>, Unreadable> {
        self.0.items(span, max)
    }

    fn read(
        &mut self,
        span: &Span,
        wanted: &mut dyn FnMut(&Item) -> bool,
        bytes_max: usize,
    ) -> Result<Page, Unreadable> {
        self.0.read(span, wanted, bytes_max)
    }

    fn fold(&mut self, horizon: Version, states: &mut [State]) -> Result<(), Unreadable> {
        self.0.fold(horizon, states)
    }

    fn packs(&self) -> bool {
        true
    }

    fn pack(&mut self, states: &mut Vec<State>) -> Option<Bytes> {
        pack_states(states)
    }

    fn unpack(&mut self, packed: &Bytes) -> Result<Vec<State>, Bad> {
        unpack_states(packed)
    }
}

/// Takes out and packs what is a change and nothing else; what has merged others, or an operation, stays.
fn pack_states(states: &mut Vec<State>) -> Option<Bytes> {
    if states.len() < RECORDS_MIN || states.iter().map(size).sum::<usize>() > PACK_MAX {
        return None;
    }
    let entries: Vec<Option<Entry>> = states.iter().map(entry).collect();
    if entries.iter().flatten().count() < RECORDS_MIN {
        return None;
    }
    let mut is_packed = entries.iter().map(Option::is_some);
    states.retain(|_| !is_packed.next().unwrap_or_default());
    let entries: Vec<Entry> = entries.into_iter().flatten().collect();
    Some(pack(&entries))
}

fn unpack_states(packed: &Bytes) -> Result<Vec<State>, Bad> {
    let changes = unpack(packed, UNPACK_MAX).map_err(|why| match why {
        Unpackable::Version(_) => Bad::Version,
        Unpackable::Malformed => Bad::Malformed,
        Unpackable::Large => Bad::Length,
    })?;
    changes.into_iter().map(state).collect()
}

fn entry(state: &State) -> Option<Entry> {
    let own = state.record.head.own;
    let change = Change {
        key: state.key.clone(),
        stamp: Some(own.stamp),
        value: state.record.value.clone(),
    };
    // What comes out again is this and nothing else.
    let is_own = change.version(own.stamp) == own
        && state.record.head.folded.is_none()
        && state.record.merged.is_none();
    is_own.then_some(Entry {
        change: KeptChange::Key(change),
        lane: 0,
        expires: None,
    })
}

fn state(change: KeptChange) -> Result<State, Bad> {
    let KeptChange::Key(change) = change else {
        return Err(Bad::Malformed);
    };
    let version = change.version(change.stamp.ok_or(Bad::Malformed)?);
    Ok(State {
        key: change.key,
        record: Record::own(version, change.value),
    })
}

fn size(state: &State) -> usize {
    let value = state.record.value.as_ref();
    state.key.len() + value.map_or(0, |value| value.len())
}

#[cfg(test)]
mod tests {
    use weir_core::{
        key::Key,
        record::Head,
        value::{Encoding, Value},
        version::Stamp,
    };

    use super::*;

    fn states(count: u64) -> Vec<State> {
        let state = |number: u64| {
            let stamp = Stamp {
                time: (1_700_000_000 << 32) + number * 4_294_967,
                id: [7; 16],
            };
            let value = (!number.is_multiple_of(5)).then(|| Value {
                encoding: Encoding {
                    id: 5,
                    schema: number.is_multiple_of(3).then(|| "point".into()),
                },
                attachment: number.is_multiple_of(7).then(|| "note".into()),
                payload: format!("{{\"t\":{number},\"v\":{}.5}}", number * 3).into(),
            });
            let version = match &value {
                Some(value) => Version::put(stamp, value.hash()),
                None => Version::delete(stamp),
            };
            State {
                key: Key::from(format!("fleet/vehicle/{:03}", number % 10).as_str()),
                record: Record::own(version, value),
            }
        };
        (0..count).map(state).collect()
    }

    fn sorted(mut states: Vec<State>) -> Vec<State> {
        states.sort_by(|a, b| (&a.key, a.record.head.own).cmp(&(&b.key, b.record.head.own)));
        states
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let all = states(500);
        let mut left = all.clone();
        let packed = pack_states(&mut left).unwrap();
        assert_eq!(left, []);
        let plain: usize = all.iter().map(size).sum();
        assert!(packed.len() * 3 < plain, "{} of {plain} B", packed.len());
        assert_eq!(sorted(unpack_states(&packed).unwrap()), sorted(all));
    }

    #[test]
    fn what_is_more_than_a_change_is_left() {
        let mut all = states(20);
        let folded = Version::delete(Stamp {
            time: u64::MAX,
            id: [1; 16],
        });
        let own = all[3].record.head.own;
        all[3].record.head = Head {
            own,
            folded: Some(folded),
        };
        // A hash that is not the value's: another build's, or a tie's.
        all[4].record.head.own.hash ^= 1;
        let mut left = all.clone();
        let packed = pack_states(&mut left).unwrap();
        assert_eq!(left, all[3..5]);
        assert_eq!(unpack_states(&packed).unwrap().len(), 18);
        let mut few = states(RECORDS_MIN as u64 - 1);
        assert_eq!(pack_states(&mut few), None);
        assert_eq!(few.len(), RECORDS_MIN - 1);
    }

    /// A few bytes that would become many are refused before they do.
    #[test]
    fn a_bomb_is_refused() {
        let stamp = Stamp {
            time: 1 << 60,
            id: [7; 16],
        };
        let entry = |number: u8| Entry {
            change: KeptChange::Key(Change {
                key: Key::from("bomb"),
                stamp: Some(stamp),
                value: Some(Value::bytes(vec![number; UNPACK_MAX / 4])),
            }),
            lane: 0,
            expires: None,
        };
        let packed = pack(&(0..8).map(entry).collect::<Vec<_>>());
        assert!(packed.len() < 1 << 16);
        assert_eq!(unpack_states(&packed), Err(Bad::Length));
        assert_eq!(unpack_states(&packed.slice(..9)), Err(Bad::Malformed));
        let mut long = states(20);
        long[0].record.value = Some(Value::bytes(vec![0; PACK_MAX]));
        assert_eq!(pack_states(&mut long), None);
    }
}
