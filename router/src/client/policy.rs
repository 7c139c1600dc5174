//! `weir policy ls`: the policies of all routers, what serves where, and why the rest does not.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::ask::{ask, router_of, shown};
use super::storage::AskArgs;
use super::table::Table;
use super::{Outcome, Streams};

/// How much of a hash tells revisions apart for a person.
const HASH_SHOWN: usize = 8;

/// Arguments of `weir policy ls`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir policy ls
  weir policy ls --json

A row for each place where a policy is bound. STATE is that place's: absent, probation (a new
revision proves itself), serving, rolled-back, open (it failed too often and rests), half-open.
Below the rows: what is refused, missing or not signed, and the last failed call.

Exit status: 0 there are policies; 1 there are none; 2 error.")]
pub struct LsArgs {
    #[command(flatten)]
    ask: AskArgs,
}

/// Runs `weir policy ls`.
///
/// # Errors
/// If no router can be reached.
pub async fn ls(args: &LsArgs, streams: &mut Streams<'_>) -> Result<Outcome> {
    let bus = args.ask.connect.open().await?;
    let answers = ask(&bus, "@weir/*/policies/*", args.ask.timeout, streams).await?;
    bus.close().await?;
    let heads = [
        "POLICY", "ROUTER", "FILE", "WHERE", "HOOK", "STATE", "VERSION", "REVISION", "CALLS",
        "ERRORS", "P99 US",
    ];
    let mut table = Table::held(heads);
    let mut remarks = Vec::new();
    for (key, policy) in &answers.values {
        let router = router_of(key);
        if args.ask.json {
            let line = json!({ "router": router, "policy": policy });
            writeln!(streams.out, "{line}")?;
            continue;
        }
        for cells in rows(router, policy) {
            table.row(cells, streams.out)?;
        }
        remarks.extend(remarks_on(router, policy));
    }
    table.finish(streams.out)?;
    for remark in remarks {
        writeln!(streams.out, "{remark}")?;
    }
    streams.out.flush()?;
    Ok(match (answers.values.len(), answers.errors.len()) {
        (0, 0) => {
            writeln!(streams.err, "there is no policy")?;
            Outcome::Nothing
        }
        (_, 0) => Outcome::Done,
        _ => Outcome::Refused,
    })
}

/// A row for each slot, and one for a policy that is bound nowhere.
fn rows(router: &str, policy: &Value) -> Vec<[String; 11]> {
    let name = shown(policy, "name");
    let file = match &policy["file"] {
        Value::Null => "missing".to_owned(),
        file => shown(file, "state"),
    };
    let slots = policy["slots"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |slot: &Value, version: String, revision: &Value| {
        let errors: u64 = slot["errors"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, count)| count.as_u64())
            .sum();
        let cell = |field| shown(slot, field);
        let is_bound = !slot.is_null();
        let errors = if is_bound {
            errors.to_string()
        } else {
            "-".into()
        };
        let state = if is_bound {
            cell("state")
        } else {
            "unbound".into()
        };
        [
            name.clone(),
            router.to_owned(),
            file.clone(),
            cell("owner"),
            cell("hook"),
            state,
            version,
            short(revision),
            cell("calls"),
            errors,
            cell("p99_us"),
        ]
    };
    if slots.is_empty() {
        let version = shown(policy, "file.version");
        return vec![row(&Value::Null, version, &policy["file"]["hash"])];
    }
    let slots = slots.iter();
    slots
        .map(|slot| row(slot, shown(slot, "version"), &slot["revision"]))
        .collect()
}

/// What a person has to know beside the rows.
fn remarks_on(router: &str, policy: &Value) -> Vec<String> {
    let name = shown(policy, "name");
    let mut remarks = Vec::new();
    let mut remark = |what: String| remarks.push(format!("{name} on {router}: {what}"));
    if let Some(warning) = policy["warning"].as_str() {
        remark(warning.to_owned());
    }
    let refusal = &policy["file"]["refusal"];
    if !refusal.is_null() {
        let (code, message) = (shown(refusal, "code"), shown(refusal, "message"));
        remark(format!("refused: {code}: {message}"));
    }
    for slot in policy["slots"].as_array().into_iter().flatten() {
        let owner = shown(slot, "owner");
        let report = &slot["report"];
        if !report.is_null() {
            let (what, message) = (shown(report, "what"), shown(report, "message"));
            remark(format!("{owner}: {what}: {message}"));
        }
        let error = &slot["last_error"];
        if !error.is_null() {
            let (cause, blame) = (shown(error, "cause"), shown(error, "blame"));
            let (at, message) = (shown(error, "at"), shown(error, "message"));
            remark(format!(
                "{owner}: last error at {at}: {cause} ({blame}): {message}"
            ));
        }
    }
    remarks
}

fn short(hash: &Value) -> String {
    let hash = hash.as_str().and_then(|hash| hash.get(..HASH_SHOWN));
    hash.unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_a_row_for_each_place_and_remarks_for_what_is_wrong() {
        let hash = "0123456789abcdef";
        let slot = json!({
            "owner": "storages/fleet", "hook": "route", "state": "rolled-back", "revision": hash,
            "version": "1.2.3", "calls": 7, "errors": { "trap": 2, "fuel": 1 }, "p99_us": 12.34,
            "report": { "what": "rolled-back", "message": "failed too often" },
            "last_error": { "at": "then", "cause": "trap", "blame": "guest", "message": "boom" },
        });
        let file = json!({ "state": "ready", "hash": hash });
        let bound = json!({ "name": "geo", "file": file, "slots": [slot] });
        let expected = [
            "geo",
            "ab",
            "ready",
            "storages/fleet",
            "route",
            "rolled-back",
            "1.2.3",
            "01234567",
            "7",
            "3",
            "12.3",
        ];
        assert_eq!(rows("ab", &bound), [expected.map(str::to_owned)]);
        let expected = [
            "geo on ab: storages/fleet: rolled-back: failed too often",
            "geo on ab: storages/fleet: last error at then: trap (guest): boom",
        ];
        assert_eq!(remarks_on("ab", &bound), expected);

        let refusal = json!({ "code": "invalid", "message": "cut off" });
        let file = json!({ "state": "refused", "hash": hash, "refusal": refusal });
        let unbound = json!({ "name": "far", "file": file, "slots": [], "warning": "not signed" });
        let expected = [
            "far", "ab", "refused", "-", "-", "unbound", "-", "01234567", "-", "-", "-",
        ];
        assert_eq!(rows("ab", &unbound), [expected.map(str::to_owned)]);
        let expected = [
            "far on ab: not signed",
            "far on ab: refused: invalid: cut off",
        ];
        assert_eq!(remarks_on("ab", &unbound), expected);

        let missing = json!({ "name": "geo", "file": null, "slots": [] });
        assert_eq!(rows("ab", &missing)[0][2], "missing");
    }
}
