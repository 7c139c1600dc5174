//! A network namespace with one wire to this one, so that every byte between two routers is counted.

use std::{fs, process::Command};

/// A namespace and its wire. Gone when dropped.
#[derive(Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Our end of the wire.
    device: String,
    /// The address of our end.
    pub here: String,
}

impl Namespace {
    /// Makes one, or says why that cannot be done here.
    ///
    /// # Errors
    /// In words: who may not, or what is missing.
    pub fn new() -> Result<Self, String> {
        let id = std::process::id();
        let space = Self {
            name: format!("weir-{id}"),
            device: format!("weir{id}"),
            here: format!("10.231.{}.{}", id / 64 % 256, id % 64 * 4 + 1),
        };
        let there = format!("10.231.{}.{}", id / 64 % 256, id % 64 * 4 + 2);
        let (name, device) = (space.name.as_str(), space.device.as_str());
        let (here, there) = (format!("{}/30", space.here), format!("{there}/30"));
        ip(&["netns", "add", name])?;
        for step in [
            &[
                "link", "add", device, "type", "veth", "peer", "name", "wire", "netns", name,
            ][..],
            &["addr", "add", &here, "dev", device],
            &["link", "set", device, "up"],
            &["-n", name, "addr", "add", &there, "dev", "wire"],
            &["-n", name, "link", "set", "wire", "up"],
            &["-n", name, "link", "set", "lo", "up"],
        ] {
            ip(step)?;
        }
        Ok(space)
    }

    /// The bytes that have passed, both ways, with Ethernet, IP and TCP headers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        ["rx_bytes", "tx_bytes"]
            .map(|counter| {
                let path = format!("/sys/class/net/{}/statistics/{counter}", self.device);
                let text = fs::read_to_string(path).unwrap();
                text.trim().parse::<u64>().unwrap()
            })
            .iter()
            .sum()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The wire goes with either of its ends.
        let _ = ip(&["link", "del", &self.device]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let ended = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| {
            format!("`ip` cannot be run (Debian: apt-get install iproute2): {error}")
        })?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), said.trim()))
}
