//! Expected text in files under `tests/files`; `UPDATE_GOLDEN=1` writes them anew.

/// Compares with the file, line ends aside.
pub fn check(name: &str, found: &str) {
    let path = std::path::Path::new("tests/files").join(name);
    // Directories are shown from the root.
    let found = found.replace(env!("CARGO_MANIFEST_DIR"), "$HERE");
    let found: Vec<String> = found.trim_end().lines().map(unpadded).collect();
    let found = found.join("\n") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{} differs; UPDATE_GOLDEN=1 accepts this:\n{found}",
        path.display()
    );
}

/// How far comments are moved to the right depends on the directory's name.
fn unpadded(line: &str) -> String {
    match line.split_once("  // ") {
        Some((setting, comment)) => format!("{}  // {comment}", setting.trim_end()),
        None => line.to_owned(),
    }
}
