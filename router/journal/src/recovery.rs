//! Opening a journal that is there: closed segments say by their footer what they hold; one that was not
//! closed is read through, its torn end is cut, and it gets its footer.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use bytes::Bytes;
use weir_core::{change::KeptChange, ledger::Item, version::Stamp};

use crate::{
    block::{Block, Damage, Head, MAGIC, Row},
    calendar::{Slot, Sums, slot_of},
    error::{JournalError, Result, is_bad_medium, is_no_room},
    files,
    lost::LostList,
    moves,
    options::{Damaged, Recovery, one},
    segment::{self, HEADER_LEN, Header, Info, SUMS_LEN, TRAILER_LEN, Trailer, Unlike},
    state::{Segment, Slots, State},
};

/// What is found in a segment that is read through.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) blocks: Vec<Info>,
    pub(crate) sums: BTreeMap<Slot, Sums>,
    pub(crate) damaged: Vec<Damaged>,
    /// Where the last whole block ends.
    pub(crate) end: u64,
    /// Bytes behind it that are no block.
    pub(crate) tail: u64,
}

/// Fills the state from a directory, and repairs what can be.
///
/// # Errors
/// If the directory cannot be read or a file is of a later version of the format.
pub(crate) fn recover(state: &mut State, files: &dyn files::Files) -> Result<Recovery> {
    let dir = state.options.dir.clone();
    let mut recovery = Recovery::default();
    moves::finish(&dir, files, &mut recovery)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).map_err(JournalError::io(&dir))? {
        let name = entry.map_err(JournalError::io(&dir))?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(files::UNFINISHED) {
            files::remove(&dir.join(name)).map_err(JournalError::io(dir.join(name)))?;
        } else if let Some(parsed) = files::parse_name(name) {
            names.push(parsed);
        } else if let Some(aside) = name.strip_suffix(files::DAMAGED)
            && let Some((_, id)) = files::parse_name(aside)
        {
            // Its segment may be gone; another one of this name would be taken for it.
            state.next_segment = state.next_segment.max(id + 1);
        }
    }
    names.sort_unstable();
    read_lost(state, &dir, files, &mut recovery)?;
    for (lane, id) in names {
        match take_over(state, (lane, id), files, &mut recovery) {
            // One bad place on the disk costs its segment, not the journal.
            Err(JournalError::Io { path, source }) if is_bad_medium(&source) => {
                let damaged = Damaged {
                    file: files::name_of(lane, id),
                    offset: 0,
                    bytes: fs::metadata(path).map_or(0, |it| it.len()),
                    head: None,
                    why: format!("it cannot be read ({source}) and is left as it is"),
                };
                // What it holds is not known. It is tried again when the journal is opened.
                state.damaged.push(damaged.clone());
                recovery.damaged.push(damaged);
                state.next_segment = state.next_segment.max(id + 1);
            }
            other => other?,
        }
    }
    Ok(recovery)
}

/// Reads a segment through. What cannot be read in the middle is damage, what cannot be read at the end
/// is torn, unless a whole block lies there.
pub(crate) fn scan(bytes: &Bytes, name: &str, lane: u8, id: u64) -> Scan {
    let mut scan = Scan::default();
    let mut at = HEADER_LEN.min(bytes.len());
    scan.end = at as u64;
    while at < bytes.len() {
        let why = match read(&bytes.slice(at..), lane, id, &mut scan.sums) {
            Ok(block) => {
                scan.blocks.push(Info {
                    offset: at as u64,
                    head: block.head,
                });
                at += len_of(&block.head);
                scan.end = at as u64;
                continue;
            }
            Err(damage) => damage,
        };
        let head = Head::decode(&bytes[at..])
            .ok()
            .filter(|head| is_of(head, id));
        let next = (at + 1..bytes.len()).find(|next| is_block(bytes, *next, id));
        let whole = head
            .map(|head| at + len_of(&head))
            .filter(|end| *end <= bytes.len());
        let Some(end) = next.or(whole) else {
            scan.tail = (bytes.len() - at) as u64;
            break;
        };
        scan.damaged.push(Damaged {
            file: name.to_owned(),
            offset: at as u64,
            bytes: (end - at) as u64,
            head,
            why: why.to_string(),
        });
        at = end;
        scan.end = at as u64;
    }
    scan
}

/// Opens a block and adds it to the sums.
fn read(
    bytes: &Bytes,
    lane: u8,
    id: u64,
    sums: &mut BTreeMap<Slot, Sums>,
) -> Result<Block, Damage> {
    let block = Block::open(bytes)?;
    if !is_of(&block.head, id) {
        return Err(Damage("the block is of another segment"));
    }
    let rows: Vec<Row> = block.rows(lane).collect::<Result<_, _>>()?;
    let gone = block.gone(lane)?;
    for row in rows {
        let (stamp, hash) = counted(&row.entry.change);
        let sums = sums.entry(slot_of(&stamp)).or_default();
        sums.all += hash.map(one).unwrap_or_default();
        sums.kept += 1;
    }
    for (slot, gone) in gone {
        sums.entry(slot).or_default().all += gone;
    }
    Ok(block)
}

/// The stamp of a change, and the hash that stands for it in sums; an operation is in no sum.
pub(crate) fn counted(change: &KeptChange) -> (Stamp, Option<u128>) {
    match change {
        KeptChange::Key(change) => {
            let stamp = change.stamp.unwrap_or(Stamp::ZERO);
            let item = Item {
                key: change.key.clone(),
                version: change.version(stamp),
                merged: 0,
            };
            (stamp, Some(item.hash()))
        }
        KeptChange::Wildcard(change) => (change.stamp.unwrap_or(Stamp::ZERO), None),
    }
}

fn is_of(head: &Head, id: u64) -> bool {
    u64::from(head.segment) == id & u64::from(u32::MAX)
}

fn len_of(head: &Head) -> usize {
    usize::try_from(head.len()).unwrap_or(usize::MAX / 2)
}

fn is_block(bytes: &Bytes, at: usize, id: u64) -> bool {
    bytes[at..].starts_with(&MAGIC)
        && Block::open(&bytes.slice(at..)).is_ok_and(|block| is_of(&block.head, id))
}

fn read_lost(
    state: &mut State,
    dir: &Path,
    files: &dyn files::Files,
    recovery: &mut Recovery,
) -> Result<()> {
    let path = dir.join(files::LOST);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(JournalError::io(&path))?,
    };
    match LostList::decode(&bytes) {
        Ok(lost) => {
            state.lost = lost;
            return Ok(());
        }
        Err(Unlike::Version(version)) => return Err(JournalError::Version { path, version }),
        Err(Unlike::Damaged) => {}
    }
    let aside = format!("{}{}", files::LOST, files::DAMAGED);
    recovery.repaired.push(format!(
        "the list of what was given up is damaged; it was set aside as {aside}, and begins anew"
    ));
    match files::replace(files, dir, &aside, &bytes) {
        Err(error) if !is_no_room(&error) => Err(JournalError::io(dir.join(aside))(error)),
        _ => Ok(()),
    }
}

/// Takes over a file.
fn take_over(
    state: &mut State,
    (lane, id): (u8, u64),
    files: &dyn files::Files,
    recovery: &mut Recovery,
) -> Result<()> {
    let dir = state.options.dir.clone();
    let name = files::name_of(lane, id);
    let path = dir.join(&name);
    let io = JournalError::io(&path);
    let file = File::open(&path).map_err(JournalError::io(&path))?;
    let len = file.metadata().map_err(JournalError::io(&path))?.len();
    let unlike = |unlike| match unlike {
        Unlike::Damaged => None,
        Unlike::Version(version) => Some(JournalError::Version {
            path: path.clone(),
            version,
        }),
    };
    let header = match read_at(&file, 0, HEADER_LEN.min(usize_of(len))) {
        Ok(bytes) => Header::decode(&bytes),
        Err(error) => return Err(io(error)),
    };
    let header = match header {
        Ok(header) => Some(header),
        Err(other) => {
            if let Some(error) = unlike(other) {
                return Err(error);
            }
            None
        }
    };
    let aside = offsets_aside(&dir, &name);
    state.aside.extend(aside.iter().map(|offset| (id, *offset)));
    if header.is_some_and(|header| header.lane == lane && header.id == id)
        && let Some((trailer, sums)) = read_footer(&file, len).map_err(JournalError::io(&path))?
    {
        let mut segment = Segment::new(id, trailer.first);
        segment.thinned_to = header
            .filter(|header| header.is_coalesced)
            .map_or(0, |header| header.id);
        segment.bytes = len;
        segment.end = trailer.end;
        segment.appended = u64::from(trailer.appended) << 32;
        segment.has_operations = trailer.has_operations;
        segment.ranked = trailer.ranked;
        segment.blocks = None;
        set_slots(&mut segment, &sums);
        recovery.records += segment.records();
        recovery.segments += 1;
        recovery.bytes += len;
        state.adopt(lane, segment, &sums, trailer.mark);
        return Ok(());
    }
    match read_at(
        &file,
        len.saturating_sub(TRAILER_LEN as u64),
        TRAILER_LEN.min(usize_of(len)),
    ) {
        Ok(bytes) => {
            if let Some(error) = Trailer::decode(&bytes).err().and_then(unlike) {
                return Err(error);
            }
        }
        Err(error) => return Err(JournalError::io(&path)(error)),
    }
    let bytes = Bytes::from(fs::read(&path).map_err(JournalError::io(&path))?);
    if header.is_none() && bytes.len() >= HEADER_LEN {
        recovery.repaired.push(format!(
            "the header of {name} is damaged; its name says what it said"
        ));
    }
    let found = scan(&bytes, &name, lane, id);
    recovery.scanned += 1;
    rebuild(state, (lane, id), &bytes, found, files, recovery)
}

/// Makes a closed segment of one that was read through.
fn rebuild(
    state: &mut State,
    (lane, id): (u8, u64),
    bytes: &Bytes,
    found: Scan,
    files: &dyn files::Files,
    recovery: &mut Recovery,
) -> Result<()> {
    let name = files::name_of(lane, id);
    let path = state.options.dir.join(&name);
    if found.tail > 0 {
        recovery.torn.push((name.clone(), found.tail));
    }
    if found.blocks.is_empty() && found.damaged.is_empty() {
        state.next_segment = state.next_segment.max(id + 1);
        return files::remove(&path).map_err(JournalError::io(&path));
    }
    let first = found.blocks.first().map_or(0, |info| info.head.first);
    let mut segment = Segment::new(id, first);
    segment.end = found.blocks.last().map_or(first, |info| info.head.end());
    let latest = found
        .blocks
        .iter()
        .map(|info| info.head.appended)
        .max()
        .unwrap_or(0);
    segment.appended = u64::from(latest) << 32;
    segment.has_operations = found.blocks.iter().any(|info| info.head.operations > 0);
    let sums: Vec<(Slot, Sums)> = found
        .sums
        .iter()
        .map(|(slot, sums)| (*slot, *sums))
        .collect();
    set_slots(&mut segment, &sums);
    let header = Header {
        lane,
        is_coalesced: false,
        id,
        first,
    };
    let mark = found
        .blocks
        .iter()
        .map(|info| info.head.mark)
        .max()
        .unwrap_or(0);
    let ends = (segment.first, segment.end);
    let footer = segment::footer(found.sums.iter(), &found.blocks, found.end, ends, 0);
    segment.bytes = found.end;
    segment.blocks = Some(found.blocks);
    recovery.segments += 1;
    recovery.records += segment.records();
    state.adopt(lane, segment, &sums, mark);
    for damaged in found.damaged {
        let part = bytes.slice(usize_of(damaged.offset)..usize_of(damaged.offset + damaged.bytes));
        state.set_aside(lane, id, damaged.clone(), part);
        recovery.damaged.push(damaged);
    }
    // Who finds the footer looks no further: what is damaged has to be known before.
    let written = note_damage(state, files);
    match written.and_then(|()| write_end(&path, &header, found.end, &footer)) {
        // It is read all the same, and gets its footer another time.
        Err(error) if is_no_room(&error) => {}
        // It can be read. A disk that does not take what is written is no bad place in it.
        Err(error) => {
            let why = format!("{}: {error}", path.display());
            return Err(JournalError::Poisoned { why });
        }
        Ok(()) => state.ended(lane, id, footer.len() as u64),
    }
    let segment = state.lane(lane).segments.get(&id);
    recovery.bytes += segment.map_or(0, |segment| segment.bytes);
    Ok(())
}

/// Has the disk know of what was set aside: first that it is lost, then what it was.
fn note_damage(state: &mut State, files: &dyn files::Files) -> io::Result<()> {
    let dir = state.options.dir.clone();
    if let Some(bytes) = state.lost.take_changes() {
        files::replace(files, &dir, files::LOST, &bytes)
            .inspect_err(|_| state.lost.keep_changes())?;
    }
    for (damaged, bytes) in std::mem::take(&mut state.unwritten_aside) {
        keep_aside(&dir, &damaged, &bytes);
    }
    Ok(())
}

/// Sets what a segment has of which second, and by that from when to when it goes.
pub(crate) fn set_slots(segment: &mut Segment, sums: &[(Slot, Sums)]) {
    for ((_, second), _) in sums.iter().filter(|(_, sums)| sums.kept > 0) {
        let from = u64::from(*second) << 32;
        segment.earliest = segment.earliest.min(from);
        segment.latest = segment.latest.max(from | u64::from(u32::MAX));
    }
    segment.slots = Slots::Closed(sums.iter().map(|(slot, sums)| (*slot, sums.kept)).collect());
}

/// What a closed segment says of itself.
pub(crate) type Footer = (Trailer, Vec<(Slot, Sums)>);

/// The trailer and the sums of a file; `None` if it has none that can be trusted.
pub(crate) fn read_footer(file: &File, len: u64) -> io::Result<Option<Footer>> {
    let Some(trailer) = read_trailer(file, len)? else {
        return Ok(None);
    };
    let sums = read_at(file, trailer.blocks_end, trailer.sums as usize * SUMS_LEN)?;
    let sums = segment::read_sums(&Bytes::from(sums), &trailer);
    Ok(sums.ok().map(|sums| (trailer, sums)))
}

pub(crate) fn read_trailer(file: &File, len: u64) -> io::Result<Option<Trailer>> {
    if len < (HEADER_LEN + TRAILER_LEN) as u64 {
        return Ok(None);
    }
    let bytes = read_at(file, len - TRAILER_LEN as u64, TRAILER_LEN)?;
    Ok(Trailer::decode(&bytes)
        .ok()
        .filter(|trailer| trailer.file_len() == len))
}

pub(crate) fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

pub(crate) fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Cuts a file behind its blocks and appends a footer. The header is written again: it may be damaged.
fn write_end(path: &Path, header: &Header, end: u64, footer: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&header.encode(), 0)?;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    let written = file.write_all(footer);
    if written.is_err() {
        file.set_len(end)?;
    }
    file.sync_data()?;
    written
}

/// Appends a damaged block to the file beside its segment: offset u64, length u32, bytes. A disk that is
/// full or broken takes nothing; the block is still in its segment then.
pub(crate) fn keep_aside(dir: &Path, damaged: &Damaged, bytes: &[u8]) {
    let path = dir.join(format!("{}{}", damaged.file, files::DAMAGED));
    let mut out = damaged.offset.to_le_bytes().to_vec();
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
    let file = OpenOptions::new().create(true).append(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(&out));
}

/// Where the blocks of a segment began that were set aside earlier.
fn offsets_aside(dir: &Path, name: &str) -> HashSet<u64> {
    let Ok(bytes) = fs::read(dir.join(format!("{name}{}", files::DAMAGED))) else {
        return HashSet::new();
    };
    let mut cursor = crate::varint::Cursor::new(Bytes::from(bytes));
    let mut offsets = HashSet::new();
    while let (Some(offset), Some(len)) = (cursor.u64(), cursor.u32()) {
        offsets.insert(offset);
        if cursor.take(len as usize).is_none() {
            break;
        }
    }
    offsets
}
