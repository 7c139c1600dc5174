//! Who the router is when its settings do not say: an id that is drawn once and kept in `data_dir/id`,
//! so that its mirrors and its upstreams know it again after a restart.
//!
//! Beside it stands a hash of the machine's names. Where they are others, the directory is a copy, as a
//! machine made from an image has one: two routers of one id cannot talk to each other, so it draws anew.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use xxhash_rust::xxh3::xxh3_64;

/// The id in `data_dir`, or a new one, which is durable there when this returns.
///
/// # Errors
/// If the file cannot be read or written, or is not an id.
pub(crate) fn of(data_dir: &Path) -> io::Result<uhlc::ID> {
    at(data_dir, &machine())
}

fn at(data_dir: &Path, machine: &str) -> io::Result<uhlc::ID> {
    let path = data_dir.join("id");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let mut words = text.split_whitespace();
            let id = words.next().and_then(|id| id.parse().ok());
            let Some(id) = id else {
                let why = "not a router's id; remove it, and a new one is drawn";
                return Err(io::Error::other(format!("{}: {why}", path.display())));
            };
            if words.next() == Some(machine) {
                return Ok(id);
            }
            tracing::warn!(
                old = %id,
                file = %path.display(),
                "the data directory comes from another machine: this router takes a new id; \
                 to keep the old one, set `id`"
            );
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = uhlc::ID::rand();
    fs::create_dir_all(data_dir)?;
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    writeln!(file, "{id} {machine}")?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(data_dir)?.sync_all()?;
    Ok(id)
}

/// What stands for this machine: its host name, and its machine id where it has one.
fn machine() -> String {
    let names = ["/proc/sys/kernel/hostname", "/etc/machine-id"];
    let names: String = names
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    format!("{:016x}", xxh3_64(names.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use super::*;

    #[test]
    fn an_id_is_drawn_once_for_a_directory_and_a_machine() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = at(&data, "here").unwrap();
        assert_eq!(at(&data, "here").unwrap(), first);
        let copy = at(&data, "elsewhere").unwrap();
        assert_ne!(copy, first);
        assert_eq!(at(&data, "elsewhere").unwrap(), copy);
        fs::write(data.join("id"), "no id!").unwrap();
        let error = at(&data, "here").unwrap_err().to_string();
        assert!(
            error.ends_with("remove it, and a new one is drawn"),
            "{error}"
        );
    }
}
