//! The manifest: which tables and logs a database consists of, as a list of changes.

use std::{collections::BTreeMap, fs, path::Path};

use weir_backend_api::{Error, Result};

use super::{bytes::Input, corrupt, record::records};

/// What the database consists of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Manifest {
    /// Column families by number.
    pub families: BTreeMap<u32, Family>,
}

/// A column family.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// Logs below this number are in the tables already.
    pub log_min: u64,
    /// Level and number of each table -> its smallest user key.
    pub tables: BTreeMap<(u64, u64), Vec<u8>>,
}

/// One change of the list.
#[derive(Debug, Default)]
struct Edit {
    family: u32,
    added: Option<String>,
    dropped: bool,
    log_min: Option<u64>,
    new_tables: Vec<((u64, u64), Vec<u8>)>,
    old_tables: Vec<(u64, u64)>,
    /// Edits of the same group that follow; a group counts only whole.
    group_left: Option<u64>,
}

impl Manifest {
    /// Reads the current manifest of a database.
    pub fn read(dir: &Path) -> Result<Self> {
        let current = dir.join("CURRENT");
        let name = fs::read_to_string(&current);
        let name = name.map_err(|e| Error::io(format!("cannot read {}", current.display()), e))?;
        let path = dir.join(name.trim_end());
        let mut manifest = Self::default();
        let family = Family {
            name: "default".into(),
            ..Family::default()
        };
        manifest.families.insert(0, family);
        let mut group = Vec::new();
        let records = records(&path)?;
        if records.is_empty() {
            return Err(corrupt(format!("{} is no manifest", path.display())));
        }
        for record in records {
            let edit = Edit::decode(&record?)
                .ok_or_else(|| corrupt(format!("{} is not understood", path.display())))?;
            let left = edit.group_left.unwrap_or(0);
            group.push(edit);
            if left == 0 {
                for edit in group.drain(..) {
                    manifest.apply(edit);
                }
            }
        }
        Ok(manifest)
    }

    fn apply(&mut self, edit: Edit) {
        if edit.dropped {
            self.families.remove(&edit.family);
            return;
        }
        if let Some(name) = edit.added {
            let family = self.families.entry(edit.family).or_default();
            family.name = name;
        }
        // An edit of a family that was dropped changes nothing.
        let Some(family) = self.families.get_mut(&edit.family) else {
            return;
        };
        for table in edit.old_tables {
            family.tables.remove(&table);
        }
        family.tables.extend(edit.new_tables);
        if let Some(log_min) = edit.log_min {
            family.log_min = family.log_min.max(log_min);
        }
    }
}

impl Edit {
    /// Reads an edit; `None` if it holds what is not known here.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let mut edit = Self::default();
        while !input.0.is_empty() {
            match input.varint()? {
                // Comparator.
                1 => {
                    if input.string()? != b"leveldb.BytewiseComparator" {
                        return None;
                    }
                }
                2 => edit.log_min = Some(input.varint()?),
                // Next file, last sequence, previous log, lowest log kept, highest family.
                3 | 4 | 9 | 10 | 203 => {
                    input.varint()?;
                }
                // Where a compaction goes on.
                5 => {
                    input.varint()?;
                    input.string()?;
                }
                6 => edit.old_tables.push((input.varint()?, input.varint()?)),
                103 => edit.new_tables.push(new_table(&mut input)?),
                200 => edit.family = u32::try_from(input.varint()?).ok()?,
                201 => edit.added = Some(String::from_utf8(input.string()?.to_vec()).ok()?),
                202 => edit.dropped = true,
                300 => edit.group_left = Some(input.varint()?),
                // All from here on have their length before them, so that they can be passed over.
                // The four excepted (blob files and logs in their first form) were never released.
                8194..=8197 => return None,
                tag if tag >= 8192 => {
                    input.string()?;
                }
                _ => return None,
            }
        }
        Some(edit)
    }
}

/// A table's level, number and smallest user key.
fn new_table(input: &mut Input<'_>) -> Option<((u64, u64), Vec<u8>)> {
    let table = (input.varint()?, input.varint()?);
    let _bytes = input.varint()?;
    let smallest = input.string()?;
    let smallest = smallest.get(..smallest.len().checked_sub(8)?)?.to_vec();
    let _largest = input.string()?;
    let _sequences = (input.varint()?, input.varint()?);
    loop {
        match input.varint()? {
            1 => return Some((table, smallest)),
            // Blob files, or a table in another directory: no stock storage has them.
            4 => return None,
            tag if tag >= 64 => return None,
            _ => {
                input.string()?;
            }
        }
    }
}
