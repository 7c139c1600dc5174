//! What is asked of the server, as text, and its answers as points.

use std::{fmt::Write, io::Read};

use serde::Deserialize;
use serde_json::Value as Json;
use weir_backend_api::Direction;

use crate::{
    http::Trouble,
    name,
    point::{self, COLUMNS, Point, TAGS},
    settings::Generation,
    text,
};

/// The table that holds everything where the key is a tag.
pub(crate) const TABLE: &str = "weir";
/// The tag that holds the key there.
const KEY: &str = "key";

/// What 1.x says of statements when one of several fails.
pub(crate) const NOT_EXECUTED: &str = "not executed";

/// Nanoseconds from the first to the last, both inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub first: u64,
    pub last: u64,
}

impl Span {
    /// Every time that an HLC can tell.
    pub(crate) const ALL: Self = Self {
        first: 0,
        last: 1_000_000_000 << 32,
    };

    pub(crate) const fn at(nanos: u64) -> Self {
        Self {
            first: nanos,
            last: nanos,
        }
    }
}

/// The points of some names in a span, in the order of time, at most `limit` of each name.
pub(crate) fn select(
    generation: Generation,
    names: &[String],
    span: Span,
    direction: Direction,
    limit: usize,
) -> String {
    let columns: Vec<String> = COLUMNS.iter().map(|name| text::identifier(name)).collect();
    let order = match direction {
        Direction::Forward => "ASC",
        Direction::Backward => "DESC",
    };
    let (from, keys) = source(generation, names);
    format!(
        "SELECT {} FROM {from} WHERE {keys}time >= {} AND time <= {} ORDER BY time {order} LIMIT {limit}",
        columns.join(","),
        span.first,
        span.last
    )
}

/// The names of everything that is there and begins with `prefix`, and some others.
pub(crate) fn names(generation: Generation, prefix: &str) -> String {
    let pattern = name::pattern(prefix);
    if generation == Generation::Three {
        let table = text::identifier(TABLE);
        let key = text::identifier(KEY);
        let filter = if pattern.is_empty() {
            String::new()
        } else {
            format!(" WHERE {key} =~ /{pattern}/")
        };
        return format!("SHOW TAG VALUES FROM {table} WITH KEY = {key}{filter}");
    }
    if pattern.is_empty() {
        "SHOW MEASUREMENTS".to_owned()
    } else {
        format!("SHOW MEASUREMENTS WITH MEASUREMENT =~ /{pattern}/")
    }
}

/// Removes one point, and no other of that nanosecond.
pub(crate) fn delete_point(point: &Point) -> String {
    let mut query = format!(
        "DELETE FROM {} WHERE time = {}",
        text::identifier(&point.name),
        point.nanos
    );
    for (tag, value) in TAGS.iter().zip(&point.tags) {
        // A tag that a point does not have is the empty text.
        let _ = write!(
            query,
            " AND {} = {}",
            text::identifier(tag),
            text::string(value)
        );
    }
    query
}

/// Removes every point of a name in a span.
pub(crate) fn delete_span(name: &str, span: Span) -> String {
    let name = text::identifier(name);
    format!(
        "DELETE FROM {name} WHERE time >= {} AND time <= {}",
        span.first, span.last
    )
}

/// What a line of line protocol begins with, up to the tags that every point has.
pub(crate) fn series(generation: Generation, name: &str) -> String {
    let mut out = String::new();
    if generation == Generation::Three {
        text::measurement(&mut out, TABLE);
        out.push(',');
        out.push_str(KEY);
        out.push('=');
        text::tag(&mut out, name);
    } else {
        text::measurement(&mut out, name);
    }
    out
}

fn source(generation: Generation, names: &[String]) -> (String, String) {
    if generation == Generation::Three {
        let key = text::identifier(KEY);
        let keys: Vec<String> = names
            .iter()
            .map(|name| format!("{key} = {}", text::string(name)))
            .collect();
        (
            text::identifier(TABLE),
            format!("({}) AND ", keys.join(" OR ")),
        )
    } else {
        let names: Vec<String> = names.iter().map(|name| text::identifier(name)).collect();
        (names.join(","), String::new())
    }
}

/// What a server answers to queries, or one chunk of it.
#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    results: Vec<Statement>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Statement {
    statement_id: Option<usize>,
    #[serde(default)]
    series: Vec<Series>,
    error: Option<String>,
}

/// The rows of one measurement, or of a listing.
#[derive(Deserialize)]
pub(crate) struct Series {
    #[serde(default)]
    name: String,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    values: Vec<Vec<Json>>,
}

/// Reads an answer, and hands each series over with the number of the statement that it answers.
///
/// # Errors
/// What any statement was answered with instead; [`Trouble::Later`] if the answer breaks off.
pub(crate) fn read(
    answer: impl Read,
    mut each: impl FnMut(usize, Series) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    // Statements behind one that fails are "not executed", and may be answered before it.
    let mut not_executed = None;
    // In chunks there is one document after the other.
    for reply in serde_json::Deserializer::from_reader(answer).into_iter::<Reply>() {
        let broken = |error| Trouble::Later(format!("an answer that broke off: {error}"), None);
        let reply = reply.map_err(broken)?;
        if let Some(error) = reply.error {
            return Err(refused(error));
        }
        for (index, statement) in reply.results.into_iter().enumerate() {
            match statement.error {
                Some(error) if error == NOT_EXECUTED => not_executed = Some(refused(error)),
                Some(error) => return Err(refused(error)),
                None => {}
            }
            for series in statement.series {
                each(statement.statement_id.unwrap_or(index), series)?;
            }
        }
    }
    not_executed.map_or(Ok(()), Err)
}

/// What an error in an answer that is otherwise a success means.
fn refused(error: String) -> Trouble {
    let lower = error.to_ascii_lowercase();
    if lower.contains("database not found") || lower.contains("bucket not found") {
        Trouble::NoDatabase(error)
    } else if lower.contains("authoriz") || lower.contains("authenti") {
        Trouble::Blocked(error)
    } else if lower.contains("error parsing query") {
        Trouble::Bad(error)
    } else {
        // Timeouts, limits, engines that are closing.
        Trouble::Later(error, None)
    }
}

impl Series {
    /// The names of a listing: the last column, whatever it is called.
    pub(crate) fn into_names(self) -> impl Iterator<Item = String> {
        self.values
            .into_iter()
            .filter_map(|mut row| match row.pop() {
                Some(Json::String(name)) => Some(name),
                _ => None,
            })
    }

    /// The rows of a [`select`]: how many there are, and the points among them.
    ///
    /// # Errors
    /// [`Trouble::Bad`] for a point of ours that cannot be read.
    pub(crate) fn into_points(self) -> Result<(usize, u64, Vec<Point>), Trouble> {
        let place = |column: &str| self.columns.iter().position(|name| name == column);
        let time = place("time").unwrap_or(0);
        let places = COLUMNS.map(place);
        let mut points = Vec::with_capacity(self.values.len());
        let rows = self.values.len();
        let mut last = 0;
        for mut row in self.values {
            let nanos = row.get(time).and_then(Json::as_u64).unwrap_or_default();
            last = nanos;
            let columns = places.map(|place| {
                let cell = place.and_then(|place| row.get_mut(place));
                cell.map_or(Json::Null, Json::take)
            });
            if let Some(point) = point::read(&self.name, nanos, &columns).map_err(Trouble::Bad)? {
                points.push(point);
            }
        }
        Ok((rows, last, points))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hostile names stay inside their quotes, in every kind of query.
    #[test]
    fn no_name_leaves_its_place() {
        let name = "x\" WHERE 1=1; DROP DATABASE \"y' \\".to_owned();
        let names = [name.clone()];
        let quoted = "\"x\\\" WHERE 1=1; DROP DATABASE \\\"y' \\\\\"";
        let forward = Direction::Forward;
        let query = select(Generation::One, &names, Span::at(7), forward, 3);
        assert_eq!(
            query,
            format!(
                "SELECT \"kind\",\"timestamp\",\"base64\",\"encoding_prefix\",\"encoding_suffix\",\"value\",\
                 \"weir\",\"id\",\"rank\",\"tie\",\"more\" FROM {quoted} WHERE time >= 7 AND time <= 7 \
                 ORDER BY time ASC LIMIT 3"
            )
        );
        let query = select(
            Generation::Three,
            &names,
            Span::at(7),
            Direction::Backward,
            3,
        );
        let string = "'x\" WHERE 1=1; DROP DATABASE \"y\\' \\\\'";
        assert!(
            query.contains(&format!(
                "FROM \"weir\" WHERE (\"key\" = {string}) AND time >= 7"
            )),
            "{query}"
        );
        assert!(query.ends_with("ORDER BY time DESC LIMIT 3"), "{query}");
        assert!(
            delete_span(&name, Span::at(7)).starts_with(&format!("DELETE FROM {quoted} WHERE"))
        );
        assert_eq!(
            names_query(Generation::One, "a/.*"),
            "SHOW MEASUREMENTS WITH MEASUREMENT =~ \
             /^(a\\x2F\\x2E\\x2A|\\x40\\x40weir\\x40\\x40|\\x40\\x40none\\x5Fkey\\x40\\x40)/"
        );
        assert_eq!(names_query(Generation::Two, ""), "SHOW MEASUREMENTS");
    }

    fn names_query(generation: Generation, prefix: &str) -> String {
        names(generation, prefix)
    }

    #[test]
    fn errors_inside_an_answer_count() {
        let rows = [
            (r#"{"error":"timeout"}"#, "Later"),
            (
                r#"{"results":[{"statement_id":0,"error":"database not found: x"}]}"#,
                "NoDatabase",
            ),
            (
                r#"{"results":[{"statement_id":0}]}{"results":[{"error":"error parsing query"}]}"#,
                "Bad",
            ),
            (
                r#"{"results":[{"error":"not executed"},{"error":"database not found: x"}]}"#,
                "NoDatabase",
            ),
            (r#"{"results":[{"error":"not executed"}]}"#, "Later"),
            (r#"{"results":[{"statement"#, "Later"),
            (r#"{"error":"not authorized"}"#, "Blocked"),
        ];
        for (answer, expected) in rows {
            let trouble = read(answer.as_bytes(), |_, _| Ok(())).unwrap_err();
            assert!(
                format!("{trouble:?}").starts_with(expected),
                "{answer}: {trouble:?}"
            );
        }
        let mut seen = Vec::new();
        let answer = r#"{"results":[{"statement_id":0},{"statement_id":1,"series":[
            {"name":"measurements","columns":["name"],"values":[["a"],["b"]]}]}]}"#;
        read(answer.as_bytes(), |statement, series| {
            seen.extend(series.into_names().map(|name| (statement, name)));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(1, "a".to_owned()), (1, "b".to_owned())]);
    }
}
