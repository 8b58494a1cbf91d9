//! Arguments for tools that nobody has told anything about: one value that each schema allows.

use serde_json::{Map, Value, json};

/// One value for each property.
pub(crate) fn samples(
    properties: Option<&Value>,
    any_object: Option<&Value>,
) -> Map<String, Value> {
    let properties = properties.and_then(Value::as_object).into_iter().flatten();
    let filled = properties.map(|(name, schema)| (name.clone(), sample(schema, any_object)));
    filled.collect()
}

/// A value that a schema allows: its default, its first choice, else one of its type. References are not followed.
fn sample(schema: &Value, any_object: Option<&Value>) -> Value {
    if let Some(given) = schema.get("default").or_else(|| schema["enum"].get(0)) {
        return given.clone();
    }
    match (schema["type"].as_str(), schema.get("properties")) {
        (Some("boolean"), _) => true.into(),
        (Some("integer"), _) => 1.into(),
        (Some("number"), _) => 1.5.into(),
        (Some("array"), _) => json!([]),
        (Some("object"), None) => any_object.cloned().unwrap_or_else(|| json!({})),
        (Some("object"), properties) => samples(properties, any_object).into(),
        _ => "x".into(),
    }
}
