//! Removes versions from the server.

use std::collections::{HashMap, HashSet};

use weir_backend_api::Direction;
use weir_core::{record::Record, version::Version};

use crate::{
    http::Trouble,
    query::Span,
    server::{Question, Server},
    spool::{Entry, Outcome},
    ties,
};

/// Removes the versions of some entries, and says what became of each: where single points cannot be
/// removed, they stay hidden by what stays in the local store.
///
/// # Errors
/// [`Trouble`]; some may be removed.
pub(crate) fn carry_out(
    server: &Server,
    work: &[(Entry, Option<Record>)],
) -> Result<Vec<Outcome>, Trouble> {
    if !server.can_delete()? {
        return Ok(vec![Outcome::Kept; work.len()]);
    }
    let mut by_key: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for (entry, _) in work {
        by_key.entry(&entry.key).or_default().push(entry);
    }
    let groups: Vec<Vec<&Entry>> = by_key.into_values().collect();
    let questions: Vec<Question> = groups
        .iter()
        .map(|entries| ties::question(entries))
        .collect();
    let pages = server.select(&questions, Direction::Forward)?;
    let (mut points, mut spans) = (Vec::new(), Vec::new());
    for ((page, question), entries) in pages.into_iter().zip(&questions).zip(&groups) {
        let gone: HashSet<Version> = entries.iter().map(|entry| entry.version).collect();
        let is_gone = |point: &crate::point::Point| gone.contains(&point.record.head.own);
        if page.cut.is_some() {
            let found = ties::each_alone(server, question, entries)?;
            points.extend(found.into_iter().filter(is_gone));
        } else if !page.has_others && page.points.iter().all(is_gone) {
            // Retention: everything between the first and the last goes, in one piece.
            let names: HashSet<&str> = page.points.iter().map(|point| &*point.name).collect();
            spans.extend(
                names
                    .into_iter()
                    .map(|name| (name.to_owned(), question.span)),
            );
        } else {
            points.extend(page.points.into_iter().filter(is_gone));
        }
    }
    if !points.is_empty() || !spans.is_empty() {
        let spans: Vec<(String, Span)> = spans;
        server.delete(&points, &spans)?;
    }
    Ok(vec![Outcome::Done; work.len()])
}
