//! Zenoh's part of the settings: read as Zenoh reads it, with every mistake told where it was
//! written.

use serde_json::Value;
use weir_settings::{Diagnostic, Loaded, Sources, did_you_mean};

/// Mistakes that are looked for. One more is found each time the part that holds the last one is
/// left out; a file with more than this is no Zenoh configuration at all.
const PROBLEMS_MAX: usize = 32;

/// Adds to `loaded` what Zenoh says about its part, so that one report has it all. Settings with
/// such an error are none.
pub fn check(loaded: &mut Loaded) {
    let mut problems = problems(&loaded.zenoh, &loaded.sources);
    if !problems.is_empty() {
        loaded.diagnostics.append(&mut problems);
        loaded.settings = None;
    }
}

fn problems(zenoh: &Value, sources: &Sources) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let mut rest = zenoh.clone();
    while let Some(problem) = first_problem(&rest, sources) {
        let left_out = remove(&mut rest, &problem.path);
        problems.push(problem);
        if !left_out || problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    if problems.is_empty() {
        // Reading it as text runs Zenoh's own checks across fields, which deserialising does not.
        let whole = zenoh::Config::from_json5(&zenoh.to_string());
        problems.extend(
            whole
                .err()
                .map(|e| sources.zenoh_problem("", &e.to_string())),
        );
    }
    problems
}

/// The first thing that Zenoh does not understand.
fn first_problem(zenoh: &Value, sources: &Sources) -> Option<Diagnostic> {
    let error = serde_path_to_error::deserialize::<_, zenoh::Config>(zenoh).err()?;
    let path = error.path().to_string();
    let path = if path == "." { "" } else { &path };
    Some(describe(path, &error.into_inner().to_string(), sources))
}

/// Serde reports an unknown field as `unknown field `x`, expected one of `a`, `b``, at the path
/// either of the object or of the field, depending on how the object is read.
fn describe(path: &str, message: &str, sources: &Sources) -> Diagnostic {
    let Some((name, known)) = unknown_field(message) else {
        return sources.zenoh_problem(path, message);
    };
    let at_field = path == name || path.ends_with(&format!(".{name}"));
    let path = match (path, at_field) {
        ("", _) => name.to_owned(),
        (path, true) => path.to_owned(),
        (path, false) => format!("{path}.{name}"),
    };
    let mut problem = sources.zenoh_problem(&path, &format!("there is no setting `{name}` here"));
    problem.help = did_you_mean(name, known.iter().copied())
        .or_else(|| Some(format!("zenoh knows {}", known.join(", "))));
    problem
}

/// The field, and those that would be right.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2);
    let name = quoted.next()?;
    Some((name, quoted.collect()))
}

/// Takes the entry at `a/b/0` out; false if there is none.
fn remove(zenoh: &mut Value, path: &str) -> bool {
    let Some((above, last)) = path.rsplit_once('/').or(Some(("", path))) else {
        return false;
    };
    let names = above.split('/').filter(|name| !name.is_empty());
    let parent = names.into_iter().try_fold(zenoh, |at, name| match at {
        Value::Object(map) => map.get_mut(name),
        Value::Array(items) => items.get_mut(name.parse::<usize>().ok()?),
        _ => None,
    });
    match parent {
        Some(Value::Object(map)) => map.remove(last).is_some(),
        Some(Value::Array(items)) => match last.parse::<usize>() {
            Ok(index) if index < items.len() => {
                items.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use weir_settings::{Flag, Layers, load};

    use super::*;

    /// Loads a configuration given as one JSON5 text; the problems are `path: message (help)`.
    fn check_text(text: &str, expected: &[&str]) {
        let flags = vec![Flag::cfg(&format!(":{text}")).unwrap()];
        let mut loaded = load(&Layers {
            flags,
            ..Layers::default()
        });
        assert!(
            loaded.settings.is_some(),
            "{text}: {:?}",
            loaded.diagnostics
        );
        check(&mut loaded);
        let problems: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), expected.len(), "{text}: {problems:#?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{text}: {problem}");
        }
        assert_eq!(loaded.settings.is_some(), expected.is_empty());
    }

    #[test]
    fn zenoh_says_what_it_does_not_understand_and_where() {
        check_text("{}", &[]);
        check_text(
            "{mode: 'router', listen: {endpoints: ['tcp/127.0.0.1:7447']}}",
            &[],
        );
        check_text("{scouting: {multicast: {enabled: false}}}", &[]);
        check_text("{mode: 'ruter'}", &["mode: "]);
        check_text("{adminspace: 7}", &["adminspace: "]);
        check_text("{connect: {endpoint: []}}", &["did you mean `endpoints`?"]);
        check_text(
            "{scouting: {multicast: {enabled: 7}}, transport: {unicast: {max_sesions: 3}}}",
            &[
                "scouting/multicast/enabled",
                "transport/unicast/max_sesions",
            ],
        );
    }
}
