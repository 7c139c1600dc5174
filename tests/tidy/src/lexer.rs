//! Just enough of Rust's lexical grammar to tell code from comments, strings and tests.

use std::iter;

/// The text with comments and the insides of strings and characters blanked. Lines stay where they
/// are, so that a line number found in it is right for the file; a character that is not ASCII
/// becomes `?`, so that a byte is a character from here on.
pub(crate) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => block_comment_end(&chars, at),
            '"' => string_end(&chars, at + 1),
            'r' if !is_word(
                at.checked_sub(1)
                    .map(|i| chars[i])
                    .filter(|c| !"bc".contains(*c)),
            ) =>
            {
                raw_string_end(&chars, at).unwrap_or(at + 1)
            }
            '\'' => char_end(&chars, at).unwrap_or(at + 1),
            _ => at + 1,
        };
        if end == at + 1 {
            out.push(if chars[at].is_ascii() { chars[at] } else { '?' });
        } else if chars[at] == '/' {
            out.extend(chars[at..end].iter().map(|c| blank(*c)));
        } else {
            // The quotes stay, so that `reason = "..."` is still an assignment.
            out.push('"');
            out.extend(chars[at + 1..end - 1].iter().map(|c| blank(*c)));
            out.push('"');
        }
        at = end;
    }
    out
}

/// Code (see [`code`]) with the items under `#[cfg(test)]` blanked.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for start in word_positions(code, "#[cfg(test)]").chain(word_positions(code, "#[cfg(all(test"))
    {
        let end = item_end(code, start);
        let blanked: String = code[start..end].chars().map(blank).collect();
        out.replace_range(start..end, &blanked);
    }
    out
}

/// Where `word` stands as a word of its own: not inside a longer identifier.
pub(crate) fn word_positions<'a>(
    code: &'a str,
    word: &'a str,
) -> impl Iterator<Item = usize> + use<'a> {
    let mut from = 0;
    iter::from_fn(move || {
        while let Some(found) = code.get(from..).and_then(|rest| rest.find(word)) {
            let (start, end) = (from + found, from + found + word.len());
            from = end;
            let joined_before =
                is_word(word.chars().next()) && is_word(code[..start].chars().last());
            let joined_after = is_word(word.chars().last()) && is_word(code[end..].chars().next());
            if !joined_before && !joined_after {
                return Some(start);
            }
        }
        None
    })
}

/// The number of the line that holds the byte at `position`, from 1.
pub(crate) fn line_of(text: &str, position: usize) -> usize {
    text[..position].matches('\n').count() + 1
}

/// The end of the group whose opening bracket is at `start`, after its closing bracket; the end of
/// the text if it is never closed.
pub(crate) fn group_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, character) in code[start..].char_indices() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return start + offset + 1;
        }
    }
    code.len()
}

pub(crate) fn is_word(character: Option<char>) -> bool {
    character.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// The end of the item that begins, with its attributes, at `start`: after its braces or semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let mut at = start;
    while let Some(offset) = code[at..].find(['[', '(', '{', ';']) {
        at += offset;
        match code.as_bytes()[at] {
            b';' => return at + 1,
            b'{' => return group_end(code, at),
            _ => at = group_end(code, at),
        }
    }
    code.len()
}

fn blank(character: char) -> char {
    if character == '\n' { '\n' } else { ' ' }
}

fn line_end(chars: &[char], from: usize) -> usize {
    chars[from..]
        .iter()
        .position(|c| *c == '\n')
        .map_or(chars.len(), |offset| from + offset)
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0_usize, from);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

/// After the closing quote of a string whose inside begins at `from`.
fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// After a raw string whose `r` is at `from`; nothing if that `r` begins a name.
fn raw_string_end(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from + 1..].iter().take_while(|c| **c == '#').count();
    let inside = from + 1 + hashes + 1;
    if chars.get(inside - 1) != Some(&'"') {
        return None;
    }
    let closing: Vec<char> = iter::once('"').chain(iter::repeat_n('#', hashes)).collect();
    let found = chars[inside..]
        .windows(closing.len())
        .position(|window| window == closing);
    Some(found.map_or(chars.len(), |offset| inside + offset + closing.len()))
}

/// After a character whose opening quote is at `from`; nothing if it is a lifetime.
fn char_end(chars: &[char], from: usize) -> Option<usize> {
    if chars.get(from + 1) == Some(&'\\') {
        // Past the escaped character, which may be a quote itself.
        let closing = chars.get(from + 3..)?.iter().position(|c| *c == '\'')?;
        return Some(from + 3 + closing + 1);
    }
    (chars.get(from + 2) == Some(&'\'')).then_some(from + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that are left when comments and strings are blanked.
    #[track_caller]
    fn check(text: &str, words: &str) {
        let code = code(text);
        assert_eq!(
            code.lines().count(),
            text.lines().count(),
            "lines moved: {text}"
        );
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>().join(" "),
            words,
            "{text}"
        );
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        check("a // b\nc", "a c");
        check("a /* b /* c */ d */ e", "a e");
        check("//! a\n/// b\nfn c() {}", "fn c() {}");
        check(r#"a("b \" c") d"#, r#"a(" ") d"#);
        check(r##"a(r#"b " c"#) d"##, r#"a(" ") d"#);
        check(r#"a(br"\") d"#, r#"a(b" ") d"#);
        check("a(\"b // c\") d", r#"a(" ") d"#);
        check("let r#type = bar;", "let r#type = bar;");
        check("a\n\"b\nc\"\nd", "a \" \" d");
    }

    #[test]
    fn characters_are_not_lifetimes() {
        check("a('\"') b", r#"a(" ") b"#);
        check(r"a('\'') b", r#"a(" ") b"#);
        check(r"a('\u{1F600}') b", r#"a(" ") b"#);
        check("fn a<'b>(c: &'b str) {}", "fn a<'b>(c: &'b str) {}");
    }

    #[test]
    fn tests_are_cut_out() {
        let rows = [
            ("a; #[cfg(test)] mod tests { fn b() {} } c;", "a; c;"),
            ("a; #[cfg(test)] mod tests; c;", "a; c;"),
            ("#[cfg(test)] #[path = \"x\"] mod tests; c;", "c;"),
            ("#[cfg(test)] fn a(b: [u8; 4]) { b } c;", "c;"),
            ("#[cfg(all(test, unix))] mod a { b } c;", "c;"),
            ("#[cfg(unix)] mod a { b }", "#[cfg(unix)] mod a { b }"),
        ];
        for (text, left) in rows {
            let cut = without_tests(&code(text));
            assert_eq!(
                cut.split_whitespace().collect::<Vec<_>>().join(" "),
                left,
                "{text}"
            );
        }
    }

    #[test]
    fn words_stand_alone() {
        let count = |code, word| word_positions(code, word).count();
        assert_eq!(count("todo!() my_todo!() todo!()", "todo!"), 2);
        assert_eq!(count("std::fs::x fs std::fsx", "std::fs"), 1);
    }
}
