//! Where the log goes, and how much of it.

use std::io::IsTerminal;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Arguments of every command about its log.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// What to log to standard error: error, warn, info, debug, trace, or one a module, such as
    /// weir=debug,zenoh=warn [default: RUST_LOG, or info of weir and warnings of zenoh]
    #[arg(
        long,
        value_name = "FILTER",
        global = true,
        env = "WEIR_LOG",
        hide_env_values = true
    )]
    pub log: Option<String>,

    /// How a log line looks
    #[arg(
        long,
        value_enum,
        default_value_t = LogFormat::Text,
        global = true,
        env = "WEIR_LOG_FORMAT",
        hide_env_values = true
    )]
    pub log_format: LogFormat,

    /// When to colour logs and diagnostics; NO_COLOR is honoured
    #[arg(
        long,
        value_enum,
        default_value_t = Color::Auto,
        global = true,
        env = "WEIR_COLOR",
        hide_env_values = true
    )]
    pub color: Color,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For a person
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// How much a command says unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// The router: its life is in its log.
    Router,
    /// A command that prints its result: its errors are printed, and Zenoh's own word on them
    /// would only be the second.
    Command,
}

impl Color {
    /// Whether to colour what goes to a stream.
    pub fn wanted(self, is_terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            // https://no-color.org: any value that is not empty.
            Self::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }
}

impl LogArgs {
    /// Starts logging, once in a process.
    pub fn start(&self, voice: Voice) -> Result<()> {
        let filter = filter(
            self.log.as_deref(),
            std::env::var("RUST_LOG").ok().as_deref(),
            voice,
        )?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(self.color.wanted(std::io::stderr().is_terminal()));
        let started = match self.log_format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().try_init(),
        };
        started.map_err(|refused| anyhow!("cannot start the log: {refused}"))
    }
}

fn filter(flag: Option<&str>, env: Option<&str>, voice: Voice) -> Result<EnvFilter> {
    let env = env.filter(|env| !env.is_empty());
    let (text, origin) = match (flag, env) {
        (Some(flag), _) => (flag, "--log"),
        (None, Some(env)) => (env, "RUST_LOG"),
        (None, None) => match voice {
            Voice::Router => ("warn,weir=info", "the default"),
            Voice::Command => ("off,weir=warn", "the default"),
        },
    };
    EnvFilter::builder()
        .parse(text)
        .with_context(|| format!("{origin} is no log filter: `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_environment_and_that_over_the_default() {
        let rows = [
            (Some("debug"), Some("trace"), Voice::Router, "debug"),
            (None, Some("trace"), Voice::Router, "trace"),
            (None, Some(""), Voice::Router, "weir=info,warn"),
            (None, None, Voice::Router, "weir=info,warn"),
            (None, None, Voice::Command, "weir=warn,off"),
        ];
        for (flag, env, voice, expected) in rows {
            assert_eq!(filter(flag, env, voice).unwrap().to_string(), expected);
        }
        let refused = filter(Some("weir=loud"), None, Voice::Router).unwrap_err();
        assert!(refused.to_string().contains("--log"), "{refused}");
    }
}
