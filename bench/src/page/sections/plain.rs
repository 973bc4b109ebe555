//! Results as they are, for kinds that have no plots: tables of whatever the JSON has.

use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::spread;
use crate::Sample;
use crate::page::axis::figure;

/// Tables of all but the machine.
pub(super) fn body(results: &Value) -> Markup {
    let Some(object) = results.as_object() else {
        return html! { p { (short(results)) } };
    };
    html! { (object_table(object)) }
}

fn object_table(object: &Map<String, Value>) -> Markup {
    let own = || object.iter().filter(|(name, _)| *name != "machine");
    html! {
        div.scroll {
            table {
                @for (name, value) in own().filter(|(_, value)| is_short(value)) {
                    tr { td { (words(name)) } td.words { (short(value)) } }
                }
            }
        }
        @for (name, value) in own().filter(|(_, value)| !is_short(value)) {
            h3 { (words(name)) }
            @match value {
                Value::Array(rows) => (array_table(rows)),
                Value::Object(inner) => (object_table(inner)),
                other => (short(other)),
            }
        }
    }
}

/// Objects in rows; columns are the fields that any has, those of words first.
fn array_table(rows: &[Value]) -> Markup {
    let mut columns: Vec<&String> = Vec::new();
    for name in rows.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    // What a row is of comes first.
    let is_text = |name: &&String| rows.iter().any(|row| row[name.as_str()].is_string());
    columns.sort_by_key(|name| !is_text(name));
    html! {
        div.scroll {
            table {
                tr { @for name in &columns { th { (words(name)) } } }
                @for row in rows {
                    tr { @for name in &columns { td { (short(&row[name.as_str()])) } } }
                }
            }
        }
    }
}

fn is_short(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|it| !it.is_object() && !it.is_array()),
        Value::Object(_) => Sample::deserialize(value).is_ok(),
        _ => true,
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), figure),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            Sample::deserialize(value).map_or_else(|_| in_words(fields), spread)
        }
    }
}

/// The fields of an object that is only a part of a line.
fn in_words(fields: &Map<String, Value>) -> String {
    let field = |(name, value): (&String, &Value)| format!("{} {}", words(name), short(value));
    let fields: Vec<String> = fields.iter().map(field).collect();
    fields.join(", ")
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}
