//! The JSON Schema of a configuration file, for editors, and a file to start from.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::model::File;

/// A commented configuration to start from. It is valid as it is.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The JSON Schema (draft 2020-12) of a configuration file.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12();
    let mut schema = settings.into_generator().into_root_schema_for::<File>().to_value();
    tidy(&mut schema);
    schema
}

/// Takes out what TOML cannot say, `null`, and the line breaks of the source code.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, value| !(key == "default" && value.is_null()));
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            }
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;
    use crate::config::tests::fixtures;
    use crate::host::files;
    use crate::plan::{Request, plan};

    #[test]
    fn the_example_is_valid_and_every_profile_in_it_can_be_planned() {
        let config = parse("example.toml", EXAMPLE).unwrap();
        for profile in config.profiles.keys() {
            let request = Request { profile: Some(profile.clone()), ..Request::default() };
            plan(&request, &config).unwrap();
        }
        assert_eq!(plan(&Request::default(), &config).unwrap().profile, "deploy");
    }

    #[test]
    fn the_example_still_holds_where_its_comments_are_taken_away() {
        let text = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.starts_with('[') || rest.contains(" = ") => rest,
                _ => line,
            })
            .collect::<Vec<_>>()
            .join("\n");
        assert_ne!(text, EXAMPLE.trim_end());
        parse("example.toml", &text).unwrap();
    }

    /// Whether a value fits a schema, as far as shapes, names and choices go.
    fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
        if let Some(Value::String(place)) = schema.get("$ref") {
            return fits(root, root.pointer(place.strip_prefix('#').unwrap()).unwrap(), value);
        }
        for choice in ["oneOf", "anyOf"] {
            if let Some(Value::Array(choices)) = schema.get(choice)
                && !choices.iter().any(|choice| fits(root, choice, value))
            {
                return false;
            }
        }
        let kind = match value {
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Null => "null",
        };
        if schema.get("type").is_some_and(|wanted| wanted != kind)
            || schema.get("const").is_some_and(|only| only != value)
        {
            return false;
        }
        if let (Some(max), Some(number)) = (schema.get("maximum"), value.as_i64())
            && number > max.as_i64().unwrap()
        {
            return false;
        }
        if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
            return list.iter().all(|item| fits(root, items, item));
        }
        let Some(object) = value.as_object() else { return true };
        let required = schema.get("required").and_then(Value::as_array);
        required.into_iter().flatten().all(|name| object.contains_key(name.as_str().unwrap()))
            && object.iter().all(|(name, value)| {
                match (
                    schema.get("properties").and_then(|p| p.get(name)),
                    schema.get("additionalProperties"),
                ) {
                    (Some(known), _) => fits(root, known, value),
                    (None, Some(Value::Bool(allowed))) => *allowed,
                    (None, Some(other)) => fits(root, other, value),
                    (None, None) => true,
                }
            })
    }

    #[test]
    fn the_schema_takes_what_the_program_takes() {
        let schema = schema();
        assert!(!schema.to_string().contains("null"), "TOML has no null");
        let parse = |text: &str| toml::from_str::<Value>(text).ok();
        assert!(fits(&schema, &schema, &parse(EXAMPLE).unwrap()));

        let read = |path: &Path| files::read_text(path, 1 << 20).unwrap();
        let mut seen = [0, 0];
        for folder in fixtures() {
            let Some(value) = read(&folder.join("config.toml"))
                .as_deref()
                .and_then(|text| parse(text.trim_start_matches('\u{feff}')))
            else {
                continue;
            };
            let said = read(&folder.join("expected.txt")).unwrap();
            let name = folder.file_name().unwrap().to_str().unwrap();
            let shape = ["unknown-key", "unknown-table", "unknown-type", "missing-", "wrong-types"]
                .iter()
                .any(|start| name.starts_with(start));
            if shape {
                assert!(!fits(&schema, &schema, &value), "{name}");
                seen[0] += 1;
            } else if !said.starts_with("error") {
                assert!(fits(&schema, &schema, &value), "{name}");
                seen[1] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
    }
}
