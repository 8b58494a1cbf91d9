//! `tools`: what a server can do.

use pilotlight_core::resource::clean;
use rmcp::model::Tool;
use serde_json::json;

use crate::{
    app::{App, Stay},
    args::Tools,
    failure::Failure,
    mcp::Client,
};

pub(crate) async fn run(app: &App, args: Tools) -> Result<(), Failure> {
    let (session, target) = super::grant::session(app, &args.target, Stay::Brief).await?;
    let client = Client::new(session, target, args.request.wire, args.request.timeout);
    let tools = app
        .report
        .wait("asking the server for its tools", Box::pin(client.tools()))
        .await?;
    client.close().await;
    if app.report.json() {
        app.report.object(json!({ "tools": tools }));
    } else if tools.is_empty() {
        app.report.say("The server has no tools.");
    } else {
        app.report
            .data(tools.iter().map(described).collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

/// A tool in a few lines: what it is called, what it takes, what it does.
fn described(tool: &Tool) -> String {
    let required: Vec<&str> = tool
        .input_schema
        .get("required")
        .and_then(|list| list.as_array())
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str())
        .collect();
    let properties = tool
        .input_schema
        .get("properties")
        .and_then(|map| map.as_object());
    let arguments: Vec<String> = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| {
            let kind = schema
                .get("type")
                .and_then(|kind| kind.as_str())
                .unwrap_or("any");
            let sign = if kind == "string" { "=" } else { ":=" };
            let argument = format!("{}{sign}{}", clean(name), clean(kind));
            if required.contains(&name.as_str()) {
                argument
            } else {
                format!("[{argument}]")
            }
        })
        .collect();
    let mut text = format!("{} {}", clean(&tool.name), arguments.join(" "))
        .trim_end()
        .to_owned();
    if let Some(line) = tool
        .description
        .as_deref()
        .and_then(|text| text.lines().find(|line| !line.trim().is_empty()))
    {
        text.push_str(&format!("\n    {}", clean(line.trim())));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_tool_shows_what_it_takes() {
        let schema = json!({
            "type": "object",
            "properties": { "text": { "type": "string" }, "times": { "type": "integer" } },
            "required": ["text"],
        });
        let schema = schema.as_object().unwrap().clone();
        let tool = Tool::new(
            "echo",
            "\n  Gives its text back.\nAnd more.",
            Arc::new(schema),
        );
        assert_eq!(
            described(&tool),
            "echo text=string [times:=integer]\n    Gives its text back."
        );
    }
}
