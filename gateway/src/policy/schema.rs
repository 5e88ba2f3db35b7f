//! The keys of the policy files for editors, as a JSON schema, and for people, as tables of the manual.

use serde_json::{Map, Value, json};

use super::keys::Kind::{
    Choice, Flag, Interval, List, Number, NumberOrText, Text, TextOrList, Time,
};
#[cfg(test)]
use super::keys::MAX_INTEGER;
use super::keys::Otherwise::{Default, Required, Words};
use super::keys::{GATEWAY, Key, PEER, POOL, RULE, USER};

/// The JSON schema (draft 2020-12) of a policy file, for editors.
///
/// It knows tables, keys, types and ranges; what a string means is checked by [`super::load()`].
#[must_use]
pub fn schema() -> Value {
    let named = |keys| json!({ "type": "object", "additionalProperties": table(keys) });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy file of the IPsec gateway",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "gateway": table(GATEWAY),
            "peer": named(PEER),
            "pool": named(POOL),
            "user": named(USER),
            "rule": named(RULE),
        },
    })
}

fn table(keys: &[Key]) -> Value {
    let required: Vec<_> =
        keys.iter().filter(|key| matches!(key.otherwise, Required)).map(|key| key.name).collect();
    let properties: Map<_, _> =
        keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    })
}

fn property(key: &Key) -> Value {
    let mut property = match key.kind {
        Text | Time(..) | Interval => json!({ "type": "string" }),
        Number(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        NumberOrText => json!({ "type": ["string", "integer"] }),
        Flag => json!({ "type": "boolean" }),
        Choice(words) => json!({ "enum": words }),
        List => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
        TextOrList => json!({
            "type": ["string", "array"],
            "items": { "type": "string" },
            "minItems": 1,
        }),
    };
    if let Value::Object(fields) = &mut property {
        let mut description = key.meaning.to_owned();
        if let Time(least, most) = key.kind {
            description += &format!(" From {least} to {most}.");
        }
        if matches!(key.kind, Interval) {
            description += " From 1s to 365d, or 0s.";
        }
        if let Words(words) = key.otherwise {
            description += &format!(" Without it: {words}.");
        }
        let _previous = fields.insert("description".to_owned(), description.into());
        // A default is written as TOML; for strings and integers that is JSON too.
        if let Default(text) = key.otherwise
            && let Ok(default) = serde_json::from_str(text)
        {
            let _previous: Option<Value> = fields.insert("default".to_owned(), default);
        }
    }
    property
}

/// The keys of a table as a table of the manual.
#[cfg(test)]
pub(super) fn manual(keys: &[Key]) -> String {
    let mut text =
        String::from("| Key | Value | Without it | Meaning |\n| --- | --- | --- | --- |\n");
    for key in keys {
        let kind = match key.kind {
            Text => "string".to_owned(),
            Time(least, most) => format!("duration, `\"{least}\"` to `\"{most}\"`"),
            Interval => "duration, `\"1s\"` to `\"365d\"`, or `\"0s\"`".to_owned(),
            Number(_, max) if max == MAX_INTEGER => "number".to_owned(),
            Number(min, max) => format!("number, {min} to {max}"),
            NumberOrText => "string or number".to_owned(),
            Flag => "`true` or `false`".to_owned(),
            Choice(_) => "word".to_owned(),
            List => "list of strings".to_owned(),
            TextOrList => "string or list of strings".to_owned(),
        };
        let otherwise = match key.otherwise {
            Required => "**required**".to_owned(),
            Default(value) => format!("`{value}`"),
            Words(words) => words.to_owned(),
        };
        text += &format!("| `{}` | {kind} | {otherwise} | {} |\n", key.name, key.meaning);
    }
    text
}
