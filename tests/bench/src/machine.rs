//! The machine that a table is about.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};

/// Processor, cores, memory, kernel, and the disk under `dir`, in one line.
pub fn describe(dir: &Path) -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "{}, {cores} cores, {} GiB, Linux {}, {}",
        field(&cpu, "model name").unwrap_or("unknown processor"),
        gibibytes(&memory).unwrap_or_default(),
        kernel.trim(),
        disk(dir)?,
    ))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn gibibytes(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemTotal")?
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some((kib + 512 * 1024) / (1024 * 1024))
}

/// File system, device and kind of the disk that holds `dir`.
fn disk(dir: &Path) -> Result<String> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("find {}", dir.display()))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let Some(mount) = mount_of(&mounts, &dir) else {
        return Ok("unknown disk".to_owned());
    };
    let rotates = fs::read_to_string(format!("/sys/dev/block/{}/queue/rotational", mount.device));
    let kind = match rotates.as_deref().map(str::trim) {
        // A virtual disk says whatever its host was told to.
        Ok(_) if mount.source.starts_with("/dev/vd") => "virtual disk",
        Ok("0") => "solid state disk",
        Ok("1") => "spinning disk",
        _ if mount.system == "tmpfs" => "memory",
        _ => "unknown kind of disk",
    };
    Ok(format!("{} on {} ({kind})", mount.system, mount.source))
}

#[derive(Debug, PartialEq)]
struct Mount {
    device: String,
    system: String,
    source: String,
}

/// The mount that a path lies on, from the lines of proc_pid_mountinfo(5): the longest mount
/// point that the path starts with, and the later of two equal ones, which covers the earlier.
fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mut found = BTreeMap::new();
    for line in mountinfo.lines() {
        let (front, back) = line.split_once(" - ")?;
        let front: Vec<&str> = front.split(' ').collect();
        let mut back = back.split(' ');
        let point = *front.get(4)?;
        if path.starts_with(point) {
            found.insert(
                point.len(),
                Mount {
                    device: (*front.get(2)?).to_owned(),
                    system: back.next()?.to_owned(),
                    source: back.next()?.to_owned(),
                },
            );
        }
    }
    found.pop_last().map(|(_, mount)| mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts() {
        let mounts =
            "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:5 / /tmp rw shared:1 - tmpfs tmpfs rw\n";
        let system = |path: &str| mount_of(mounts, Path::new(path)).map(|mount| mount.system);
        assert_eq!(system("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(system("/tmpx").as_deref(), Some("ext4"));
        assert_eq!(
            mount_of(mounts, Path::new("/home")).unwrap().device,
            "254:0"
        );
    }

    #[test]
    fn this_machine_can_be_named() {
        let text = describe(&std::env::temp_dir()).unwrap();
        assert!(text.contains("Linux"), "{text}");
    }
}
