//! The keys of rows in RocksDB's byte order.

use weir_core::{
    change::Table,
    key::{Key, KeyRange},
    version::Version,
};

/// Ends a key in front of its versions; no key in ordered form holds it.
const END: u8 = 0;
/// The first byte of the rows about the database itself; no table has it.
const ABOUT: u8 = 0;

/// Where the database's format is written.
pub const FORMAT: &[u8] = &[ABOUT, b'f', b'o', b'r', b'm', b'a', b't'];

/// Appends the key of a row of `history`.
pub fn history(key: &Key, version: Version, out: &mut Vec<u8>) {
    key.order_into(out);
    out.push(END);
    out.extend_from_slice(&version.to_bytes());
}

/// Appends the key of a row of a table.
pub fn table(table: Table, key: &[u8], out: &mut Vec<u8>) {
    out.push(table as u8);
    out.extend_from_slice(key);
}

/// The first key behind all rows of a table.
pub const fn table_end(table: Table) -> [u8; 1] {
    [table as u8 + 1]
}

/// Splits a row of `history` into the key's ordered form and the version.
pub fn split_history(row: &[u8]) -> Option<(&[u8], Version)> {
    let (key, version) = row.split_at_checked(row.len().checked_sub(Version::LEN)?)?;
    let (&END, key) = key.split_last()? else {
        return None;
    };
    Some((key, Version::from_bytes(version)?))
}

/// The bounds of a range of keys in `history`, (from, to), as narrow as versions between two (both
/// inclusive) allow: in front of them there may be many rows that were dropped and are still in the way.
pub fn history_bounds(
    range: &KeyRange,
    versions: Option<(Version, Version)>,
) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut from = history_bound(&range.from);
    let mut to = range.to.as_deref().map(history_bound);
    if let Some((first, last)) = versions
        && !range.from.contains(&END)
    {
        from = seek_version(&range.from, first);
        let is_one = range.to.as_deref().and_then(<[u8]>::split_last);
        if is_one.is_some_and(|(end, key)| *end == END && key == range.from) {
            // Nothing lies between a row and the row with 0 behind it.
            to = Some([&*seek_version(&range.from, last), &[0]].concat());
        }
    }
    (from, to)
}

/// A bound of a key range as a bound of rows of `history`.
///
/// A bound that goes on with 0 behind a key means "behind this key"; so it must lie behind the
/// key's versions, which themselves go on with 0. The keys under it go on with 1 at least.
fn history_bound(bound: &[u8]) -> Vec<u8> {
    match bound.iter().position(|byte| *byte == END) {
        Some(at) => [&bound[..at], &[END + 1]].concat(),
        None => bound.to_vec(),
    }
}

/// Where the versions of the key (ordered form) from `version` on start.
pub fn seek_version(key: &[u8], version: Version) -> Vec<u8> {
    [key, &[END], &version.to_bytes()].concat()
}

/// In front of all versions of the key (ordered form), and behind all rows before them.
pub fn seek_before(key: &[u8]) -> Vec<u8> {
    [key, &[END]].concat()
}

/// Behind all versions of the key (ordered form).
pub fn seek_behind(key: &[u8]) -> Vec<u8> {
    [key, &[END + 1]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_core::version::Stamp;

    use super::*;

    fn any_key() -> impl Strategy<Value = Key> {
        "[a\u{0}\u{1}\u{2}/]{0,4}".prop_map(Key::new)
    }

    proptest! {
        #[test]
        fn history_bounds_hold_exactly_the_rows_of_the_keys(
            key in any_key(),
            bound in any_key(),
            time in 0..8_u64,
            times in (0..8_u64, 0..8_u64),
        ) {
            let version = Version::put(Stamp { time, id: [3; 16] }, time);
            let mut row = Vec::new();
            history(&key, version, &mut row);
            let ordered = key.ordered();
            prop_assert_eq!(split_history(&row), Some((ordered.as_slice(), version)));
            let ranges = [
                KeyRange::all(),
                KeyRange::only(&bound),
                KeyRange::under(&bound),
                KeyRange::all().after(&bound),
                KeyRange::all().before(&bound),
            ];
            for range in ranges {
                let (from, to) = history_bounds(&range, None);
                let inside = from <= row && to.is_none_or(|to| row < to);
                prop_assert_eq!(inside, range.contains(&ordered), "{:?}", range);
                let at = |time| Version::put(Stamp { time, id: [3; 16] }, time);
                let (first, last) = (at(times.0.min(times.1)), at(times.0.max(times.1)));
                let (from, to) = history_bounds(&range, Some((first, last)));
                let inside = from <= row && to.is_none_or(|to| row < to);
                let wanted = range.contains(&ordered) && first <= version && version <= last;
                prop_assert!(inside || !wanted, "{:?}", range);
                if range == KeyRange::only(&bound) {
                    prop_assert_eq!(inside, wanted, "{:?}", range);
                }
            }
        }
    }
}
