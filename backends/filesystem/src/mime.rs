//! The Zenoh encoding of a file that somebody put there by hand, guessed by its extension.

use bytes::Bytes;
use weir_core::value::Encoding;

/// Zenoh's id for an encoding that it has no id for; the schema holds its name.
const CUSTOM: u16 = 0xFFFF;

/// Ids of the media types that Zenoh registers and that an extension can stand for
/// (`zenoh::bytes::Encoding`).
const REGISTERED: [(&str, u16); 26] = [
    ("application/octet-stream", 3),
    ("text/plain", 4),
    ("application/json", 5),
    ("text/json", 6),
    ("application/cbor", 8),
    ("application/yaml", 9),
    ("text/yaml", 10),
    ("text/json5", 11),
    ("image/png", 16),
    ("image/jpeg", 17),
    ("image/gif", 18),
    ("image/bmp", 19),
    ("image/webp", 20),
    ("application/xml", 21),
    ("text/html", 23),
    ("text/xml", 24),
    ("text/css", 25),
    ("text/javascript", 26),
    ("text/markdown", 27),
    ("text/csv", 28),
    ("application/sql", 29),
    ("application/mp4", 35),
    ("audio/aac", 38),
    ("audio/mp4", 40),
    ("audio/ogg", 41),
    ("video/mp4", 48),
];

/// The encoding of a file with that path; `application/octet-stream` if the extension says nothing.
#[must_use]
pub fn guess(path: &str) -> Encoding {
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    let name = mime.essence_str();
    REGISTERED
        .iter()
        .find(|(registered, _)| *registered == name)
        .map_or_else(
            || Encoding {
                id: CUSTOM,
                schema: Some(Bytes::copy_from_slice(name.as_bytes())),
            },
            |&(_, id)| Encoding { id, schema: None },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_stand_for_zenoh_encodings() {
        for (path, id, schema) in [
            ("a/b.json", 5, None),
            ("b.HTML", 23, None),
            ("b.txt", 4, None),
            ("b", 3, None),
            ("b.pdf", CUSTOM, Some("application/pdf")),
        ] {
            let schema = schema.map(Bytes::from);
            assert_eq!(guess(path), Encoding { id, schema }, "{path}");
        }
    }
}
