//! Counterexamples as people read them.

use std::fmt::{self, Display};

use super::{Counterexample, Held, Law};
use crate::{
    resolution::Resolution,
    value::{Encoding, Value},
    version::Stamp,
};

impl Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { time, id } = self.version.stamp;
        let value = show_value(self.value.as_ref());
        write!(f, "{value} at time {time} by clock {}", id[0])
    }
}

impl Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not {} (key {}):", self.law, self.key)?;
        for (name, input) in ('a'..).zip(&self.inputs) {
            writeln!(f, "  {name} = {input}")?;
        }
        writeln!(f, "  {} = {}", self.left.how, self.left.gave)?;
        write!(f, "  {} = {}", self.right.how, self.right.gave)
    }
}

/// `ab+c+` as people write it: `merge(merge(a, b), c)`.
pub(super) fn written(postfix: &str) -> String {
    let mut stack: Vec<String> = Vec::new();
    for symbol in postfix.chars() {
        let next = match (symbol, stack.len()) {
            ('+', 2..) => {
                let (b, a) = (
                    stack.pop().unwrap_or_default(),
                    stack.pop().unwrap_or_default(),
                );
                format!("merge({a}, {b})")
            }
            _ => symbol.to_string(),
        };
        stack.push(next);
    }
    stack.pop().unwrap_or_default()
}

pub(super) fn show_resolution(resolution: &Resolution) -> String {
    match resolution {
        Resolution::Default => "default".to_owned(),
        Resolution::First => "keep the first".to_owned(),
        Resolution::Second => "keep the second".to_owned(),
        Resolution::Merge(value) => format!("merge into {}", show_value(Some(value))),
        Resolution::Delete => "delete".to_owned(),
    }
}

pub(super) fn show_value(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "deleted".to_owned();
    };
    let mut text = show_bytes(&value.payload);
    if value.encoding != Encoding::default() {
        text.push_str(&format!(", encoding {}", value.encoding.id));
    }
    if let Some(schema) = &value.encoding.schema {
        text.push_str(&format!(";{}", show_bytes(schema)));
    }
    if let Some(attachment) = &value.attachment {
        text.push_str(&format!(", attachment {}", show_bytes(attachment)));
    }
    text
}

/// Text in quotes, anything else in hexadecimal; at most 120 bytes of it.
pub(super) fn show_bytes(bytes: &[u8]) -> String {
    const SHOWN: usize = 120;
    let cut = &bytes[..bytes.len().min(SHOWN)];
    let more = if bytes.len() > SHOWN {
        format!(" ... ({} bytes)", bytes.len())
    } else {
        String::new()
    };
    match std::str::from_utf8(cut) {
        Ok(text) => format!("`{}`{more}", text.escape_debug()),
        Err(_) => {
            let digits: String = cut.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("0x{digits}{more}")
        }
    }
}
