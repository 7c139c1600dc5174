//! Different puts that carry one timestamp.
//!
//! They would be one point: same measurement, same tags, same nanosecond. The one that came first has
//! the place; every other gets a tag of its own. A put that is newer than all of its key cannot meet
//! another; before any other is written, the server is asked what it has there.

use std::collections::{HashMap, HashSet};

use weir_backend_api::Direction;
use weir_core::{record::Record, version::Version};

use crate::{
    http::Trouble,
    name, point,
    query::Span,
    server::{Question, Server},
    spool::{Entry, Task},
    time,
};

/// The places among the entries of those that get a tag of their own.
///
/// # Errors
/// [`Trouble`] of the questions.
pub(crate) fn find(
    server: &Server,
    work: &[(Entry, Option<Record>)],
) -> Result<HashSet<usize>, Trouble> {
    let mut held: HashMap<(&str, weir_core::version::Stamp), Version> = HashMap::new();
    let unsure = work.iter().filter(|(entry, _)| {
        entry.task == Task::Put { is_newest: false } && !entry.version.is_delete()
    });
    let mut by_key: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for (entry, _) in unsure {
        by_key.entry(&entry.key).or_default().push(entry);
    }
    let groups: Vec<(&str, Vec<&Entry>)> = by_key.into_iter().collect();
    let questions: Vec<Question> = groups
        .iter()
        .map(|(_, entries)| question(entries))
        .collect();
    for ((key, entries), points) in groups.iter().zip(answers(server, &questions, &groups)?) {
        let wanted: HashSet<_> = entries.iter().map(|entry| entry.version.stamp).collect();
        for point in points {
            let version = point.record.head.own;
            let [kind, id, _, tie, _] = &point.tags;
            // A point of the stock backend has no id: it is in nobody's place.
            let is_place = kind == "PUT" && tie.is_empty() && *id == point::id_text(version.stamp);
            if is_place && wanted.contains(&version.stamp) {
                held.insert((key, version.stamp), version);
            }
        }
    }
    let mut ties = HashSet::new();
    for (index, (entry, _)) in work.iter().enumerate() {
        if entry.version.is_delete() {
            continue;
        }
        let first = *held
            .entry((&entry.key, entry.version.stamp))
            .or_insert(entry.version);
        if first != entry.version {
            ties.insert(index);
        }
    }
    Ok(ties)
}

/// What is asked about entries of one key: everything between the first and the last.
pub(crate) fn question(entries: &[&Entry]) -> Question {
    let nanos = entries
        .iter()
        .map(|entry| time::nanos(entry.version.stamp.time));
    Question {
        names: entries
            .first()
            .map_or(Vec::new(), |entry| name::all_of(&entry.key)),
        span: Span {
            first: nanos.clone().min().unwrap_or(0),
            last: nanos.max().unwrap_or(0),
        },
        // More than that lies between them only if most of it is of no interest.
        limit: 2 * entries.len() + 16,
    }
}

/// The points of each question, or at least all those at the times of its entries.
fn answers(
    server: &Server,
    questions: &[Question],
    groups: &[(&str, Vec<&Entry>)],
) -> Result<Vec<Vec<point::Point>>, Trouble> {
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    let pages = server.select(questions, Direction::Forward)?;
    let mut answers = Vec::with_capacity(pages.len());
    for ((page, question), (_, entries)) in pages.into_iter().zip(questions).zip(groups) {
        if page.cut.is_none() {
            answers.push(page.points);
        } else {
            answers.push(each_alone(server, question, entries)?);
        }
    }
    Ok(answers)
}

/// The points at the times of entries, each time asked for by itself.
pub(crate) fn each_alone(
    server: &Server,
    question: &Question,
    entries: &[&Entry],
) -> Result<Vec<point::Point>, Trouble> {
    let times: HashSet<u64> = entries
        .iter()
        .map(|entry| time::nanos(entry.version.stamp.time))
        .collect();
    let questions: Vec<Question> = times
        .into_iter()
        .map(|nanos| Question {
            names: question.names.clone(),
            span: Span::at(nanos),
            // Whoever shares a nanosecond: five fractions, and as many sources as there are.
            limit: 10_000,
        })
        .collect();
    let pages = server.select(&questions, Direction::Forward)?;
    Ok(pages.into_iter().flat_map(|page| page.points).collect())
}
