//! Writes what a policy answers now into a case file, and leaves every other byte of it as it was.

use std::ops::Range;

use serde_json::Value as Json;

use super::written::line;

/// Characters of a line that still holds a list of answers; a longer list has a line each.
const LINE_CHARS_MAX: usize = 100;

/// The text of a case file with these answers in place of what cases expect; `None` leaves a case as
/// it is.
///
/// # Errors
/// If the text is no case file.
pub fn rewrite(text: &str, answers: &[Option<Json>]) -> Result<String, String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| error.to_string())?;
    let node = Scan { text, at: 0 }.value()?;
    let cases: Vec<&Node> = match (&node.kind, node.member("cases")) {
        (Kind::Array(cases), _) => cases.iter().collect(),
        (
            _,
            Some(Node {
                kind: Kind::Array(cases),
                ..
            }),
        ) => cases.iter().collect(),
        _ => vec![&node],
    };
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for (case, answer) in cases.into_iter().zip(answers) {
        if let Some(answer) = answer {
            edits.push(case.edit(text, answer)?);
        }
    }
    let mut text = text.to_owned();
    // From the end, so that places before it stay true.
    for (place, new) in edits.into_iter().rev() {
        text.replace_range(place, &new);
    }
    Ok(text)
}

/// A value and where it stands.
struct Node {
    place: Range<usize>,
    kind: Kind,
}

enum Kind {
    Array(Vec<Node>),
    /// Name, where its opening quote stands, value.
    Object(Vec<(String, usize, Node)>),
    Leaf,
}

impl Node {
    fn member(&self, name: &str) -> Option<&Self> {
        let Kind::Object(members) = &self.kind else {
            return None;
        };
        // The last of two with one name is what a parser takes.
        let found = members.iter().rev().find(|(own, ..)| own == name);
        found.map(|(.., node)| node)
    }

    fn edit(&self, text: &str, answer: &Json) -> Result<(Range<usize>, String), String> {
        if let Some(expect) = self.member("expect") {
            let indent = indent_of(text, expect.place.start);
            return Ok((expect.place.clone(), laid_out(answer, &indent)));
        }
        let last = match &self.kind {
            Kind::Object(members) => members.last(),
            Kind::Array(_) | Kind::Leaf => None,
        };
        let (_, start, node) = last.ok_or("a case is an object with fields")?;
        let indent = indent_of(text, *start);
        let is_first_on_line = text[..*start].ends_with(&format!("\n{indent}"));
        let separator = if is_first_on_line {
            format!("\n{indent}")
        } else {
            " ".to_owned()
        };
        let new = format!(",{separator}\"expect\": {}", laid_out(answer, &indent));
        Ok((node.place.end..node.place.end, new))
    }
}

/// The white space that the line of a place begins with.
fn indent_of(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let indent = text[start..]
        .chars()
        .take_while(|c| *c == ' ' || *c == '\t');
    indent.collect()
}

fn laid_out(answer: &Json, indent: &str) -> String {
    let one_line = line(answer);
    match answer {
        Json::Array(answers) if one_line.len() > LINE_CHARS_MAX => {
            let answers = answers
                .iter()
                .map(|answer| format!("\n{indent}  {}", line(answer)));
            format!("[{}\n{indent}]", answers.collect::<Vec<_>>().join(","))
        }
        _ => one_line,
    }
}

/// Finds values in JSON that a parser has found good, so that it need not look for mistakes.
struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl Scan<'_> {
    fn value(&mut self) -> Result<Node, String> {
        let start = self.space();
        let kind = match self.peek() {
            Some(b'[') => {
                let mut items = Vec::new();
                while self.goes_on(b']') {
                    items.push(self.value()?);
                }
                Kind::Array(items)
            }
            Some(b'{') => {
                let mut members = Vec::new();
                while self.goes_on(b'}') {
                    let start = self.space();
                    self.string();
                    let name = serde_json::from_str(&self.text[start..self.at]);
                    let name = name.map_err(|error| error.to_string())?;
                    self.space();
                    // The colon.
                    self.at += 1;
                    members.push((name, start, self.value()?));
                }
                Kind::Object(members)
            }
            Some(b'"') => {
                self.string();
                Kind::Leaf
            }
            Some(_) => {
                let rest = &self.text[self.at..];
                let ends = |c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}');
                self.at += rest.find(ends).unwrap_or(rest.len());
                Kind::Leaf
            }
            None => return Err("the text ends too early".into()),
        };
        Ok(Node {
            place: start..self.at,
            kind,
        })
    }

    /// Steps over what opens or separates; false behind what closes.
    fn goes_on(&mut self, close: u8) -> bool {
        self.space();
        let is_open = matches!(self.peek(), Some(b'[' | b'{' | b','));
        self.at += 1;
        if !is_open {
            return false;
        }
        self.space();
        let is_empty = self.peek() == Some(close);
        if is_empty {
            self.at += 1;
        }
        !is_empty
    }

    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
    }

    fn space(&mut self) -> usize {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
        self.at
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn only_the_answers_change() {
        let rows = [
            (
                "{ \"name\": \"n\",  \"expect\": [ 1,\n2 ], \"key\": 3}\n",
                vec![Some(json!(["default"]))],
                "{ \"name\": \"n\",  \"expect\": [\"default\"], \"key\": 3}\n",
            ),
            (
                "{ \"expect\": [ {} ] }",
                vec![Some(json!([]))],
                "{ \"expect\": [] }",
            ),
            (
                "{\n  \"name\": \"n\"\n}",
                vec![Some(json!({ "lane": 1 }))],
                "{\n  \"name\": \"n\",\n  \"expect\": { \"lane\": 1 }\n}",
            ),
            (
                "[{\"a\": {\"expect\": 0}}, {\"a\": \"\\\"}\"}]",
                vec![Some(json!(1)), Some(json!("x"))],
                "[{\"a\": {\"expect\": 0}, \"expect\": 1}, {\"a\": \"\\\"}\", \"expect\": \"x\"}]",
            ),
            (
                "{\"expect\": 0, \"cases\": [{\"name\": \"é\", \"expect\": 1}, {\"name\": \"b\"}]}",
                vec![None, Some(json!(2))],
                "{\"expect\": 0, \"cases\": [{\"name\": \"é\", \"expect\": 1}, {\"name\": \"b\", \"expect\": 2}]}",
            ),
        ];
        for (text, answers, expected) in rows {
            assert_eq!(rewrite(text, &answers).unwrap(), expected);
        }
    }

    #[test]
    fn a_long_list_has_a_line_for_each_answer() {
        let answers = json!(vec![json!({ "shard": "frankfurt-am-main" }); 4]);
        let text = rewrite("[\n  {\n    \"name\": \"n\"\n  }\n]", &[Some(answers)]).unwrap();
        assert_eq!(text.matches("\n      { \"shard\"").count(), 4, "{text}");
        assert!(text.contains("}\n    ]\n  }"), "{text}");
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i32>().prop_map(Json::from),
            ".{0,6}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|fields| Json::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_else_a_case_holds_stays(rest: bool, other in any_json(), old in any_json(), answer in any_json(), pretty: bool) {
            let mut case = json!({ "name": "n", "other": other });
            if rest {
                case["expect"] = old;
            }
            let text = if pretty { serde_json::to_string_pretty(&case) } else { serde_json::to_string(&case) };
            let rewritten = rewrite(&text.unwrap(), &[Some(answer.clone())]).unwrap();
            let mut expected = case;
            expected["expect"] = answer;
            prop_assert_eq!(serde_json::from_str::<Json>(&rewritten).unwrap(), expected);
        }
    }
}
