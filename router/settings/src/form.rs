//! One form for every layer, so that layers in different forms can be merged, and the way back
//! from there to what was written.

use crate::influx::SERVER_FIELDS;
use crate::path::KeyPath;
use crate::storage::ENGINE_FIELDS;
use serde_json::{Map, Value, json};

/// Rewrites a layer in our form: what the storage manager and the REST plugin are told moves to
/// the top, settings of a storage's volume move beside it, `backend` and `key_exprs` take their
/// usual names. What is no object, or is said twice in this layer, stays where it is and is told
/// when it is read.
pub(crate) fn canonical(mut value: Value) -> Value {
    let Value::Object(root) = &mut value else {
        return value;
    };
    if let Some(Value::Object(plugins)) = root.get_mut("plugins") {
        let rest = plugins.remove("rest");
        let (volumes, storages) = match plugins.get_mut("storage_manager") {
            Some(Value::Object(manager)) => (
                take_object(manager, "volumes"),
                take_object(manager, "storages"),
            ),
            _ => (None, None),
        };
        for (name, moved) in [("rest", rest), ("volumes", volumes), ("storages", storages)] {
            if let Some(moved) = moved {
                let ours = root.remove(name);
                root.insert(
                    name.into(),
                    ours.map_or(moved.clone(), |ours| overlay(moved, ours)),
                );
            }
        }
    }
    if let Some(Value::Object(storages)) = root.get_mut("storages") {
        storages
            .values_mut()
            .filter_map(Value::as_object_mut)
            .for_each(canonical_storage);
    }
    if let Some(Value::Object(links)) = root.get_mut("forward") {
        for link in links.values_mut() {
            // A link that is nothing but its keys.
            if link.is_string() || link.is_array() {
                *link = json!({ "key_expr": link.take() });
            }
        }
    }
    value
}

/// One storage in our form.
pub(crate) fn canonical_storage(storage: &mut Map<String, Value>) {
    rename(storage, "backend", "volume");
    rename(storage, "key_exprs", "key_expr");
    if let Some(Value::Array(shards)) = storage.get_mut("shards") {
        shards
            .iter_mut()
            .filter_map(Value::as_object_mut)
            .for_each(|shard| {
                rename(shard, "backend", "volume");
            });
    }
    let Some(Value::Object(mut volume)) = take_object(storage, "volume") else {
        return;
    };
    for field in ENGINE_FIELDS
        .iter()
        .chain(SERVER_FIELDS)
        .map(|field| field.name)
    {
        if !storage.contains_key(field)
            && let Some(value) = volume.remove(field)
        {
            storage.insert(field.into(), value);
        }
    }
    let only_id = volume.len() == 1 && volume.get("id").is_some_and(Value::is_string);
    let volume = match volume.remove("id") {
        Some(id) if only_id => id,
        Some(id) => {
            volume.insert("id".into(), id);
            Value::Object(volume)
        }
        None => Value::Object(volume),
    };
    storage.insert("volume".into(), volume);
}

fn take_object(map: &mut Map<String, Value>, name: &str) -> Option<Value> {
    map.get(name)
        .is_some_and(Value::is_object)
        .then(|| map.remove(name))
        .flatten()
}

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if !map.contains_key(to)
        && let Some(value) = map.remove(from)
    {
        map.insert(to.into(), value);
    }
}

/// Lays one tree over another; objects are merged, anything else is replaced.
fn overlay(below: Value, above: Value) -> Value {
    match (below, above) {
        (Value::Object(mut below), Value::Object(above)) => {
            for (name, value) in above {
                let old = below.remove(&name).unwrap_or(Value::Null);
                below.insert(name, overlay(old, value));
            }
            Value::Object(below)
        }
        (_, above) => above,
    }
}

/// The paths at which an entry in our form may have been written, the likeliest first.
pub(crate) fn written_as(path: &KeyPath) -> Vec<KeyPath> {
    let names: Vec<&str> = path.names().iter().map(String::as_str).collect();
    let mut all = vec![path.clone()];
    match &names[..] {
        ["storages", rest @ ..] => {
            let mut here = vec![join(&["storages"], rest)];
            if let [name, field, inner @ ..] = rest {
                let sibling = |names: &[&str]| join(&["storages", name], &[names, inner].concat());
                match *field {
                    // A volume's name where it is one, and the whole of what was said where that is asked for.
                    "volume" => {
                        here.insert(0, sibling(&["volume", "id"]));
                        here.extend([sibling(&["backend", "id"]), sibling(&["backend"])]);
                    }
                    "key_expr" => here.push(sibling(&["key_exprs"])),
                    "shards" if inner.last() == Some(&"volume") => {
                        let shard = &inner[..inner.len() - 1];
                        here.push(join(
                            &["storages", name, "shards"],
                            &[shard, &["backend"]].concat(),
                        ));
                    }
                    field
                        if ENGINE_FIELDS
                            .iter()
                            .chain(SERVER_FIELDS)
                            .any(|known| known.name == field) =>
                    {
                        here.extend([sibling(&["volume", field]), sibling(&["backend", field])])
                    }
                    _ => {}
                }
            }
            let manager = KeyPath::parse("plugins/storage_manager");
            let there: Vec<KeyPath> = here.iter().map(|path| path.below(&manager)).collect();
            all = [here, there].concat();
        }
        ["volumes", ..] => all.push(path.below(&KeyPath::parse("plugins/storage_manager"))),
        ["forward", name, "key_expr", inner @ ..] => all.push(join(&["forward", name], inner)),
        ["rest", ..] => all.push(path.below(&KeyPath::parse("plugins"))),
        ["plugins", "rest", ..] => all.push(names[1..].iter().copied().collect()),
        _ => {}
    }
    all
}

fn join(head: &[&str], rest: &[&str]) -> KeyPath {
    head.iter().chain(rest).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brings_every_form_into_one() {
        let value = json!({
            "plugins": {
                "rest": { "http_port": 1 },
                "storage_manager": {
                    "volumes": { "v": {} },
                    "storages": {
                        "a": { "key_exprs": ["a"], "volume": { "id": "v", "dir": "d", "x": 1 } },
                        "b": { "backend": { "id": "v", "dir": "d" }, "dir": "e" },
                    },
                },
            },
            "storages": {
                "a": { "read_only": true },
                "c": { "backend": "fs", "volume": "fs", "shards": [{ "backend": "fs" }] },
            },
            "forward": { "a": "a/**", "b": ["b", "c"], "c": { "key_expr": "c" } },
        });
        assert_eq!(
            canonical(value),
            json!({
                "plugins": { "storage_manager": {} },
                "rest": { "http_port": 1 },
                "volumes": { "v": {} },
                "storages": {
                    "a": { "key_expr": ["a"], "dir": "d", "volume": { "id": "v", "x": 1 }, "read_only": true },
                    "b": { "volume": { "id": "v", "dir": "d" }, "dir": "e" },
                    "c": { "backend": "fs", "volume": "fs", "shards": [{ "volume": "fs" }] },
                },
                "forward": {
                    "a": { "key_expr": "a/**" },
                    "b": { "key_expr": ["b", "c"] },
                    "c": { "key_expr": "c" },
                },
            })
        );
    }

    #[test]
    fn leaves_what_makes_no_sense_to_be_told() {
        for value in [
            json!(1),
            json!({ "plugins": 1 }),
            json!({ "plugins": { "storage_manager": { "storages": 1 } } }),
            json!({ "storages": { "a": 1, "b": { "volume": 1 }, "c": { "volume": {} } } }),
        ] {
            assert_eq!(canonical(value.clone()), value);
        }
    }
}
