//! Who vouches for a module: detached minisign signatures.
//!
//! A signature is `NAME.wasm.minisig` beside `NAME.wasm`, as `minisign -S -m NAME.wasm` writes it.

use std::{fmt, fs, path::Path};

use minisign_verify::{PublicKey, Signature};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What becomes of modules that nobody vouches for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SignatureMode {
    /// Signatures are not looked at.
    #[default]
    Off,
    /// They serve, and the log and the status say so.
    Warn,
    /// They are refused: what is not signed is not run.
    Require,
}

/// A public key.
#[derive(Clone)]
pub struct Key {
    key: PublicKey,
    id: String,
    comment: String,
}

/// Who signed a module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signer {
    /// The key's id as minisign prints it: 16 hexadecimal digits.
    pub key_id: String,
    /// The comment in the key's file: what the operator calls it.
    pub key_comment: String,
    /// What the signer has said and signed with the module; a time and the file's name by default.
    pub comment: String,
}

/// Why nobody vouches for a module.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SignatureError {
    /// There is no signature.
    #[error("there is no {name}.wasm.minisig beside it")]
    Missing {
        /// The policy.
        name: String,
    },
    /// There is a file, and no signature in it.
    #[error("{name}.wasm.minisig is no minisign signature: {reason}")]
    Unreadable {
        /// The policy.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is signed with a key that is not trusted here.
    #[error("it is signed with key {key_id}, which is not in `policies.keys`")]
    Stranger {
        /// The key's id.
        key_id: String,
    },
    /// The signature belongs to other bytes.
    #[error("the signature of key {key_id} does not fit: the module or the signature was changed")]
    Forged {
        /// The key's id.
        key_id: String,
    },
}

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key file: {0}")]
    File(#[from] std::io::Error),
    /// There is no key in it.
    #[error("this is no minisign public key: {0}")]
    Format(String),
}

impl Key {
    /// Reads a key: the text of a `.pub` file, or its second line alone.
    ///
    /// # Errors
    /// [`KeyError::Format`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let key = match text.contains('\n') {
            true => PublicKey::decode(text),
            false => PublicKey::from_base64(text),
        };
        let key = key.map_err(|error| KeyError::Format(error.to_string()))?;
        let comment = key.untrusted_comment().unwrap_or_default();
        let comment = comment.trim_start_matches("untrusted comment:").trim();
        let encoded = text.lines().next_back().unwrap_or_default();
        Ok(Self {
            id: key_id(encoded).unwrap_or_default(),
            comment: comment.to_owned(),
            key,
        })
    }

    /// Reads a key from a file.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        Self::parse(&fs::read_to_string(path)?)
    }

    /// Its id: 16 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// Who vouches for `bytes`. `signature` is the text of the signature's file. Costs a BLAKE2b hash of
/// the bytes and one check of a curve.
///
/// # Errors
/// See [`SignatureError`].
pub fn verify(
    name: &str,
    bytes: &[u8],
    signature: Option<&Result<String, String>>,
    keys: &[Key],
) -> Result<Signer, SignatureError> {
    let name = || name.to_owned();
    let unreadable = |reason: String| SignatureError::Unreadable {
        name: name(),
        reason,
    };
    let text = match signature {
        None => return Err(SignatureError::Missing { name: name() }),
        Some(Err(reason)) => return Err(unreadable(reason.clone())),
        Some(Ok(text)) => text,
    };
    let signature = Signature::decode(text).map_err(|error| unreadable(error.to_string()))?;
    let id = text.lines().nth(1).and_then(key_id).unwrap_or_default();
    let Some(key) = keys.iter().find(|key| key.id == id) else {
        return Err(SignatureError::Stranger { key_id: id });
    };
    // Signatures over the bytes themselves instead of their hash are older than minisign 0.10; they
    // are as good.
    match key.key.verify(bytes, &signature, true) {
        Ok(()) => Ok(Signer {
            key_id: id,
            key_comment: key.comment.clone(),
            comment: signature.trusted_comment().to_owned(),
        }),
        Err(_) => Err(SignatureError::Forged { key_id: id }),
    }
}

/// The id in a key or a signature: bytes 2 to 10, printed as a little-endian number.
fn key_id(encoded: &str) -> Option<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let bytes = STANDARD.decode(encoded.trim()).ok()?;
    let id: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
    Some(format!("{:016X}", u64::from_le_bytes(id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisign::KeyPair;
    use std::io::Cursor;

    fn sign(pair: &KeyPair, bytes: &[u8], comment: &str) -> String {
        let signed = minisign::sign(None, &pair.sk, Cursor::new(bytes), Some(comment), None);
        signed.unwrap().into_string()
    }

    fn key(pair: &KeyPair) -> Key {
        Key::parse(&pair.pk.to_box().unwrap().into_string()).unwrap()
    }

    #[test]
    fn vouches_for_what_a_trusted_key_has_signed_and_for_nothing_else() {
        let (ours, other) = (
            KeyPair::generate_unencrypted_keypair().unwrap(),
            KeyPair::generate_unencrypted_keypair().unwrap(),
        );
        let keys = [key(&other), key(&ours)];
        let good = sign(&ours, b"module", "released by ops");
        let id = keys[1].id().to_owned();
        let check = |bytes: &[u8], signature: Option<&str>, keys: &[Key]| {
            let signature = signature.map(|text| Ok(text.to_owned()));
            verify("geo", bytes, signature.as_ref(), keys)
        };
        let signer = check(b"module", Some(&good), &keys).unwrap();
        assert_eq!(
            (&signer.key_id, signer.comment.as_str()),
            (&id, "released by ops")
        );

        let forged = SignatureError::Forged { key_id: id.clone() };
        assert_eq!(check(b"modulf", Some(&good), &keys), Err(forged.clone()));
        let said_otherwise = good.replace("released by ops", "released by me");
        assert_eq!(check(b"module", Some(&said_otherwise), &keys), Err(forged));
        let stranger = SignatureError::Stranger { key_id: id };
        assert_eq!(check(b"module", Some(&good), &keys[..1]), Err(stranger));
        let missing = SignatureError::Missing { name: "geo".into() };
        assert_eq!(check(b"module", None, &keys), Err(missing));
        for text in ["", "x\ny\nz", &good[..good.len() / 2]] {
            let found = check(b"module", Some(text), &keys);
            assert!(
                matches!(found, Err(SignatureError::Unreadable { .. })),
                "{text:?}: {found:?}"
            );
        }
    }

    #[test]
    fn reads_keys_with_and_without_their_comment() {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let (file, line) = (pair.pk.to_box().unwrap().into_string(), pair.pk.to_base64());
        let (from_file, from_line) = (Key::parse(&file).unwrap(), Key::parse(&line).unwrap());
        assert_eq!(from_file.id(), from_line.id());
        assert!(Key::parse("RWQ").is_err());
        assert!(Key::read(Path::new("/nonexistent.pub")).is_err());
    }

    /// Made by minisign 0.11 over `module`, and printed beside it: key 7C7FE0F11E06FEBE.
    const KEY: &str = "untrusted comment: minisign public key 7C7FE0F11E06FEBE
RWS+/gYe8eB/fKK6jqMn/fc3/RfYDFs9n5YuIkEUPiSt6QEn6x0phj+O
";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUS+/gYe8eB/fF05nZGl0Xoje+xpUIdLEjM/UXKlajDQBiwbOQ0IE8nTFLhdBiEh1vmbnqLLJngeGJGse1JjKy66XVC1CE2NuQY=
trusted comment: released by ops
JnbLBQh1+t2x3gM2yueK0RXaT2OMyfLwQCO/PVIxPZ7aGqeKunV6i0DcbMn9qSlJ8auJT0CVY7Ym9k6zGrXEBg==
";
    /// As minisign wrote them before 0.10: over the bytes and not over their hash.
    const SIGNATURE_OLD: &str = "untrusted comment: signature from minisign secret key
RWS+/gYe8eB/fH+1fOTdw/IOmnICDpQfXOEf2miCMCHJDbI+C6jdNQ5FNm1zW4e/cNwfLGExFUYD3Z8rrFdPK5eBB3/JvCIXDQc=
trusted comment: old
lPdLJ2v011/VmOTpksExSl2rz78qCqxH5c9Ox2M8L+B9l7bMKMkJpVTRFEl3zHZAJOV4ehrk/hbowHHj6hQkAw==
";

    #[test]
    fn reads_what_minisign_itself_writes() {
        let keys = [Key::parse(KEY).unwrap()];
        for (text, comment) in [(SIGNATURE, "released by ops"), (SIGNATURE_OLD, "old")] {
            let signer = verify("geo", b"module", Some(&Ok(text.into())), &keys).unwrap();
            let expected = Signer {
                key_id: "7C7FE0F11E06FEBE".into(),
                key_comment: "minisign public key 7C7FE0F11E06FEBE".into(),
                comment: comment.into(),
            };
            assert_eq!(signer, expected);
        }
    }
}
