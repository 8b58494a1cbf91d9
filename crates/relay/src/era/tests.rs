//! Both sides of each machine, played by hand.

mod new_host;
mod old_host;
mod script;
mod stateless;
mod through;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::tools::Tools;

/// What a tool wants in a header.
const WISH: &str = r#"{"name":"t","inputSchema":{"type":"object","properties":{"r":{"type":"string","x-mcp-header":"R"}}}}"#;

fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

fn text(raw: &Bytes) -> &str {
    std::str::from_utf8(raw).unwrap()
}

fn value(raw: &Bytes) -> Value {
    serde_json::from_slice(raw).unwrap()
}

fn bridge() -> Identity {
    Identity {
        name: "bridge".to_owned(),
        version: "1".to_owned(),
    }
}

fn host(text: impl AsRef<[u8]>) -> Input {
    Input::Host(bytes(text))
}

fn answer(to: Ticket, text: impl AsRef<[u8]>) -> Input {
    Input::Answer {
        to,
        raw: bytes(text),
    }
}

/// What the host gets.
fn told(out: &[Output]) -> Vec<String> {
    out.iter()
        .filter_map(|output| match output {
            Output::ToHost(raw) => Some(text(raw).to_owned()),
            _ => None,
        })
        .collect()
}

/// What the server gets.
fn posts(out: &[Output]) -> Vec<&Post> {
    out.iter()
        .filter_map(|output| match output {
            Output::Post(post) => Some(post),
            _ => None,
        })
        .collect()
}

/// The only thing that the server gets.
fn post(out: &[Output]) -> &Post {
    let posts = posts(out);
    assert_eq!(posts.len(), 1, "{out:?}");
    posts[0]
}

fn header<'a>(post: &'a Post, name: &str) -> Option<&'a str> {
    post.headers
        .iter()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.to_str().unwrap())
}

fn id_of(raw: &Bytes) -> String {
    Message::read(raw.clone())
        .unwrap()
        .id()
        .unwrap()
        .as_str()
        .to_owned()
}
