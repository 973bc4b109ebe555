//! As much of JSON Schema as `docs/events.schema.json` uses. A keyword that it does not know is a failure, so that nothing
//! passes because it was not looked at.

use serde_json::{Map, Value};

/// Why `value` does not fit `schema`, if it does not. `root` is the whole schema.
pub(crate) fn mistake(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let Some(schema) = schema.as_object() else {
        return match schema {
            Value::Bool(true) => None,
            _ => Some(format!("{value} is not allowed here")),
        };
    };
    schema.iter().find_map(|(keyword, rule)| {
        let wrong = match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" => None,
            "$ref" => {
                let pointer = rule.as_str()?.trim_start_matches('#');
                mistake(root, root.pointer(pointer).expect("a definition"), value)
            }
            "oneOf" => one_of(root, rule, value),
            "const" => (rule != value).then(|| format!("{value} is not {rule}")),
            "enum" => {
                let words = rule.as_array().expect("a list");
                (!words.contains(value)).then(|| format!("{value} is none of {rule}"))
            }
            "type" => (!is_a(rule.as_str().expect("one type"), value))
                .then(|| format!("{value} is no {rule}")),
            "minimum" => (value.as_f64() < rule.as_f64()).then(|| format!("{value} < {rule}")),
            "required" => {
                let names = rule.as_array().expect("a list").iter();
                let mut names = names.map(|name| name.as_str().expect("a name"));
                names
                    .find(|name| value.get(name).is_none())
                    .map(|name| format!("{name} is missing"))
            }
            "properties" => fields(value).find_map(|(name, field)| {
                let wrong = mistake(root, rule.get(name)?, field)?;
                Some(format!("{name}: {wrong}"))
            }),
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                fields(value)
                    .filter(|(name, _)| !known.is_some_and(|known| known.contains_key(*name)))
                    .find_map(|(name, field)| {
                        let wrong = mistake(root, rule, field)?;
                        Some(format!("{name}: {wrong}"))
                    })
            }
            "items" => value
                .as_array()?
                .iter()
                .find_map(|item| mistake(root, rule, item)),
            _ => panic!("the schema has the keyword {keyword}, which this test does not know"),
        };
        wrong.map(|wrong| format!("{wrong} ({keyword})"))
    })
}

fn one_of(root: &Value, rule: &Value, value: &Value) -> Option<String> {
    let mistakes: Vec<_> = rule
        .as_array()
        .expect("a list")
        .iter()
        .map(|schema| mistake(root, schema, value))
        .collect();
    match mistakes.iter().filter(|it| it.is_none()).count() {
        1 => None,
        0 => Some(format!("{value} is nothing known: {mistakes:#?}")),
        n => Some(format!("{value} is {n} things")),
    }
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("the schema has the type {kind}"),
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let object: Option<&Map<String, Value>> = value.as_object();
    object
        .into_iter()
        .flatten()
        .map(|(name, field)| (name.as_str(), field))
}
