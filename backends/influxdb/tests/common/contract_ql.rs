//! As much of line protocol and InfluxQL as a store uses, read strictly.

use std::collections::BTreeMap;

use serde_json::Value as Json;

pub enum Statement {
    Measurements(Vec<String>),
    TagValues {
        table: String,
        tag: String,
        prefixes: Vec<String>,
    },
    Select {
        columns: Vec<String>,
        tables: Vec<String>,
        keys: Vec<String>,
        first: i64,
        last: i64,
        is_backward: bool,
        limit: usize,
    },
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Name(String),
    Text(String),
    Pattern(String),
    Word(String),
    Mark(char),
}

/// Whether a text begins with one of some prefixes; any does with none given.
pub fn begins(text: &str, prefixes: &[String]) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| text.starts_with(&**prefix))
}

/// Table, tags, fields and time of a line.
pub type Line = (
    String,
    BTreeMap<String, String>,
    BTreeMap<String, Json>,
    i64,
);

pub fn line(text: &str) -> Option<Line> {
    let (mut parts, mut part, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars();
    // Pieces between commas and spaces that are not escaped, with what ends them.
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let next = chars.next()?;
                let special = if is_quoted { "\"\\" } else { ", =" };
                if !special.contains(next) {
                    part.push('\\');
                }
                // Out of the way of what is split below.
                part.push(if next == '=' { '\u{1}' } else { next });
            }
            // Only fields have quotes.
            '"' if parts.iter().any(|(_, end)| *end == ' ') => {
                is_quoted = !is_quoted;
                part.push('\u{2}');
            }
            ',' | ' ' if !is_quoted => parts.push((std::mem::take(&mut part), c)),
            c => part.push(c),
        }
    }
    let time = part.parse().ok()?;
    let mut parts = parts.into_iter();
    let (table, mut end) = parts.next()?;
    let (mut tags, mut fields) = (BTreeMap::new(), BTreeMap::new());
    while end == ',' {
        let (pair, next) = parts.next()?;
        let (name, value) = pair.split_once('=')?;
        tags.insert(name.replace('\u{1}', "="), value.replace('\u{1}', "="));
        end = next;
    }
    for (pair, _) in parts {
        let (name, value) = pair.split_once('=')?;
        let value = match value.strip_prefix('\u{2}') {
            Some(text) => Json::from(text.strip_suffix('\u{2}')?),
            None if value == "true" || value == "false" => Json::from(value == "true"),
            None => match value.strip_suffix('i') {
                Some(integer) => Json::from(integer.parse::<i64>().ok()?),
                None => Json::from(value.parse::<f64>().ok()?),
            },
        };
        fields.insert(name.replace('\u{1}', "="), value);
    }
    Some((table, tags, fields, time))
}

pub fn statements(text: &str) -> Option<Vec<Statement>> {
    let tokens = tokens(text)?;
    tokens
        .split(|token| *token == Token::Mark(';'))
        .map(|part| statement(&mut Cursor(part)))
        .collect()
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' => {}
            '"' | '\'' => {
                let mut inner = String::new();
                loop {
                    match chars.next()? {
                        '\\' => inner.push(match chars.next()? {
                            'n' => '\n',
                            escaped @ ('\\' | '"' | '\'') => escaped,
                            _ => return None,
                        }),
                        '\n' | '\r' => return None,
                        end if end == c => break,
                        inside => inner.push(inside),
                    }
                }
                tokens.push(if c == '"' {
                    Token::Name(inner)
                } else {
                    Token::Text(inner)
                });
            }
            '/' => {
                let mut inner = String::new();
                loop {
                    match chars.next()? {
                        '/' => break,
                        inside => inner.push(inside),
                    }
                }
                tokens.push(Token::Pattern(inner));
            }
            c if c.is_ascii_alphanumeric() => {
                let mut word = String::from(c);
                while let Some(next) = chars.next_if(char::is_ascii_alphanumeric) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            mark => tokens.push(Token::Mark(mark)),
        }
    }
    Some(tokens)
}

struct Cursor<'a>(&'a [Token]);

impl Cursor<'_> {
    fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first.clone())
    }

    /// Takes these words and marks, or nothing.
    fn take(&mut self, text: &str) -> Option<()> {
        let wanted = tokens(text)?;
        self.0 = self.0.strip_prefix(&*wanted)?;
        Some(())
    }

    fn name(&mut self) -> Option<String> {
        match self.next()? {
            Token::Name(name) => Some(name),
            _ => None,
        }
    }

    fn names(&mut self) -> Option<Vec<String>> {
        let mut names = vec![self.name()?];
        while self.take(",").is_some() {
            names.push(self.name()?);
        }
        Some(names)
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        match self.next()? {
            Token::Word(word) => word.parse().ok(),
            _ => None,
        }
    }

    /// `^(A|B)` of literals.
    fn prefixes(&mut self) -> Option<Vec<String>> {
        let Token::Pattern(pattern) = self.next()? else {
            return None;
        };
        let inner = pattern.strip_prefix("^(")?.strip_suffix(')')?;
        inner.split('|').map(literal).collect()
    }
}

fn literal(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(code) = rest.strip_prefix("\\x") {
            out.push(char::from(u8::from_str_radix(code.get(..2)?, 16).ok()?));
            rest = &code[2..];
        } else if c.is_ascii() && !c.is_ascii_alphanumeric() {
            return None;
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Some(out)
}

fn statement(cursor: &mut Cursor<'_>) -> Option<Statement> {
    let found = if cursor.take("SHOW MEASUREMENTS").is_some() {
        let mut prefixes = Vec::new();
        if cursor.take("WITH MEASUREMENT =~").is_some() {
            prefixes = cursor.prefixes()?;
        }
        Statement::Measurements(prefixes)
    } else if cursor.take("SHOW TAG VALUES FROM").is_some() {
        let table = cursor.name()?;
        cursor.take("WITH KEY =")?;
        let tag = cursor.name()?;
        let mut prefixes = Vec::new();
        if cursor.take("WHERE").is_some() {
            (cursor.name()? == tag).then_some(())?;
            cursor.take("=~")?;
            prefixes = cursor.prefixes()?;
        }
        Statement::TagValues {
            table,
            tag,
            prefixes,
        }
    } else {
        cursor.take("SELECT")?;
        let columns = cursor.names()?;
        cursor.take("FROM")?;
        let tables = cursor.names()?;
        cursor.take("WHERE")?;
        let mut keys = Vec::new();
        if cursor.take("(").is_some() {
            loop {
                cursor.take("\"key\" =")?;
                let Token::Text(key) = cursor.next()? else {
                    return None;
                };
                keys.push(key);
                if cursor.take(") AND").is_some() {
                    break;
                }
                cursor.take("OR")?;
            }
        }
        cursor.take("time >=")?;
        let first = cursor.number()?;
        cursor.take("AND time <=")?;
        let last = cursor.number()?;
        cursor.take("ORDER BY time")?;
        let is_backward = cursor.take("DESC").is_some();
        if !is_backward {
            cursor.take("ASC")?;
        }
        cursor.take("LIMIT")?;
        let limit = cursor.number()?;
        Statement::Select {
            columns,
            tables,
            keys,
            first,
            last,
            is_backward,
            limit,
        }
    };
    cursor.0.is_empty().then_some(found)
}
