//! The settings in force as text, and the JSON schema of ours.

use crate::forward::{BUDGET_FIELDS, FORWARD_FIELDS, FORWARD_POLICY_FIELDS, LANE_FIELDS};
use crate::influx::SERVER_FIELDS;
use crate::path::KeyPath;
use crate::plugins::ZENOH_FIELDS;
use crate::policy::{LIMIT_FIELDS, POLICY_FIELDS, STORAGE_POLICY_FIELDS};
use crate::servers::{HTTP_FIELDS, REST_FIELDS};
use crate::settings::{Loaded, OUR_FIELDS};
use crate::source::{Origin, Sources};
use crate::storage::{
    COLLECTION_FIELDS, ENGINE_FIELDS, MIRROR_FIELDS, QUEUE_FIELDS, RETAIN_FIELDS, SHARD_BY_FIELDS,
    SHARD_FIELDS, SPOOL_FIELDS, STORAGE_FIELDS, VOLUME_ID_FIELDS,
};
use crate::table::Field;
use crate::volume::VOLUME_FIELDS;
use serde_json::{Map, Value, json};

/// The settings in force as JSON5, secrets masked; with `origin`, each line says where its value
/// was written. Empty if the settings have errors.
#[must_use]
pub fn show(loaded: &Loaded, origin: bool) -> String {
    let Some(settings) = &loaded.settings else {
        return String::new();
    };
    let sources = origin.then_some(&loaded.sources);
    let mut lines = Vec::new();
    write(
        &mut lines,
        sources,
        &KeyPath::default(),
        "",
        &settings.effective,
        "",
    );
    let width = lines
        .iter()
        .map(|(line, _)| line.chars().count())
        .filter(|w| *w <= 60)
        .max();
    let width = width.unwrap_or_default();
    let lines = lines.into_iter().map(|(line, comment)| match comment {
        Some(comment) => format!("{line:width$}  // {comment}\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

type Line = (String, Option<String>);

fn write(
    lines: &mut Vec<Line>,
    sources: Option<&Sources>,
    path: &KeyPath,
    label: &str,
    value: &Value,
    end: &str,
) {
    let indent = "  ".repeat(path.names().len());
    let nested = |value: &Value| value.is_object() || value.is_array();
    match value {
        Value::Object(map) if !map.is_empty() => {
            lines.push((format!("{indent}{label}{{"), None));
            for (name, value) in map {
                let label = format!("{}: ", key(name));
                write(lines, sources, &path.join(name), &label, value, ",");
            }
            lines.push((format!("{indent}}}{end}"), None));
        }
        Value::Array(items) if items.iter().any(nested) => {
            lines.push((format!("{indent}{label}["), None));
            for (index, value) in items.iter().enumerate() {
                write(
                    lines,
                    sources,
                    &path.join(index.to_string()),
                    "",
                    value,
                    ",",
                );
            }
            lines.push((format!("{indent}]{end}"), None));
        }
        leaf => {
            let text = match is_secret(path) {
                true => "\"***\"".to_owned(),
                false => leaf.to_string().replace("\",\"", "\", \""),
            };
            let comment = sources.map(|sources| match sources.origin_of(path) {
                Origin::Default => "default".to_owned(),
                origin => origin.to_string(),
            });
            lines.push((format!("{indent}{label}{text}{end}"), comment));
        }
    }
}

fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let identifier = !name.is_empty() && name.chars().all(plain);
    match identifier && !name.starts_with(|c: char| c.is_ascii_digit()) {
        true => name.to_owned(),
        false => Value::from(name).to_string(),
    }
}

/// Whether an entry must not be shown: what is private, passwords, and keys given as text.
fn is_secret(path: &KeyPath) -> bool {
    path.names().iter().any(|name| {
        matches!(
            name.as_str(),
            "private" | "password" | "token" | "private_key_pem"
        ) || name.ends_with("_base64")
    })
}

/// The JSON schema (draft 2020-12) of our part of the configuration. Zenoh's part is let through.
#[must_use]
pub fn schema() -> Value {
    let storage = {
        let mut storage = object(&[STORAGE_FIELDS, ENGINE_FIELDS, SERVER_FIELDS]);
        let volume = json!({
            "anyOf": [{ "type": "string" }, object(&[VOLUME_ID_FIELDS, ENGINE_FIELDS, SERVER_FIELDS])],
        });
        refine(&mut storage, "volume", volume.clone());
        refine(&mut storage, "backend", volume);
        let shards = object(&[SHARD_FIELDS, ENGINE_FIELDS, SERVER_FIELDS]);
        refine(
            &mut storage,
            "shards",
            json!({ "type": "array", "items": shards, "minItems": 1 }),
        );
        refine(&mut storage, "shard_by", object(&[SHARD_BY_FIELDS]));
        refine(&mut storage, "retain", object(&[RETAIN_FIELDS]));
        refine(
            &mut storage,
            "garbage_collection",
            object(&[COLLECTION_FIELDS]),
        );
        refine(&mut storage, "queue", object(&[QUEUE_FIELDS]));
        refine(&mut storage, "spool", object(&[SPOOL_FIELDS]));
        refine(&mut storage, "policies", object(&[STORAGE_POLICY_FIELDS]));
        let mirror =
            json!({ "anyOf": [{ "type": "boolean" }, object(&[MIRROR_FIELDS])], "default": true });
        refine(&mut storage, "mirror", mirror);
        storage
    };
    let named = |of: Value| json!({ "type": "object", "additionalProperties": of });
    let or_switch = |of: Value| json!({ "anyOf": [{ "type": "boolean" }, of] });
    let mut schema = object(&[OUR_FIELDS]);
    refine(&mut schema, "http", or_switch(object(&[HTTP_FIELDS])));
    refine(&mut schema, "rest", or_switch(object(&[REST_FIELDS])));
    refine(
        &mut schema,
        "volumes",
        named(object(&[VOLUME_FIELDS, SERVER_FIELDS])),
    );
    refine(&mut schema, "storages", named(storage));
    let patterns = json!({ "type": ["string", "array"], "items": { "type": "string" } });
    refine(&mut schema, "shard_groups", named(patterns));
    let link = {
        let mut link = object(&[FORWARD_FIELDS]);
        refine(&mut link, "budget", object(&[BUDGET_FIELDS]));
        let lane = object(&[LANE_FIELDS]);
        refine(
            &mut link,
            "lanes",
            json!({ "type": "array", "items": lane }),
        );
        refine(&mut link, "policies", object(&[FORWARD_POLICY_FIELDS]));
        // A key expression alone is a link.
        json!({ "anyOf": [{ "type": ["string", "array"], "items": { "type": "string" } }, link] })
    };
    refine(&mut schema, "forward", named(link));
    let mut policies = object(&[POLICY_FIELDS]);
    refine(&mut policies, "limits", object(&[LIMIT_FIELDS]));
    refine(&mut schema, "policies", policies);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Weir");
    schema["properties"]["$schema"] = json!({ "type": "string" });
    for name in ZENOH_FIELDS {
        schema["properties"][name] = json!({ "description": "Zenoh's own." });
    }
    schema
}

fn object(fields: &[&[Field]]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .copied()
        .flatten()
        .map(|field| {
            let mut schema = serde_json::from_str(field.schema).unwrap_or_else(|_| json!({}));
            if !schema.is_object() {
                schema = json!({});
            }
            schema["description"] = json!(field.about);
            (field.name.to_owned(), schema)
        })
        .collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// Replaces a property's schema and keeps its description.
fn refine(object: &mut Value, name: &str, mut schema: Value) {
    let property = &mut object["properties"][name];
    schema["description"] = property["description"].take();
    *property = schema;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_readable_schema() {
        let all = [
            OUR_FIELDS,
            HTTP_FIELDS,
            REST_FIELDS,
            VOLUME_FIELDS,
            STORAGE_FIELDS,
            ENGINE_FIELDS,
            SERVER_FIELDS,
            RETAIN_FIELDS,
            COLLECTION_FIELDS,
            QUEUE_FIELDS,
            SPOOL_FIELDS,
            MIRROR_FIELDS,
            SHARD_BY_FIELDS,
            SHARD_FIELDS,
            VOLUME_ID_FIELDS,
            POLICY_FIELDS,
            LIMIT_FIELDS,
            STORAGE_POLICY_FIELDS,
            FORWARD_FIELDS,
            BUDGET_FIELDS,
            LANE_FIELDS,
            FORWARD_POLICY_FIELDS,
        ];
        for field in all.into_iter().flatten() {
            assert!(
                serde_json::from_str::<Value>(field.schema).is_ok(),
                "{}",
                field.name
            );
            assert!(field.about.ends_with('.'), "{}", field.name);
        }
        let storage = &schema()["properties"]["storages"]["additionalProperties"];
        assert_eq!(
            storage["properties"]["retain"]["properties"]["versions"]["minimum"],
            1
        );
        assert_eq!(storage["properties"]["history"]["default"], "latest");
    }
}
