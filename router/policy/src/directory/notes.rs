//! `NAME.wasm.error`: why a file is refused, beside the file, for whoever has just copied it there.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Writes the notes of one directory.
#[derive(Debug)]
pub struct Notes {
    dir: PathBuf,
    is_told: bool,
}

impl Notes {
    /// For the directory `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            is_told: false,
        }
    }

    /// Says why `NAME.wasm` is refused. If the directory cannot be written to, the log says so once;
    /// the status tells the reason in any case.
    pub fn write(&mut self, name: &str, text: &str) {
        if let Err(error) = self.try_write(name, text) {
            self.tell(&error);
        }
    }

    /// The file was accepted, or is gone.
    pub fn clear(&mut self, name: &str) {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.tell(&error),
            _ => {}
        }
    }

    /// Removes the notes of files that are not there any more.
    pub fn sweep(&mut self, is_there: impl Fn(&str) -> bool) {
        // A directory that cannot be read is told by whoever looks for modules in it.
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        for entry in entries.flatten() {
            let file = entry.file_name();
            let name = file
                .to_str()
                .and_then(|file| file.strip_suffix(".wasm.error"));
            if let Some(name) = name.filter(|name| !is_there(name)) {
                self.clear(name);
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.wasm.error"))
    }

    /// Whoever reads the note reads all of it.
    fn try_write(&self, name: &str, text: &str) -> io::Result<()> {
        let part: &Path = &self.dir.join(format!(".{name}.wasm.error.tmp"));
        let mut file = File::create(part)?;
        file.write_all(text.as_bytes())?;
        drop(file);
        fs::rename(part, self.path(name))
    }

    fn tell(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_told, true) {
            let dir = self.dir.display();
            tracing::warn!(%dir, %error, "no notes can be left beside refused policies");
        }
    }
}
