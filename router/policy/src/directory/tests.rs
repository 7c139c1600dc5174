use super::*;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{Condvar, Mutex},
};
use tempfile::TempDir;

/// Longer than any test: what is seen before was seen because of an event.
const NO_POLL: Duration = Duration::from_secs(3600);
/// Long enough for a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was told of a directory.
#[derive(Default, Debug)]
struct Known {
    files: BTreeMap<String, String>,
    told: Vec<String>,
    is_lost: bool,
    looks: usize,
}

struct Watched {
    root: TempDir,
    known: Arc<(Mutex<Known>, Condvar)>,
    directory: Option<Directory>,
}

impl Watched {
    /// Nothing is watched yet: `start` does.
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("policies")).unwrap();
        Self {
            root,
            known: Arc::default(),
            directory: None,
        }
    }

    fn watching() -> Self {
        let mut watched = Self::new();
        watched.start(NO_POLL, true);
        watched.wait(|known| known.looks > 0);
        watched
    }

    fn start(&mut self, poll: Duration, events: bool) {
        let known = Arc::clone(&self.known);
        let settings = DirectorySettings {
            dir: self.at(""),
            poll,
            events,
        };
        let tell = move |event| {
            let (known, changed) = &*known;
            known.lock().unwrap().take(event);
            changed.notify_all();
        };
        self.directory = Some(Directory::watch(settings, tell).unwrap());
    }

    fn at(&self, file: &str) -> PathBuf {
        self.root.path().join("policies").join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.at(file), text).unwrap();
    }

    fn wait(&self, until: impl Fn(&Known) -> bool) {
        let (known, changed) = &*self.known;
        let known = known.lock().unwrap();
        let (known, timeout) = changed
            .wait_timeout_while(known, PATIENCE, |known| !until(known))
            .unwrap();
        assert!(!timeout.timed_out(), "{known:?}");
    }

    /// Waits until these files are known, and no others.
    fn expect(&self, files: &[(&str, &str)]) {
        let files: BTreeMap<String, String> = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        self.wait(|known| known.files == files);
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.known.0.lock().unwrap().told)
    }
}

impl Known {
    fn take(&mut self, event: Event) {
        match event {
            Event::Present(dropped) => {
                let mut text = String::from_utf8(dropped.bytes.to_vec()).unwrap();
                match dropped.signature {
                    Some(Ok(signature)) => text += &format!(" signed {signature}"),
                    Some(Err(reason)) => text += &format!(" signature {reason}"),
                    None => {}
                }
                self.told.push(format!("{}: {text}", dropped.name));
                self.files.insert(dropped.name, text);
            }
            Event::Unreadable(name, reason) => {
                self.told.push(format!("{name}: {reason}"));
                self.files.insert(name, reason);
            }
            Event::Absent(name) => {
                self.told.push(format!("{name} is gone"));
                self.files.remove(&name);
            }
            Event::Looked(found) => {
                self.is_lost |= found.is_err();
                self.looks += 1;
            }
        }
    }
}

#[test]
fn tells_what_is_created_replaced_renamed_and_removed() {
    let watched = Watched::watching();
    let began = Instant::now();
    watched.write("geo.wasm", "one");
    watched.expect(&[("geo", "one")]);
    println!("seen after {:?}", began.elapsed());
    watched.write("geo.wasm", "two");
    watched.expect(&[("geo", "two")]);
    watched.write("new", "three");
    fs::rename(watched.at("new"), watched.at("geo.wasm")).unwrap();
    watched.expect(&[("geo", "three")]);
    fs::rename(watched.at("geo.wasm"), watched.at("far.wasm")).unwrap();
    watched.expect(&[("far", "three")]);
    fs::remove_file(watched.at("far.wasm")).unwrap();
    watched.expect(&[]);
}

#[test]
fn a_file_that_is_still_written_to_is_waited_for() {
    let watched = Watched::watching();
    let whole: String = (0..20).map(|n| format!("part {n}, ")).collect();
    for end in (0..whole.len()).step_by(9).chain([whole.len()]) {
        fs::write(watched.at("geo.wasm"), &whole[..end]).unwrap();
        std::thread::sleep(SETTLE / 5);
    }
    watched.expect(&[("geo", &whole)]);
    // A pause of the writer's that is longer than we wait shows a part; the rest is seen as well.
    watched.write("geo.wasm", "half");
    watched.expect(&[("geo", "half")]);
    watched.write("geo.wasm", "half and half");
    watched.expect(&[("geo", "half and half")]);
}

#[test]
fn a_file_that_was_there_before_is_told_at_the_first_look() {
    let mut watched = Watched::new();
    watched.write("geo.wasm", "one");
    watched.start(NO_POLL, true);
    watched.expect(&[("geo", "one")]);
    watched.wait(|known| known.looks > 0);
}

#[test]
fn a_burst_of_a_hundred_files_is_told_whole_and_once_each() {
    let watched = Watched::watching();
    // Moved into place: a writer that is held up half-way would show a part.
    for n in 0..100 {
        watched.write("part", &format!("module {n}"));
        fs::rename(watched.at("part"), watched.at(&format!("p{n}.wasm"))).unwrap();
    }
    watched.wait(|known| known.files.len() == 100);
    let mut told = watched.told();
    told.sort();
    let mut expected: Vec<_> = (0..100).map(|n| format!("p{n}: module {n}")).collect();
    expected.sort();
    assert_eq!(told, expected);
    for n in 0..100 {
        fs::remove_file(watched.at(&format!("p{n}.wasm"))).unwrap();
    }
    watched.expect(&[]);
}

#[test]
fn follows_the_link_that_kubernetes_swaps() {
    let watched = Watched::watching();
    let publish = |version: &str, text: &str| {
        fs::create_dir(watched.at(version)).unwrap();
        fs::write(watched.at(version).join("geo.wasm"), text).unwrap();
        symlink(version, watched.at("..data_tmp")).unwrap();
        fs::rename(watched.at("..data_tmp"), watched.at("..data")).unwrap();
    };
    publish("..2026_1", "one");
    symlink("..data/geo.wasm", watched.at("geo.wasm")).unwrap();
    watched.expect(&[("geo", "one")]);
    publish("..2026_2", "two");
    fs::remove_dir_all(watched.at("..2026_1")).unwrap();
    watched.expect(&[("geo", "two")]);
    assert!(!watched.told().contains(&"geo is gone".to_owned()));
}

#[test]
fn follows_links_to_files_elsewhere() {
    let watched = Watched::watching();
    let elsewhere = TempDir::new().unwrap();
    let file = elsewhere.path().join("build.wasm");
    symlink(&file, watched.at("geo.wasm")).unwrap();
    watched.write("far.wasm", "far");
    watched.expect(&[("far", "far")]);
    // An author's build makes the file, and makes it again.
    fs::write(&file, "one").unwrap();
    watched.expect(&[("far", "far"), ("geo", "one")]);
    fs::write(&file, "two").unwrap();
    watched.expect(&[("far", "far"), ("geo", "two")]);
    fs::remove_file(&file).unwrap();
    watched.expect(&[("far", "far")]);
}

#[test]
fn a_directory_that_vanishes_takes_nothing_with_it() {
    let watched = Watched::watching();
    watched.write("geo.wasm", "one");
    watched.write("far.wasm", "one");
    watched.expect(&[("geo", "one"), ("far", "one")]);
    watched.told();
    fs::rename(watched.at(""), watched.root.path().join("away")).unwrap();
    watched.wait(|known| known.is_lost);
    // What is written where it was moved to is no longer ours.
    fs::write(watched.root.path().join("away/geo.wasm"), "other").unwrap();
    fs::create_dir(watched.at("")).unwrap();
    watched.write("geo.wasm", "two");
    watched.expect(&[("geo", "two")]);
    let told = watched.told();
    assert!(!told.contains(&"geo is gone".to_owned()), "{told:?}");
    assert!(!told.contains(&"geo: other".to_owned()), "{told:?}");
    // The new directory is watched as the old one was.
    watched.write("geo.wasm", "three");
    watched.expect(&[("geo", "three")]);
}

#[test]
fn a_directory_that_is_a_link_can_be_swapped() {
    let mut watched = Watched::new();
    let root = watched.root.path();
    for (version, text) in [("v1", "one"), ("v2", "two")] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("geo.wasm"), text).unwrap();
    }
    fs::remove_dir(watched.at("")).unwrap();
    let link = root.join("policies");
    symlink("v1", &link).unwrap();
    watched.start(NO_POLL, true);
    watched.expect(&[("geo", "one")]);
    symlink("v2", watched.root.path().join("next")).unwrap();
    fs::rename(watched.root.path().join("next"), &link).unwrap();
    watched.expect(&[("geo", "two")]);
}

#[test]
fn polls_where_no_events_come() {
    let mut watched = Watched::new();
    watched.start(Duration::from_millis(20), false);
    watched.write("geo.wasm", "one");
    watched.expect(&[("geo", "one")]);
    // The same length, within one tick of the file system's clock.
    watched.write("geo.wasm", "two");
    watched.expect(&[("geo", "two")]);
    fs::remove_dir_all(watched.at("")).unwrap();
    watched.wait(|known| known.is_lost);
    fs::create_dir(watched.at("")).unwrap();
    watched.write("far.wasm", "three");
    watched.expect(&[("far", "three")]);
}

#[test]
fn a_signature_is_told_with_its_module() {
    let watched = Watched::watching();
    watched.write("geo.wasm", "one");
    watched.expect(&[("geo", "one")]);
    watched.write("geo.wasm.minisig", "by me");
    watched.expect(&[("geo", "one signed by me")]);
    fs::remove_file(watched.at("geo.wasm.minisig")).unwrap();
    watched.expect(&[("geo", "one")]);
    fs::create_dir(watched.at("geo.wasm.minisig")).unwrap();
    let reason = "one signature cannot be read: it is no regular file";
    watched.expect(&[("geo", reason)]);
}

#[test]
fn what_cannot_be_read_is_told_and_holds_up_nothing() {
    let watched = Watched::watching();
    fs::create_dir(watched.at("dir.wasm")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(watched.at("pipe.wasm"))
        .status();
    assert!(made.unwrap().success());
    let long = fs::File::create(watched.at("long.wasm")).unwrap();
    long.set_len(scan::MODULE_BYTES_MAX + 1).unwrap();
    symlink("loop.wasm", watched.at("loop.wasm")).unwrap();
    watched.write("geo.wasm", "one");
    let irregular = "cannot be read: it is no regular file";
    let long = format!(
        "cannot be read: it has more than {} bytes",
        scan::MODULE_BYTES_MAX
    );
    let looping = "cannot be read: Too many levels of symbolic links (os error 40)";
    watched.expect(&[
        ("dir", irregular),
        ("pipe", irregular),
        ("long", &long),
        ("loop", looping),
        ("geo", "one"),
    ]);
}

#[test]
fn other_files_are_left_alone() {
    let watched = Watched::watching();
    for file in [
        "README.md",
        ".geo.wasm",
        "a b.wasm",
        "x.wasm.swp",
        ".wasm",
        "gone.wasm~",
    ] {
        watched.write(file, "no policy");
    }
    watched.write("geo-2.0_x.wasm", "one");
    watched.expect(&[("geo-2.0_x", "one")]);
    assert_eq!(watched.told(), ["geo-2.0_x: one"]);
}

#[test]
fn notes_are_whole_are_swept_and_wake_nobody() {
    let watched = Watched::watching();
    watched.write("geo.wasm", "one");
    watched.expect(&[("geo", "one")]);
    let note = |name: &str| fs::read_to_string(watched.at(&format!("{name}.wasm.error"))).ok();
    let mut notes = Notes::new(watched.at(""));
    let looks = watched.known.0.lock().unwrap().looks;
    notes.write("geo", "bad");
    notes.write("far", "worse");
    notes.write("geo", "bad again");
    assert_eq!(note("geo").as_deref(), Some("bad again"));
    notes.sweep(|name| name == "geo");
    assert_eq!((note("geo").is_some(), note("far")), (true, None));
    notes.clear("geo");
    notes.clear("geo");
    assert_eq!(note("geo"), None);
    // A later event is seen after all earlier ones: had a note woken the watcher, it would have
    // looked by now more often than for the file alone (once when it comes, once when it settled).
    watched.write("far.wasm", "two");
    watched.expect(&[("geo", "one"), ("far", "two")]);
    let after = watched.known.0.lock().unwrap().looks;
    assert!(after - looks <= 4, "{looks} looks, then {after}");
    // A directory that cannot be written to is no reason to fail.
    Notes::new(Path::new("/proc/self/fdinfo").into()).write("geo", "bad");
}
