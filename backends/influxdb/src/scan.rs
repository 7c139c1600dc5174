//! Reading history: what waits here and what the server has, merged.

use std::{cmp::Ordering, collections::VecDeque};

use weir_backend_api::{Direction, Error, ErrorKind, Result, Row, Rows};
use weir_core::{
    key::{Key, KeyRange},
    record::Record,
    version::Version,
};

use crate::{
    http::Trouble,
    keys::Keys,
    name,
    point::Point,
    query::Span,
    server::{Question, Server},
    spool, time,
};

/// Keys whose points are asked for in one request.
const GROUP_KEYS: usize = 128;
/// Rows that are asked for of each of them at first.
const FIRST_ROWS: usize = 16;

/// Where a row belongs: its key in ordered form and its version.
type Place = (Vec<u8>, Version);

/// The history of a range: a local store's rows over the server's.
pub(crate) struct Scan<'a> {
    local: Rows<'a>,
    remote: Remote<'a>,
    direction: Direction,
    /// The next row of each, if it was looked at and not taken.
    next_local: Option<(Place, Key, Record)>,
    next_remote: Option<(Place, Key, Record)>,
    /// What was given or hidden last, so that it is not given twice.
    last: Option<Place>,
    is_over: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(
        local: Rows<'a>,
        server: &'a Server,
        range: &KeyRange,
        versions: Option<(Version, Version)>,
        direction: Direction,
    ) -> Self {
        let is_empty = range.is_empty() || versions.is_some_and(|(first, last)| first > last);
        Self {
            local,
            remote: Remote {
                server,
                keys: if is_empty {
                    Keys::none()
                } else {
                    Keys::new(range, direction)
                },
                versions,
                direction,
                group: VecDeque::new(),
            },
            direction,
            next_local: None,
            next_remote: None,
            last: None,
            is_over: false,
        }
    }

    fn step(&mut self) -> Result<Option<(Key, Record)>> {
        loop {
            if self.next_local.is_none()
                && let Some((key, record)) = self.local.next().transpose()?
            {
                self.next_local = Some(((key.ordered(), record.head.own), key, record));
            }
            if self.next_remote.is_none() {
                self.next_remote = self.remote.next()?;
            }
            let is_local = match (&self.next_local, &self.next_remote) {
                (None, None) => return Ok(None),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                // The local store's word comes first: it may be a mask.
                (Some(local), Some(remote)) => {
                    directed(local.0.cmp(&remote.0), self.direction) != Ordering::Greater
                }
            };
            let taken = if is_local {
                &mut self.next_local
            } else {
                &mut self.next_remote
            };
            let Some((place, key, record)) = taken.take() else {
                return Ok(None);
            };
            let is_known = self.last.as_ref() == Some(&place);
            self.last = Some(place);
            if !is_known && !spool::is_mask(record.head) {
                return Ok(Some((key, record)));
            }
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.is_over {
            return None;
        }
        let row = self.step().transpose();
        self.is_over = !matches!(row, Some(Ok(_)));
        row
    }
}

/// What the server has of a range, by key and version, a page at a time.
struct Remote<'a> {
    server: &'a Server,
    keys: Keys,
    versions: Option<(Version, Version)>,
    direction: Direction,
    /// The keys that were asked for, with what came.
    group: VecDeque<Series>,
}

/// The points of one key that were read and not given yet, and what to ask for the rest.
struct Series {
    key: Key,
    ordered: Vec<u8>,
    points: VecDeque<Point>,
    rest: Option<Question>,
}

impl Remote<'_> {
    fn next(&mut self) -> Result<Option<(Place, Key, Record)>> {
        loop {
            let Some(series) = self.group.front_mut() else {
                if !self.read_group()? {
                    return Ok(None);
                }
                continue;
            };
            if let Some(point) = series.points.pop_front() {
                let place = (series.ordered.clone(), point.record.head.own);
                return Ok(Some((place, series.key.clone(), point.record)));
            }
            match series.rest.take() {
                Some(question) => {
                    let question = Question {
                        limit: question.limit.max(self.server.page_rows()),
                        ..question
                    };
                    let (points, rest) =
                        ask(self.server, &question, self.versions, self.direction)?;
                    series.points = points;
                    series.rest = rest;
                }
                None => _ = self.group.pop_front(),
            }
        }
    }

    /// Asks for the first points of the next keys; false if there are no more keys.
    fn read_group(&mut self) -> Result<bool> {
        let rows = self.server.page_rows();
        let count = (rows / FIRST_ROWS).clamp(1, GROUP_KEYS);
        let keys = self.keys.take(self.server, count).map_err(error)?;
        if keys.is_empty() {
            return Ok(false);
        }
        let limit = (rows / keys.len()).max(FIRST_ROWS);
        let questions: Vec<Question> = keys
            .iter()
            .map(|key| Question {
                names: name::all_of(key),
                span: span_of(self.versions),
                limit,
            })
            .collect();
        let pages = self
            .server
            .select(&questions, self.direction)
            .map_err(error)?;
        for ((key, question), page) in keys.into_iter().zip(questions).zip(pages) {
            let rest = rest_of(&question, page.cut, page.is_stuck, self.direction);
            self.group.push_back(Series {
                ordered: key.ordered(),
                key,
                points: in_order(page.points, self.versions, self.direction),
                rest,
            });
        }
        Ok(true)
    }
}

fn ask(
    server: &Server,
    question: &Question,
    versions: Option<(Version, Version)>,
    direction: Direction,
) -> Result<(VecDeque<Point>, Option<Question>)> {
    let pages = server
        .select(std::slice::from_ref(question), direction)
        .map_err(error)?;
    let page = pages.into_iter().next().unwrap_or_default();
    let rest = rest_of(question, page.cut, page.is_stuck, direction);
    Ok((in_order(page.points, versions, direction), rest))
}

/// The question for what a page has cut off.
fn rest_of(
    question: &Question,
    cut: Option<u64>,
    is_stuck: bool,
    direction: Direction,
) -> Option<Question> {
    let mut rest = Question {
        // A nanosecond that fills a page alone needs a larger one.
        limit: if is_stuck {
            question.limit * 2
        } else {
            question.limit
        },
        ..question.clone()
    };
    match direction {
        Direction::Forward => rest.span.first = cut?,
        Direction::Backward => rest.span.last = cut?,
    }
    Some(rest)
}

/// Points of whole nanoseconds in the order of their versions, those outside left out.
fn in_order(
    mut points: Vec<Point>,
    versions: Option<(Version, Version)>,
    direction: Direction,
) -> VecDeque<Point> {
    if let Some((first, last)) = versions {
        points.retain(|point| (first..=last).contains(&point.record.head.own));
    }
    points.sort_by(|a, b| directed(a.record.head.own.cmp(&b.record.head.own), direction));
    points.into()
}

fn span_of(versions: Option<(Version, Version)>) -> Span {
    versions.map_or(Span::ALL, |(first, last)| Span {
        first: time::nanos(first.stamp.time),
        last: time::nanos(last.stamp.time),
    })
}

fn directed(order: Ordering, direction: Direction) -> Ordering {
    match direction {
        Direction::Forward => order,
        Direction::Backward => order.reverse(),
    }
}

/// What a reader is told.
pub(crate) fn error(trouble: Trouble) -> Error {
    let kind = match trouble {
        Trouble::Bad(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    Error::new(
        kind,
        format!("cannot read history from InfluxDB: {}", trouble.message()),
    )
}
