//! A plain MCP host, and the person before it: starts the bridge, lists the tools and calls them over its stdio.
//!
//! The host knows nothing of OAuth, nor of HTTP. The person has a browser that clicks Allow, writes what they know of the
//! server into `config.toml`, and does what an error tells them to do. Neither knows which test they are in.
//!
//! `host old|new PILOTLIGHT URL` is the host, of one era or the other. `host URL` is the browser.

#![allow(clippy::print_stdout, reason = "a program")]

mod person;
mod samples;

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::{env, process, thread, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use person::Person;
use samples::samples;

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[allow(clippy::disallowed_methods, reason = "this is the configuration")]
fn main() -> Done {
    // The suite waits for ever for a client that does not end.
    thread::spawn(|| {
        thread::sleep(PATIENCE);
        process::exit(75)
    });
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let context = env::var("MCP_CONFORMANCE_CONTEXT").unwrap_or_else(|_| "{}".to_owned());
    match arguments[..] {
        [url] => person::browse(url),
        [era, bridge, url] => person::run(era == "new", bridge, url, &context),
        _ => Err("host old|new PILOTLIGHT URL".into()),
    }
}

/// Lists the tools and calls each once, whatever it answers.
fn use_tools(host: &mut Host, context: &Value, called: &mut usize) -> Done {
    host.begin()?;
    let mut tools: Vec<Value> = Vec::new();
    let mut page = Some(json!({}));
    while let Some(params) = page {
        let list = host.ask("tools/list", params)??;
        tools.extend(Vec::deserialize(&list["tools"])?);
        page = list
            .get("nextCursor")
            .map(|cursor| json!({ "cursor": cursor }));
    }
    let any_object = tools.first().map(|tool| tool["inputSchema"].clone());
    let each = tools.iter().map(|tool| {
        let properties = tool["inputSchema"].get("properties");
        json!({ "name": tool["name"], "arguments": samples(properties, any_object.as_ref()) })
    });
    let given = Option::deserialize(&context["toolCalls"])?;
    let calls: Vec<Value> = given.unwrap_or_else(|| each.collect());
    while let Some(call) = calls.get(*called) {
        match host.ask("tools/call", call.clone())? {
            // What the bridge says itself: the server has not answered.
            Err(error) if error.starts_with("pilotlight:") => return Err(error.into()),
            answer => println!("{}: {answer:?}", call["name"]),
        }
        *called += 1;
    }
    Ok(())
}

/// A host, and the bridge that it has started.
struct Host {
    new: bool,
    bridge: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    last: u64,
}

impl Host {
    fn start(new: bool, person: &Person) -> Done<Self> {
        let mut command = person.pilotlight(&["proxy", &person.url])?;
        let mut bridge = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (bridge.stdin.take(), bridge.stdout.take());
        Ok(Self {
            new,
            bridge,
            stdin: stdin.ok_or("no stdin")?,
            lines: BufReader::new(stdout.ok_or("no stdout")?).lines(),
            last: 0,
        })
    }

    /// Shakes hands. In the new era that is not done.
    fn begin(&mut self) -> Done {
        if self.new {
            return Ok(());
        }
        let (info, can) = (info(), capabilities());
        let params =
            json!({ "protocolVersion": "2025-11-25", "capabilities": can, "clientInfo": info });
        let welcome = self.ask("initialize", params)??;
        let version = welcome["protocolVersion"].as_str().unwrap_or_default();
        if !VERSIONS.contains(&version) {
            return Err(format!("{version} is no version of ours").into());
        }
        self.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
    }

    /// A request, and what it came to: the result, or the text of the error.
    fn ask(&mut self, method: &str, mut params: Value) -> Done<Result<Value, String>> {
        loop {
            self.last += 1;
            if self.new {
                params["_meta"] = json!({
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": info(),
                    "io.modelcontextprotocol/clientCapabilities": capabilities(),
                });
            }
            let id = self.last;
            self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))?;
            let mut answer = self.answer()?;
            if let Some(error) = answer.get("error") {
                let text = error["message"].as_str().unwrap_or_default();
                return Ok(Err(text.to_owned()));
            }
            let result = answer["result"].take();
            if result["resultType"] != "input_required" {
                return Ok(Ok(result));
            }
            // The server wants to know something first: the same again, with the answers.
            let asked = result["inputRequests"].as_object().into_iter().flatten();
            params["inputResponses"] = asked.map(|(key, one)| (key.clone(), reply(one))).collect();
            params.as_object_mut().map(|all| all.remove("requestState"));
            if let Some(state) = result.get("requestState") {
                params["requestState"] = state.clone();
            }
        }
    }

    /// The answer to the last request. What the server asks meanwhile is answered.
    fn answer(&mut self) -> Done<Value> {
        loop {
            let line = self.lines.next().ok_or("the bridge has ended")??;
            let message: Value = serde_json::from_str(&line)?;
            match (message.get("id"), message.get("method")) {
                (Some(id), Some(_)) => {
                    self.say(&json!({ "jsonrpc": "2.0", "id": id, "result": reply(&message) }))?;
                }
                (Some(id), None) if *id == self.last => return Ok(message),
                _ => {}
            }
        }
    }

    fn say(&mut self, message: &Value) -> Done {
        writeln!(self.stdin, "{message}")?;
        Ok(self.stdin.flush()?)
    }

    fn end(mut self) -> Done {
        drop(self.stdin);
        let status = self.bridge.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("the bridge: {status}").into()),
        }
    }
}

fn info() -> Value {
    json!({ "name": env!("CARGO_BIN_NAME"), "version": env!("CARGO_PKG_VERSION") })
}

fn capabilities() -> Value {
    json!({ "elicitation": { "form": {} } })
}

/// What is said to a server that asks: the defaults, to a form.
fn reply(asked: &Value) -> Value {
    let properties = asked["params"]["requestedSchema"].get("properties");
    match properties {
        Some(_) => json!({ "action": "accept", "content": samples(properties, None) }),
        None => json!({}),
    }
}

/// What a host of the old era gets along with.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const PATIENCE: Duration = Duration::from_secs(25);
