//! The targets of the Makefile.

use crate::File;

/// A target with the text that `make help` prints for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) name: &'a str,
    pub(crate) line: usize,
    pub(crate) help: Option<&'a str>,
}

/// The targets that a person can name: those that begin with a small letter and match no pattern.
pub(crate) fn targets(makefile: &File) -> Vec<Target<'_>> {
    makefile
        .lines()
        .filter_map(|(line, text)| target(line, text))
        .collect()
}

fn target(line: usize, text: &str) -> Option<Target<'_>> {
    let (name, rest) = text.split_once(':')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    // `name := value` is a variable.
    if !is_name || rest.starts_with(['=', ':']) {
        return None;
    }
    let help = rest
        .split_once("## ")
        .map(|(_, help)| help.trim())
        .filter(|help| !help.is_empty());
    Some(Target { name, line, help })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_targets_and_their_help() {
        let text =
            ".PHONY: run\nrun: setup ## Start\n\tfoo: bar\nA := b\nlow := c\n%.o: %.c\nx-y:\n";
        let file = File {
            path: "Makefile".into(),
            text: text.into(),
            executable: false,
        };
        let found: Vec<_> = targets(&file)
            .iter()
            .map(|t| (t.name, t.line, t.help))
            .collect();
        assert_eq!(found, [("run", 2, Some("Start")), ("x-y", 7, None)]);
    }
}
