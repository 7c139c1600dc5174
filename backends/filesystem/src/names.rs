//! Which file holds a key, and which key a file holds.
//!
//! As in the stock backend: the key's chunks are the file's path below the storage's directory, the
//! root key is the file `@root`, and a key that is also a directory of others has [`CONFLICT`] behind
//! its name (no key expression can hold a `#`). Unlike there, a key that no file can be named after
//! has no path, and its payload stays in the sidecar.

use weir_core::key::Key;

/// The directory of all that is not a value.
pub const SIDECAR: &str = ".weir";
/// The same of the stock backend.
pub const STOCK_SIDECAR: &str = ".zenoh_datainfo";
/// The file of the root key.
pub const ROOT: &str = "@root";
/// Behind the name of a file whose key is also a directory.
pub const CONFLICT: &str = ".##z";

/// Longest name of a file on any usual file system, less the suffix.
const CHUNK_MAX: usize = 255 - CONFLICT.len();
/// Longest path below the storage's directory: PATH_MAX less a generous storage directory.
const PATH_MAX: usize = 3_000;

/// The path of the key's file below the storage's directory; `None` if no file can be named so.
#[must_use]
pub fn path_of(key: &Key) -> Option<&str> {
    if key.is_empty() {
        return Some(ROOT);
    }
    let first = key.split('/').next().unwrap_or_default();
    let plain = key.len() <= PATH_MAX
        && !matches!(first, SIDECAR | STOCK_SIDECAR | ROOT)
        && key.split('/').all(is_plain);
    plain.then_some(&**key)
}

/// The chunk that a file or directory is named after, and whether the name has the suffix of a
/// conflict; `None` if it is not the name of a chunk.
#[must_use]
pub fn chunk_of(name: &str) -> Option<(&str, bool)> {
    let (chunk, conflict) = name
        .strip_suffix(CONFLICT)
        .map_or((name, false), |chunk| (chunk, true));
    is_plain(chunk).then_some((chunk, conflict))
}

/// Whether a file or directory can be named so. What no key expression can hold is left out, so that
/// the suffix is never part of a chunk.
fn is_plain(chunk: &str) -> bool {
    !matches!(chunk, "" | "." | "..")
        && chunk.len() <= CHUNK_MAX
        && !chunk.contains(['\0', '#', '?', '$', '*', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_stock_backends_paths_where_a_file_can_be_named_so() {
        let long = "x".repeat(CHUNK_MAX);
        let longer = "x".repeat(CHUNK_MAX + 1);
        for (key, path) in [
            ("a/b.json", Some("a/b.json")),
            ("", Some("@root")),
            ("a/.weir", Some("a/.weir")),
            ("a b/é", Some("a b/é")),
            (&long, Some(&*long)),
            (&longer, None),
            (".weir", None),
            (".weir/index", None),
            (".zenoh_datainfo/x", None),
            ("@root", None),
            ("a/../b", None),
            (".", None),
            ("a//b", None),
            ("/a", None),
            ("a.##z", None),
            ("a\0", None),
        ] {
            assert_eq!(path_of(&Key::from(key)), path, "{key:?}");
        }
    }

    #[test]
    fn a_name_gives_its_chunk_back() {
        for (name, chunk) in [
            ("a", Some(("a", false))),
            ("a.##z", Some(("a", true))),
            (".##z", None),
            ("a#b", None),
        ] {
            assert_eq!(chunk_of(name), chunk, "{name:?}");
        }
    }
}
