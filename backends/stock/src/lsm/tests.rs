//! Databases written by RocksDB itself (`tests/fixtures/lsm/make.py`), read back.

use std::{collections::BTreeMap, fs};

use tempfile::TempDir;

use super::*;

const FAMILIES: [&str; 2] = ["default", "data_info"];

/// Family and key -> value.
type Model = BTreeMap<(String, String), String>;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lsm")
}

fn expected(dir: &Path) -> Model {
    let text = fs::read_to_string(dir.join("expected")).unwrap();
    let rows = text.lines().map(|line| {
        let fields: Vec<_> = line.split('\t').collect();
        let [family, key, step, len] = fields[..] else {
            panic!("{line:?} in {}", dir.display());
        };
        let value = format!("{step}-{}", "v".repeat(len.parse().unwrap()));
        ((family.to_owned(), key.to_owned()), value)
    });
    rows.collect()
}

fn read(lsm: &Lsm) -> (Model, Vec<Error>) {
    let mut model = Model::new();
    let mut errors = Vec::new();
    for family in FAMILIES {
        for row in lsm.rows(family).unwrap() {
            match row {
                Ok((key, value)) => {
                    let key = (family.to_owned(), String::from_utf8(key).unwrap());
                    let value = String::from_utf8(value.to_vec()).unwrap();
                    assert_eq!(model.insert(key, value), None, "a key came twice");
                }
                Err(error) => errors.push(error),
            }
        }
    }
    (model, errors)
}

fn listing(dir: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let file = entry.metadata().unwrap();
            (entry.path(), file.len(), file.modified().unwrap())
        })
        .collect();
    files.sort();
    files
}

/// A copy of a fixture that a test may damage.
fn copy(name: &str) -> TempDir {
    let temp = TempDir::new().unwrap();
    for (path, ..) in listing(&fixtures().join(name)) {
        fs::copy(&path, temp.path().join(path.file_name().unwrap())).unwrap();
    }
    temp
}

#[test]
fn reads_what_rocksdb_wrote() {
    let mut dirs = vec![fixtures().join("seed-1"), fixtures().join("seed-2")];
    if let Some(more) = std::env::var_os("WEIR_LSM_FIXTURES") {
        dirs.extend(listing(Path::new(&more)).into_iter().map(|(path, ..)| path));
    }
    for dir in dirs {
        let before = listing(&dir);
        let mut lsm = Lsm::open(&dir).unwrap();
        assert!(lsm.take_damage().is_none());
        let (model, errors) = read(&lsm);
        assert!(errors.is_empty(), "{}: {errors:?}", dir.display());
        let expected = expected(&dir);
        assert!(model == expected, "{} differs", dir.display());
        let len: u64 = FAMILIES.iter().map(|family| lsm.len(family).unwrap()).sum();
        assert!(len >= expected.len() as u64);
        assert_eq!(listing(&dir), before, "the directory was changed");
    }
}

#[test]
fn any_flipped_bit_of_a_table_is_told_and_what_it_left_is_read() {
    let whole = expected(&fixtures().join("seed-1"));
    let temp = copy("seed-1");
    let tables = listing(temp.path());
    let mut tables = tables
        .iter()
        .filter(|(path, ..)| path.extension().is_some_and(|e| e == "sst"));
    let (table, ..) = tables.next().unwrap();
    let bytes = fs::read(table).unwrap();
    for at in (0..bytes.len()).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        fs::write(table, damaged).unwrap();
        let (model, errors) = read(&Lsm::open(temp.path()).unwrap());
        // Where only a search would look, or in the properties that are not needed, nothing is lost.
        assert!(!errors.is_empty() || model == whole, "flipped at {at}");
        assert!(
            errors
                .iter()
                .all(|error| error.kind() == ErrorKind::Corrupt)
        );
    }
}

#[test]
fn a_log_ends_with_its_last_whole_batch() {
    let whole = expected(&fixtures().join("seed-1"));
    let temp = copy("seed-1");
    let logs = listing(temp.path());
    let mut logs = logs
        .iter()
        .filter(|(path, ..)| path.extension().is_some_and(|e| e == "log"));
    let (log, ..) = logs.next_back().unwrap();
    let bytes = fs::read(log).unwrap();
    for cut in [bytes.len() - 1, bytes.len() / 2, 3, 0] {
        fs::write(log, &bytes[..cut]).unwrap();
        let mut lsm = Lsm::open(temp.path()).unwrap();
        assert!(lsm.take_damage().is_none(), "torn after {cut} bytes");
        let (model, errors) = read(&lsm);
        assert!(errors.is_empty());
        assert!(model != whole, "torn after {cut} bytes");
        assert!(model.len() > 300);
    }
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(log, damaged).unwrap();
    let mut lsm = Lsm::open(temp.path()).unwrap();
    let damage = lsm.take_damage().unwrap();
    assert_eq!(damage.kind(), ErrorKind::Corrupt);
    assert!(read(&lsm).0.len() > 300);
}

#[test]
fn what_is_no_database_is_refused() {
    let dir = TempDir::new().unwrap();
    let kind = |dir: &Path| Lsm::open(dir).unwrap_err().kind();
    assert_eq!(kind(dir.path()), ErrorKind::Unavailable);
    fs::write(dir.path().join("CURRENT"), "MANIFEST-000001\n").unwrap();
    let manifest = dir.path().join("MANIFEST-000001");
    fs::write(manifest, "something else, that is long enough").unwrap();
    assert_eq!(kind(dir.path()), ErrorKind::Corrupt);
}

#[test]
fn a_database_that_is_open_elsewhere_is_refused() {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };
    let temp = copy("seed-1");
    // As RocksDB does it; a lock of this process would not count.
    let script = "import fcntl, sys\n\
                  file = open(sys.argv[1], 'r+')\n\
                  fcntl.lockf(file, fcntl.LOCK_EX)\n\
                  print('locked', flush=True)\n\
                  sys.stdin.read()\n";
    let mut other = Command::new("python3")
        .args(["-c", script])
        .arg(temp.path().join("LOCK"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = other.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    let error = Lsm::open(temp.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("stop the router"), "{error}");
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    Lsm::open(temp.path()).unwrap();
}
