//! Write-ahead logs: what is in no table yet.

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use weir_backend_api::{Error, Result};

use super::{Entry, bytes::Input, corrupt, manifest::Manifest, record::records};

/// Entries of the logs, by family.
#[derive(Debug, Default)]
pub struct Logged {
    /// Family -> entries in the order of a merge.
    pub entries: BTreeMap<u32, Vec<Entry>>,
    /// Where the logs are damaged: what comes later is not read.
    pub damage: Option<Error>,
}

/// Reads the logs that the manifest still needs. They are kept in memory: RocksDB cuts them at some
/// 64 MiB a family.
pub fn read(dir: &Path, manifest: &Manifest) -> Result<Logged> {
    let mut numbers = Vec::new();
    let unreadable = |e| Error::io(format!("cannot list {}", dir.display()), e);
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    let needed = manifest
        .families
        .values()
        .map(|family| family.log_min)
        .min();
    let mut logged = Logged::default();
    'logs: for number in numbers {
        if Some(number) < needed {
            continue;
        }
        let path = dir.join(format!("{number:06}.log"));
        for record in records(&path)? {
            let record = match record {
                Ok(record) => record,
                Err(damage) => {
                    logged.damage = Some(damage);
                    break 'logs;
                }
            };
            batch(&record, number, manifest, &mut logged.entries).ok_or_else(|| {
                corrupt(format!("a batch in {} is not understood", path.display()))
            })?;
        }
    }
    for entries in logged.entries.values_mut() {
        entries.sort_by(Entry::merge_order);
    }
    Ok(logged)
}

/// Reads a batch: sequence u64, number of writes u32, writes.
fn batch(
    bytes: &[u8],
    log: u64,
    manifest: &Manifest,
    entries: &mut BTreeMap<u32, Vec<Entry>>,
) -> Option<()> {
    let mut input = Input(bytes);
    let mut seq = input.fixed64()?;
    input.fixed32()?;
    while !input.0.is_empty() {
        let kind = input.byte()?;
        let family = match kind {
            4 | 5 | 8 => u32::try_from(input.varint()?).ok()?,
            _ => 0,
        };
        let key = match kind {
            0 | 1 | 4 | 5 | 7 | 8 => input.string()?.to_vec(),
            // What an application wrote beside its data.
            3 => {
                input.string()?;
                continue;
            }
            // Nothing.
            13 => continue,
            _ => return None,
        };
        let value = match kind {
            1 | 5 => Some(Bytes::copy_from_slice(input.string()?)),
            _ => None,
        };
        let is_needed = manifest
            .families
            .get(&family)
            .is_some_and(|family| log >= family.log_min);
        if is_needed {
            let entry = Entry { key, seq, value };
            entries.entry(family).or_default().push(entry);
        }
        seq += 1;
    }
    Some(())
}
