//! The space that is left for flushes and compactions when commits are refused.

use std::path::{Path, PathBuf};

use weir_backend_api::{Error, ErrorKind, Result};

/// Keeps a part of a disk free.
pub struct Reserve {
    dir: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// `bytes` of the disk that `dir` is on, an eighth of the disk at most.
    pub fn new(dir: &Path, bytes: u64) -> Result<Self> {
        let stat = stat(dir)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            bytes: bytes.min(stat.f_blocks.saturating_mul(stat.f_frsize) / 8),
        })
    }

    /// Whether the reserve is untouched. One system call, about a microsecond.
    pub fn check(&self) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let stat = stat(&self.dir)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= self.bytes {
            return Ok(());
        }
        let message = format!(
            "the disk of {} is full: {free} bytes left, {} are kept free",
            self.dir.display(),
            self.bytes
        );
        Err(Error::new(ErrorKind::Full, message))
    }
}

fn stat(dir: &Path) -> Result<rustix::fs::StatVfs> {
    rustix::fs::statvfs(dir).map_err(|error| {
        let message = format!("cannot tell the free space of {}", dir.display());
        Error::io(message, error.into())
    })
}
