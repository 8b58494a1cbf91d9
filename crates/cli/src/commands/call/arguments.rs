//! The arguments of a tool as they are typed: one JSON object, `key=value` and `key:=JSON`, or `@FILE`.

use pilotlight_core::Error;
use rmcp::model::{JsonObject, Tool};
use serde_json::Value;

use crate::{config::bad_value, failure::Failure, mcp::Client};

/// What was typed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Typed {
    arguments: JsonObject,
    /// Values given as text that could be meant as a number, a switch or a list: the tool's schema tells.
    doubtful: Vec<String>,
}

impl Typed {
    /// Reads what was typed.
    ///
    /// # Errors
    /// `config.value`.
    pub(super) fn read(words: &[String]) -> Result<Self, Error> {
        let mut typed = Self::default();
        match words {
            [one] if one.starts_with('{') => typed.arguments = object("arguments", one)?,
            [one] if one.starts_with('@') => {
                let path = one.trim_start_matches('@');
                let text = match path {
                    "-" => std::io::read_to_string(std::io::stdin()),
                    path => std::fs::read_to_string(path),
                };
                typed.arguments = object(
                    path,
                    &text.map_err(|error| bad_value(path, error.to_string()))?,
                )?;
            }
            words => {
                for word in words {
                    typed.pair(word)?;
                }
            }
        }
        Ok(typed)
    }

    fn pair(&mut self, word: &str) -> Result<(), Error> {
        let bad = || {
            bad_value(
                word,
                "write key=value, key:=JSON, one JSON object, or @FILE",
            )
        };
        let (key, text) = word.split_once('=').ok_or_else(bad)?;
        let (key, value) = match key.strip_suffix(':') {
            Some(key) => (
                key,
                serde_json::from_str(text).map_err(|error| bad_value(word, error.to_string()))?,
            ),
            None => {
                if serde_json::from_str::<Value>(text).is_ok_and(|value| !value.is_string()) {
                    self.doubtful.push(key.to_owned());
                }
                (key, Value::String(text.to_owned()))
            }
        };
        if key.is_empty() {
            return Err(bad());
        }
        self.arguments.insert(key.to_owned(), value);
        Ok(())
    }

    /// Settles what is doubtful, by the tool's own schema; where nothing is, the server is not asked.
    pub(super) async fn settle(&self, client: &Client, tool: &str) -> Result<JsonObject, Failure> {
        if self.doubtful.is_empty() {
            return Ok(self.arguments.clone());
        }
        let tools = client.tools().await?;
        Ok(self.settled_by(tools.iter().find(|known| known.name == tool)))
    }

    fn settled_by(&self, tool: Option<&Tool>) -> JsonObject {
        let mut arguments = self.arguments.clone();
        let properties = tool
            .and_then(|tool| tool.input_schema.get("properties"))
            .and_then(Value::as_object);
        for key in &self.doubtful {
            let kind = properties
                .and_then(|properties| properties.get(key))
                .and_then(|schema| schema.get("type"))
                .and_then(Value::as_str);
            if let (
                Some("number" | "integer" | "boolean" | "array" | "object" | "null"),
                Some(Value::String(text)),
            ) = (kind, arguments.get(key))
                && let Ok(value) = serde_json::from_str(text)
            {
                arguments.insert(key.clone(), value);
            }
        }
        arguments
    }
}

fn object(what: &str, text: &str) -> Result<JsonObject, Error> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(bad_value(what, "it is no JSON object")),
        Err(error) => Err(bad_value(what, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn read(words: &[&str]) -> Result<Typed, Error> {
        Typed::read(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn each_form_is_read() {
        assert_eq!(Value::Object(read(&[]).unwrap().arguments), json!({}));
        assert_eq!(
            Value::Object(read(&[r#"{"a": 1}"#]).unwrap().arguments),
            json!({ "a": 1 })
        );
        assert_eq!(
            Value::Object(read(&["a=b=c", "n:=[1]", "e="]).unwrap().arguments),
            json!({ "a": "b=c", "n": [1], "e": "" })
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"x": true}"#).unwrap();
        assert_eq!(
            Value::Object(
                read(&[&format!("@{}", file.path().display())])
                    .unwrap()
                    .arguments
            ),
            json!({ "x": true })
        );
        for bad in [
            vec!["word"],
            vec!["=x"],
            vec![":=1"],
            vec!["a:=}"],
            vec!["{"],
            vec!["@/does/not/exist"],
        ] {
            assert_eq!(read(&bad).unwrap_err().code(), "config.value", "{bad:?}");
        }
    }

    #[test]
    fn the_tools_schema_tells_a_number_from_a_text_that_looks_like_one() {
        let typed = read(&["text=5", "ms=200", "odd=7", "plain=word"]).unwrap();
        assert_eq!(typed.doubtful, ["text", "ms", "odd"]);
        let schema =
            json!({ "properties": { "text": { "type": "string" }, "ms": { "type": "integer" } } });
        let tool = Tool::new("slow", "", Arc::new(schema.as_object().unwrap().clone()));
        let expected = json!({ "text": "5", "ms": 200, "odd": "7", "plain": "word" });
        assert_eq!(Value::Object(typed.settled_by(Some(&tool))), expected);
    }
}
