//! The flags that set something: zenohd's, under their own names, and ours.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum, ValueHint};
use serde_json::{Value, json};
use weir_settings::{Defaults, Flag, Layers};

/// What is linked into the program, where zenohd would load a library.
const BUILT_IN: [&str; 2] = ["storage_manager", "rest"];

/// Flags that set something. Later layers win: defaults, files, `WEIR_...` variables, flags.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings")]
pub struct SettingsArgs {
    /// Configuration file (json5, json, yaml, toml); may be repeated, a later one overrides
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "WEIR_CONFIG",
        hide_env_values = true,
        value_hint = ValueHint::FilePath
    )]
    pub config: Vec<PathBuf>,

    /// Endpoint to listen on, such as tcp/0.0.0.0:7447; may be repeated
    #[arg(short, long, value_name = "ENDPOINT")]
    pub listen: Vec<String>,

    /// Endpoint of a router or peer to connect to; may be repeated
    #[arg(short = 'e', long, value_name = "ENDPOINT")]
    pub connect: Vec<String>,

    /// Zenoh id, hexadecimal, unique in the network [default: random]
    #[arg(short, long, value_name = "ID")]
    pub id: Option<String>,

    /// Any setting: its path and a JSON5 value; an empty path is the whole configuration
    ///
    /// --cfg 'storages/demo:{key_expr:"demo/**",volume:"memory"}'
    #[arg(long, value_name = "PATH:VALUE")]
    pub cfg: Vec<String>,

    /// REST server: a port, an IPv4 address and a port, or `none`
    #[arg(long, value_name = "SOCKET")]
    pub rest_http_port: Option<String>,

    /// What may be done in the admin space
    #[arg(long, value_enum, value_name = "PERMISSIONS")]
    pub adminspace_permissions: Option<Permissions>,

    /// Do not stamp what comes without a timestamp
    #[arg(long)]
    pub no_timestamp: bool,

    /// Do not answer multicast scouting
    #[arg(long)]
    pub no_multicast_scouting: bool,

    /// Directory for data for which no other directory is named
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// Metrics and health server: an address and a port, a port, or `none`
    #[arg(long, value_name = "SOCKET")]
    pub http_listen: Option<String>,

    /// zenohd's flag for a plugin to load: storage_manager and rest are built in, others cannot be
    #[arg(short = 'P', long, value_name = "NAME[:PATH]")]
    pub plugin: Vec<String>,

    /// zenohd's flag for where plugins are: without effect
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub plugin_search_dir: Vec<PathBuf>,
}

/// Permissions on the admin space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Permissions {
    /// Read
    R,
    /// Write
    W,
    /// Read and write
    Rw,
    /// Neither
    None,
}

impl SettingsArgs {
    /// The layers to load. `env` is [`process_env`].
    ///
    /// With no configuration at all the embedded defaults hold: a storage on everything.
    pub fn layers(&self, env: Vec<(String, String)>) -> Result<Layers> {
        let flags = self.flags()?;
        let configured = !self.config.is_empty()
            || flags
                .iter()
                .any(|flag| sets_storages(&flag.path.to_lowercase()))
            || env
                .iter()
                .filter_map(|(name, _)| name.strip_prefix("WEIR_"))
                .any(|path| sets_storages(&path.to_lowercase().replace("__", "/")));
        let defaults = if configured {
            Defaults::Minimal
        } else {
            Defaults::Embedded
        };
        Ok(Layers {
            defaults,
            files: self.config.clone(),
            env,
            flags,
        })
    }

    /// What to tell about flags that do not do what they do in zenohd.
    pub fn remarks(&self) -> Vec<String> {
        let built_in = BUILT_IN.join(" and ");
        let mut remarks: Vec<String> = self
            .plugin
            .iter()
            .map(|plugin| {
                let name = plugin
                    .split_once(':')
                    .map_or(plugin.as_str(), |(name, _)| name);
                if BUILT_IN.contains(&name) {
                    format!("--plugin {plugin}: {name} is built in, nothing is loaded")
                } else {
                    format!("--plugin {plugin}: not loaded; built in are {built_in}")
                }
            })
            .collect();
        if !self.plugin_search_dir.is_empty() {
            remarks.push(format!(
                "--plugin-search-dir: no library is loaded; built in are {built_in}"
            ));
        }
        remarks
    }

    /// In zenohd's order: a `--cfg` of the whole configuration stands in for a file, the flags
    /// override it, and `--cfg` of single settings overrides the flags.
    fn flags(&self) -> Result<Vec<Flag>> {
        let cfg = self
            .cfg
            .iter()
            .map(|text| Flag::cfg(text).map_err(|told| anyhow!("{told}")))
            .collect::<Result<Vec<Flag>>>()?;
        let (whole, single): (Vec<Flag>, Vec<Flag>) =
            cfg.into_iter().partition(|flag| flag.path.is_empty());
        Ok([whole, self.named_flags(), single].concat())
    }

    fn named_flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut set = |path: &str, value: Value, shown: String| {
            flags.push(Flag::new(path, value, &shown));
        };
        if let Some(id) = &self.id {
            set("id", json!(id), format!("--id {id}"));
        }
        if !self.listen.is_empty() {
            let shown = format!("--listen {}", self.listen.join(" --listen "));
            set("listen/endpoints", json!(self.listen), shown);
        }
        if !self.connect.is_empty() {
            let shown = format!("--connect {}", self.connect.join(" --connect "));
            set("connect/endpoints", json!(self.connect), shown);
        }
        match self.rest_http_port.as_deref() {
            Some("none") => set("rest", json!(false), "--rest-http-port none".to_owned()),
            Some(socket) => {
                let shown = format!("--rest-http-port {socket}");
                set("rest/http_port", json!(socket), shown);
            }
            None => {}
        }
        if let Some(permissions) = self.adminspace_permissions {
            let value = json!({ "read": permissions.read(), "write": permissions.write() });
            let shown = "--adminspace-permissions".to_owned();
            set("adminspace/enabled", json!(true), shown.clone());
            set("adminspace/permissions", value, shown);
        }
        if self.no_timestamp {
            set(
                "timestamping/enabled",
                json!(false),
                "--no-timestamp".to_owned(),
            );
        }
        if self.no_multicast_scouting {
            let shown = "--no-multicast-scouting".to_owned();
            set("scouting/multicast/enabled", json!(false), shown);
        }
        if let Some(dir) = &self.data_dir {
            set(
                "data_dir",
                json!(dir),
                format!("--data-dir {}", dir.display()),
            );
        }
        match self.http_listen.as_deref() {
            Some("none") => set("http", json!(false), "--http-listen none".to_owned()),
            Some(socket) => set(
                "http/listen",
                json!(socket),
                format!("--http-listen {socket}"),
            ),
            None => {}
        }
        flags
    }
}

/// The process environment. A variable that is not UTF-8 is no setting of ours.
pub fn process_env() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Permissions {
    fn read(self) -> bool {
        matches!(self, Self::R | Self::Rw)
    }

    fn write(self) -> bool {
        matches!(self, Self::W | Self::Rw)
    }
}

/// Whether a setting says what is stored, so that nothing must be stored unasked.
fn sets_storages(path: &str) -> bool {
    path.is_empty()
        || ["storages", "volumes", "plugins"]
            .iter()
            .any(|root| path == *root || path.starts_with(&format!("{root}/")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: SettingsArgs,
    }

    fn parse(line: &[&str]) -> SettingsArgs {
        Cli::try_parse_from(std::iter::once(&"run").chain(line))
            .unwrap()
            .args
    }

    #[test]
    fn zenohd_s_flags_set_what_they_set_in_zenohd() {
        type Row<'r> = (&'r [&'r str], &'r [(&'r str, Value)]);
        let rows: [Row<'_>; 14] = [
            (&[], &[]),
            (&["-i", "ab12"], &[("id", json!("ab12"))]),
            (
                &["-l", "tcp/[::]:7447", "--listen", "udp/[::]:7447"],
                &[(
                    "listen/endpoints",
                    json!(["tcp/[::]:7447", "udp/[::]:7447"]),
                )],
            ),
            (
                &["-e", "tcp/a:1"],
                &[("connect/endpoints", json!(["tcp/a:1"]))],
            ),
            (
                &["--rest-http-port", "8000"],
                &[("rest/http_port", json!("8000"))],
            ),
            (&["--rest-http-port", "none"], &[("rest", json!(false))]),
            (
                &["--adminspace-permissions", "rw"],
                &[
                    ("adminspace/enabled", json!(true)),
                    (
                        "adminspace/permissions",
                        json!({"read": true, "write": true}),
                    ),
                ],
            ),
            (
                &["--adminspace-permissions", "none"],
                &[
                    ("adminspace/enabled", json!(true)),
                    (
                        "adminspace/permissions",
                        json!({"read": false, "write": false}),
                    ),
                ],
            ),
            (
                &["--no-timestamp"],
                &[("timestamping/enabled", json!(false))],
            ),
            (
                &["--no-multicast-scouting"],
                &[("scouting/multicast/enabled", json!(false))],
            ),
            (&["--data-dir", "/d"], &[("data_dir", json!("/d"))]),
            (
                &["--http-listen", "0.0.0.0:9"],
                &[("http/listen", json!("0.0.0.0:9"))],
            ),
            (&["-P", "rest", "--plugin-search-dir", "/lib"], &[]),
            (
                &["--cfg", "id:'cd'", "-i", "ab", "--cfg", ":{mode:'peer'}"],
                &[
                    ("", json!({"mode": "peer"})),
                    ("id", json!("ab")),
                    ("id", json!("cd")),
                ],
            ),
        ];
        for (line, expected) in rows {
            let flags = parse(line).flags().unwrap();
            let set: Vec<(&str, Value)> = flags
                .iter()
                .map(|flag| (flag.path.as_str(), flag.value.clone()))
                .collect();
            assert_eq!(set, expected, "{line:?}");
        }
    }

    #[test]
    fn a_wrong_flag_is_refused() {
        for line in [&["--adminspace-permissions", "x"][..], &["--id"], &["-Z"]] {
            assert!(
                Cli::try_parse_from(std::iter::once(&"run").chain(line)).is_err(),
                "{line:?}"
            );
        }
        assert!(parse(&["--cfg", "no colon"]).flags().is_err());
    }

    #[test]
    fn nothing_is_stored_unasked_once_anything_says_what_to_store() {
        type Row<'r> = (&'r [&'r str], &'r [(&'r str, &'r str)], Defaults);
        let rows: [Row<'_>; 6] = [
            (&[], &[("PATH", "/bin")], Defaults::Embedded),
            (
                &["-l", "tcp/[::]:1"],
                &[("WEIR_ID", "ab")],
                Defaults::Embedded,
            ),
            (&["-c", "a.json5"], &[], Defaults::Minimal),
            (&["--cfg", "storages/a:{}"], &[], Defaults::Minimal),
            (&["--cfg", ":{}"], &[], Defaults::Minimal),
            (
                &[],
                &[("WEIR_STORAGES__a__VOLUME", "memory")],
                Defaults::Minimal,
            ),
        ];
        for (line, env, expected) in rows {
            let env = env
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            assert_eq!(
                parse(line).layers(env).unwrap().defaults,
                expected,
                "{line:?}"
            );
        }
    }

    #[test]
    fn plugins_are_remarked_upon() {
        let remarks = parse(&[
            "-P",
            "rest",
            "-P",
            "webserver:/x.so",
            "--plugin-search-dir",
            "/lib",
        ])
        .remarks();
        assert_eq!(remarks.len(), 3);
        assert!(remarks[0].contains("rest is built in"), "{remarks:?}");
        assert!(remarks[1].contains("not loaded; built in are storage_manager and rest"));
    }
}
