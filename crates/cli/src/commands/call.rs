//! `call`: one tool, once, several times at once, or again and again.

mod arguments;
mod pace;

use pilotlight_core::resource::clean;
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::json;

use crate::{
    app::{App, Stay},
    args::{Call, Tools},
    failure::Failure,
    mcp::Client,
};
use arguments::Typed;

pub(crate) async fn run(app: &App, args: Call) -> Result<(), Failure> {
    let Some(tool) = &args.tool else {
        let tools = Tools {
            target: args.target,
            request: args.request,
        };
        return Box::pin(super::tools::run(app, tools)).await;
    };
    let typed = Typed::read(&args.arguments)?;
    let looping = args.every.is_some();
    let stay = if looping { Stay::Long } else { Stay::Brief };
    let (session, target) = super::grant::session(app, &args.target, stay).await?;
    let client = Client::new(session, target, args.request.wire, args.request.timeout);

    let done = if looping || args.parallel.is_some() {
        let task = pace::Task {
            client: &client,
            tool,
            typed: &typed,
            lanes: args.parallel.unwrap_or(1),
            pace: args.every.zip(args.during),
        };
        pace::run(app, task).await
    } else {
        let what = format!("calling {}", clean(tool));
        let work = async {
            let arguments = typed.settle(&client, tool).await?;
            client.call(tool, &arguments).await
        };
        match app.report.wait(&what, Box::pin(work)).await {
            Ok(result) => print(app, &result),
            Err(failure) => Err(failure),
        }
    };
    client.close().await;
    done
}

fn print(app: &App, result: &CallToolResult) -> Result<(), Failure> {
    if app.report.json() {
        app.report.object(json!({ "result": result }));
    } else {
        app.report.data(in_words(result));
    }
    if result.is_error == Some(true) {
        Err(Failure::silent(SAID_NO))
    } else {
        Ok(())
    }
}

/// What a person wants to see of a result: its texts, and what else there is in a word.
fn in_words(result: &CallToolResult) -> String {
    let mut parts: Vec<String> = result.content.iter().map(block).collect();
    if parts.is_empty()
        && let Some(value) = &result.structured_content
    {
        parts.push(serde_json::to_string_pretty(value).unwrap_or_default());
    }
    parts.join("\n")
}

fn block(block: &ContentBlock) -> String {
    match block {
        // Lines stay lines; everything else that a terminal would obey is shown, not sent.
        ContentBlock::Text(text) => text
            .text
            .lines()
            .map(harmless)
            .collect::<Vec<_>>()
            .join("\n"),
        ContentBlock::Image(image) => {
            format!("(an image, {}; --json has it)", clean(&image.mime_type))
        }
        ContentBlock::Audio(audio) => {
            format!("(a sound, {}; --json has it)", clean(&audio.mime_type))
        }
        ContentBlock::ResourceLink(link) => format!("(a link: {})", clean(&link.uri)),
        _ => "(something that is no text; --json has it)".to_owned(),
    }
}

/// A line of a tool's text, whole, with nothing in it that a terminal obeys (T-21).
fn harmless(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        let obeyed = (c.is_control() && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if obeyed {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
    }
    out
}

const SAID_NO: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tools_text_keeps_its_lines_and_loses_its_escapes() {
        let result = CallToolResult::success(vec![
            ContentBlock::text("one\ntwo\u{1b}[2J"),
            ContentBlock::image("aGk=", "image/png"),
        ]);
        assert_eq!(
            in_words(&result),
            "one\ntwo\\u{1b}[2J\n(an image, image/png; --json has it)"
        );
        let long = "x".repeat(5000);
        assert_eq!(
            in_words(&CallToolResult::success(vec![ContentBlock::text(
                long.clone()
            )])),
            long,
            "nothing is cut"
        );
    }
}
