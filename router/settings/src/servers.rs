//! The two HTTP servers: ours for metrics and health, and Zenoh's REST plugin.

use crate::path::KeyPath;
use crate::table::{Field, Report, Table, field};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;

/// Our server for metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where it listens; 127.0.0.1:8001 by default.
    pub listen: SocketAddr,
}

const HTTP_PORT_DEFAULT: u16 = 8001;

pub(crate) const HTTP_FIELDS: &[Field] = &[field(
    "listen",
    r#"{"type":["string","integer"],"default":"127.0.0.1:8001"}"#,
    "Address and port, or a port on 127.0.0.1.",
)];

pub(crate) const REST_FIELDS: &[Field] = &[
    field(
        "http_port",
        r#"{"type":["string","integer"]}"#,
        "A port, or an address and a port.",
    ),
    field(
        "work_thread_num",
        r#"{"type":"integer"}"#,
        "Has no effect in a built-in plugin.",
    ),
    field(
        "max_block_thread_num",
        r#"{"type":"integer"}"#,
        "Has no effect in a built-in plugin.",
    ),
    field(
        "__required__",
        r#"{"type":"boolean"}"#,
        "Has no effect in a built-in plugin.",
    ),
    field("__path__", "true", "Has no effect in a built-in plugin."),
    field("__plugin__", "true", "Has no effect in a built-in plugin."),
    field(
        "__config__",
        r#"{"type":"string"}"#,
        "A file to take the rest from.",
    ),
];

pub(crate) fn read_http(report: &mut Report<'_>, value: &Value) -> Option<HttpSettings> {
    let default = SocketAddr::from(([127, 0, 0, 1], HTTP_PORT_DEFAULT));
    let table = match value {
        Value::Null | Value::Bool(false) => return None,
        Value::Bool(true) => return Some(HttpSettings { listen: default }),
        value => Table::open(
            report,
            KeyPath::parse("http"),
            value,
            "`http`",
            &[HTTP_FIELDS],
        )?,
    };
    let listen = match table.get("listen") {
        None => Some(default),
        Some(Value::Number(port)) => port
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        Some(Value::String(text)) => text.parse().ok().or_else(|| {
            Some(SocketAddr::from((
                [127, 0, 0, 1],
                text.parse::<u16>().ok()?,
            )))
        }),
        Some(other) => {
            report.wrong_type(&table.at("listen"), "an address and a port", other);
            return None;
        }
    };
    if listen.is_none() {
        let help = "write for example \"127.0.0.1:8001\", or a port alone";
        report.invalid(&table.at("listen"), "this is no address to listen on", help);
    }
    listen.map(|listen| HttpSettings { listen })
}

/// Puts `rest` where Zenoh's plugin reads it.
pub(crate) fn put_rest(
    report: &mut Report<'_>,
    rest: Option<&Value>,
    zenoh: &mut Map<String, Value>,
) {
    let rest = match rest {
        None | Some(Value::Null | Value::Bool(false)) => None,
        Some(Value::Bool(true)) => Some(json!({ "http_port": 8000 })),
        Some(rest) => {
            check_rest(report, rest);
            let mut rest = rest.clone();
            if let Value::Object(map) = &mut rest {
                // It was read already, as a layer.
                map.remove("__config__");
            }
            Some(rest)
        }
    };
    let plugins = zenoh.entry("plugins").or_insert_with(|| json!({}));
    if let Value::Object(plugins) = plugins {
        plugins.extend(rest.map(|rest| ("rest".to_owned(), rest)));
        if plugins.is_empty() {
            zenoh.remove("plugins");
        }
    }
}

fn check_rest(report: &mut Report<'_>, rest: &Value) {
    let path = KeyPath::parse("rest");
    let Some(table) = Table::open(report, path, rest, "`rest`", &[REST_FIELDS]) else {
        return;
    };
    let good = match table.get("http_port") {
        None => {
            let help = "add `http_port: 8000`, or \"127.0.0.1:8000\"";
            return report.missing(&table.path, "`rest` has no `http_port`", help);
        }
        Some(Value::Number(port)) => port
            .as_u64()
            .is_some_and(|port| u16::try_from(port).is_ok()),
        // The plugin splits at the first colon, and so knows no IPv6 addresses.
        Some(Value::String(text)) => {
            text.parse::<u16>().is_ok() || text.parse::<std::net::SocketAddrV4>().is_ok()
        }
        Some(other) => {
            return report.wrong_type(
                &table.at("http_port"),
                "a port, or an address and a port",
                other,
            );
        }
    };
    if !good {
        let help = "write a port, or an IPv4 address and a port: \"127.0.0.1:8000\"";
        report.invalid(
            &table.at("http_port"),
            "this is no address to listen on",
            help,
        );
    }
}
