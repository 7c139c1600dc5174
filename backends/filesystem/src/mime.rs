//! The Zenoh encoding of a file that somebody put there by hand, guessed by its extension.

use weir_core::value::Encoding;

/// The encoding of a file with that path; `application/octet-stream` if the extension says nothing.
#[must_use]
pub fn guess(path: &str) -> Encoding {
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    Encoding::of_media_type(mime.essence_str())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn extensions_stand_for_zenoh_encodings() {
        for (path, id, schema) in [
            ("a/b.json", 5, None),
            ("b.HTML", 23, None),
            ("b.txt", 4, None),
            ("b", 3, None),
            ("b.pdf", Encoding::CUSTOM, Some("application/pdf")),
        ] {
            let schema = schema.map(Bytes::from);
            assert_eq!(guess(path), Encoding { id, schema }, "{path}");
        }
    }
}
