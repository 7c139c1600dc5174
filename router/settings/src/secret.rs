//! Source lines are printed beside what is wrong with them, and logs are read by many: what looks like
//! a secret is covered.

/// The ends of names whose values are secrets, in lower case.
const NAMES: [&str; 6] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "credentials",
];
/// The end of a name with these is no secret but says where one is.
const PLACES: [&str; 2] = ["file", "dir"];

/// The text with every secret's characters replaced by `*`. Every other byte stays where it is.
pub(crate) fn cover(text: &str) -> String {
    let mut covered = text.as_bytes().to_vec();
    let mut at = 0;
    while let Some(found) = text[at..].find([':', '=']) {
        let sign = at + found;
        at = sign + 1;
        if let Some(rest) = text[at..].strip_prefix("//") {
            // `scheme://user:password@host`: all before the `@` of the authority.
            let begin = at + 2;
            let end = rest
                .find(['/', '"', '\'', ' ', ',', '\n'])
                .unwrap_or(rest.len());
            if let Some(user) = rest[..end].rfind('@') {
                covered[begin..begin + user].fill(b'*');
                at = begin + user;
            }
        } else if is_secret(name_before(&text[..sign])) {
            let value = value_behind(text, at);
            covered[value.clone()].fill(b'*');
            at = value.end;
        }
    }
    // Only whole characters were replaced, by ASCII.
    String::from_utf8(covered).unwrap_or_default()
}

/// The name that ends where a `:` or `=` is.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches([' ', '\t', '"', '\'']);
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let begin = text.rfind(|c| !is_part(c)).map_or(0, |at| {
        at + text[at..].chars().next().map_or(1, char::len_utf8)
    });
    &text[begin..]
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    NAMES.iter().any(|end| name.ends_with(end)) && !PLACES.iter().any(|end| name.ends_with(end))
}

/// Where the value is that begins behind `at`: inside its quotes, or up to the next `,`, `}` or line.
fn value_behind(text: &str, at: usize) -> std::ops::Range<usize> {
    let begin = at + (text[at..].len() - text[at..].trim_start_matches([' ', '\t']).len());
    let rest = &text[begin..];
    match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = begin + 1;
            let end = text[inner..].find([quote, '\n']);
            inner..end.map_or(text.len(), |end| inner + end)
        }
        // A table or a list: its own fields are looked at.
        Some('{' | '[') => begin..begin,
        _ => {
            let end = rest.find([',', '}', '\n']).unwrap_or(rest.len());
            begin..begin + rest[..end].trim_end().len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_covered_and_nothing_else() {
        let rows = [
            (
                "password: \"hunter2\", user: \"me\"",
                "password: \"*******\", user: \"me\"",
            ),
            (
                "\"db_password\" : 'pä', x: 1",
                "\"db_password\" : '***', x: 1",
            ),
            ("token = \"a\"\nname = \"b\"", "token = \"*\"\nname = \"b\""),
            ("api_token: plain\nnext: 1", "api_token: *****\nnext: 1"),
            (
                "url: \"http://me:pw@host:80/x\"",
                "url: \"http://*****@host:80/x\"",
            ),
            ("url: \"http://host:80/a@b\"", "url: \"http://host:80/a@b\""),
            ("password_file: \"/run/pw\"", "password_file: \"/run/pw\""),
            ("secret: { token: 55 }", "secret: { token: ** }"),
            ("key_expr: \"a/**\"", "key_expr: \"a/**\""),
            ("password:", "password:"),
            ("password: \"open", "password: \"****"),
        ];
        for (text, covered) in rows {
            assert_eq!(cover(text), covered);
        }
    }
}
