//! Keys and signatures in minisign's format: what `minisign -G` and `minisign -S` write.
//!
//! Verifying is [`crate::signature`]'s; routers need no more than that.

use std::io::Cursor;

use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use thiserror::Error;

/// Bytes at the end of a secret key.
const CHECKSUM_LEN: usize = 32;

/// Why nothing is signed.
#[derive(Debug, Error)]
pub enum SigningError {
    /// The text is no secret key.
    #[error("this is no minisign secret key: {0}")]
    Key(String),
    /// The key is locked and no password was given.
    #[error("the secret key is locked with a password, and none was given")]
    Locked,
    /// The password is another.
    #[error("the password does not unlock the secret key")]
    Password,
    /// Making a key or signature failed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

/// A new pair of keys, as the texts of their files.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// For whoever verifies.
    pub public: String,
    /// For whoever signs, and nobody else.
    pub secret: String,
}

/// Makes a pair of keys. A password locks the secret key; that takes a second and up to 1 GiB, which is
/// what makes guessing dear.
///
/// # Errors
/// [`SigningError::Sign`] if the system gives no randomness or memory.
pub fn generate(password: Option<String>) -> Result<Keys, SigningError> {
    let failed = |error: minisign::PError| SigningError::Sign(error.to_string());
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password)),
        None => KeyPair::generate_unencrypted_keypair(),
    };
    let pair = pair.map_err(failed)?;
    let comment = "minisign secret key";
    Ok(Keys {
        public: pair.pk.to_box().map_err(failed)?.into_string(),
        secret: pair.sk.to_box(Some(comment)).map_err(failed)?.into_string(),
    })
}

/// Signs a module: the text of `NAME.wasm.minisig`. `secret` is the text of a secret key's file;
/// `comment` is signed too and shown by routers.
///
/// # Errors
/// See [`SigningError`].
pub fn sign(
    bytes: &[u8],
    secret: &str,
    password: Option<String>,
    comment: &str,
) -> Result<String, SigningError> {
    let key = unlock(secret, password)?;
    let public = PublicKey::from_secret_key(&key).ok();
    let signed = minisign::sign(
        public.as_ref(),
        &key,
        Cursor::new(bytes),
        Some(comment),
        Some("signature from minisign secret key"),
    );
    let signed = signed.map_err(|error| SigningError::Sign(error.to_string()))?;
    Ok(signed.into_string())
}

/// Whether a secret key needs a password.
///
/// # Errors
/// [`SigningError::Key`] if it is none.
pub fn is_locked(secret: &str) -> Result<bool, SigningError> {
    match unlock(secret, None) {
        Ok(_) => Ok(false),
        Err(SigningError::Locked) => Ok(true),
        Err(error) => Err(error),
    }
}

fn unlock(secret: &str, password: Option<String>) -> Result<SecretKey, SigningError> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let wrong = |error: &dyn std::fmt::Display| SigningError::Key(error.to_string());
    let encoded = secret.trim().lines().next_back().unwrap_or_default();
    let bytes = STANDARD.decode(encoded.trim());
    let bytes = bytes.map_err(|error| wrong(&error))?;
    let boxed = || SecretKeyBox::from_string(secret).map_err(|error| wrong(&error));
    // Behind the two bytes of the signature's algorithm stands the one that makes a key of a password;
    // none if the key is not locked.
    let is_locked = bytes
        .get(2..4)
        .is_some_and(|derivation| derivation != [0, 0]);
    match (is_locked, password) {
        (true, None) => Err(SigningError::Locked),
        (true, Some(password)) => {
            let key = boxed()?.into_secret_key(Some(password));
            key.map_err(|_| SigningError::Password)
        }
        // minisign itself writes no checksum into a key that is not locked, which this crate would call
        // corrupt. What is wrong with such a key shows when its signature is verified.
        (false, _) if bytes.ends_with(&[0; CHECKSUM_LEN]) => {
            SecretKey::from_bytes(&bytes).map_err(|error| wrong(&error))
        }
        (false, _) => {
            let key = boxed()?.into_unencrypted_secret_key();
            key.map_err(|error| wrong(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{self, Key, SignatureError};
    use std::{
        fs,
        path::Path,
        process::{Command, Stdio},
    };

    fn verify(bytes: &[u8], signature: &str, public: &str) -> Result<String, SignatureError> {
        let keys = [Key::parse(public).unwrap()];
        let signer = signature::verify("geo", bytes, Some(&Ok(signature.into())), &keys);
        signer.map(|signer| signer.comment)
    }

    #[test]
    fn what_is_signed_here_is_verified_by_a_router() {
        let keys = generate(None).unwrap();
        assert!(!is_locked(&keys.secret).unwrap());
        let text = sign(b"module", &keys.secret, None, "released by ops").unwrap();
        assert_eq!(
            verify(b"module", &text, &keys.public).unwrap(),
            "released by ops"
        );
        assert!(verify(b"modulf", &text, &keys.public).is_err());
        for wrong in ["", "x", &keys.public] {
            let error = sign(b"module", wrong, None, "").unwrap_err();
            assert!(
                matches!(error, SigningError::Key(_) | SigningError::Locked),
                "{error}"
            );
        }
    }

    #[test]
    fn a_locked_key_signs_with_its_password_alone() {
        let keys = generate(Some("open".into())).unwrap();
        assert!(is_locked(&keys.secret).unwrap());
        let with = |password: Option<&str>| sign(b"m", &keys.secret, password.map(Into::into), "c");
        assert!(matches!(with(None), Err(SigningError::Locked)));
        assert!(matches!(with(Some("sesame")), Err(SigningError::Password)));
        assert_eq!(
            verify(b"m", &with(Some("open")).unwrap(), &keys.public).unwrap(),
            "c"
        );
    }

    /// Whatever else reads our files: minisign's own program.
    #[test]
    fn minisign_itself_agrees() {
        let minisign = |dir: &Path, args: &[&str]| {
            let mut command = Command::new("minisign");
            command.args(args).current_dir(dir).stdin(Stdio::null());
            command.output()
        };
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        if minisign(dir, &["-v"]).is_err() {
            // Named, so that nobody takes it for done.
            let mut stderr = std::io::stderr();
            let _ =
                std::io::Write::write_all(&mut stderr, b"skipped: no `minisign` program here\n");
            return;
        }
        let check = |args: &[&str]| {
            let output = minisign(dir, args).unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{args:?}: {text}");
        };
        fs::write(dir.join("geo.wasm"), b"module").unwrap();

        // Ours, verified by theirs; our key, used by theirs.
        let keys = generate(None).unwrap();
        fs::write(dir.join("our.pub"), &keys.public).unwrap();
        fs::write(dir.join("our.key"), &keys.secret).unwrap();
        let text = sign(b"module", &keys.secret, None, "by us").unwrap();
        fs::write(dir.join("geo.wasm.minisig"), text).unwrap();
        check(&["-V", "-p", "our.pub", "-m", "geo.wasm"]);
        check(&[
            "-S", "-W", "-s", "our.key", "-m", "geo.wasm", "-t", "by them",
        ]);
        let theirs = fs::read_to_string(dir.join("geo.wasm.minisig")).unwrap();
        assert_eq!(verify(b"module", &theirs, &keys.public).unwrap(), "by them");

        // Their key, used by ours.
        check(&["-G", "-W", "-p", "their.pub", "-s", "their.key"]);
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let text = sign(b"module", &read("their.key"), None, "by us").unwrap();
        assert_eq!(
            verify(b"module", &text, &read("their.pub")).unwrap(),
            "by us"
        );
        fs::write(dir.join("geo.wasm.minisig"), text).unwrap();
        check(&["-V", "-p", "their.pub", "-m", "geo.wasm"]);
    }
}
