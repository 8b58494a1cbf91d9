//! What mcp-remote 0.15.1 was seen to do (`observed.json`, recorded by `peers/mcp-remote/observe.mjs`), and what we do.

use std::ffi::OsString;

use serde::Deserialize;

use super::*;
use crate::config::Environment;

#[derive(Debug, Deserialize)]
struct Recorded {
    observed: Vec<Fact>,
}

/// One run of the published program.
#[derive(Debug, Deserialize)]
struct Fact {
    args: Vec<String>,
    exit: u8,
    stdout: String,
    /// `ran`: its arguments were accepted. `failed`, `usage`: they were not. `answered`: it printed what was asked for.
    did: String,
    quiet: bool,
    #[serde(default)]
    warned: usize,
    port: Option<String>,
    #[serde(default)]
    strict: bool,
    transport: Option<String>,
    protocol: Option<String>,
    host: Option<String>,
    path: Option<String>,
    connect: Option<String>,
    body: Option<String>,
    headers_wait: Option<String>,
    auth: Option<String>,
    resource: Option<String>,
    #[serde(default)]
    left_out: bool,
    params: Option<String>,
    headers: Option<String>,
    tools: Option<String>,
    hash: Option<String>,
}

/// The folder and the environment that the program was run in.
fn machine() -> (tempfile::TempDir, Environment) {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (
            "headers.txt",
            "# comment\n\nX-File: one\r\nbroken line\nX-Both:file\nX-Empty:\n",
        ),
        (
            "client.json",
            r#"{"client_id":"from-file","client_secret":"${SECRET}"}"#,
        ),
        ("metadata.json", r#"{"scope":"a b"}"#),
    ];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let variables = [
        ("SECRET", "s3cret"),
        ("EMPTY", ""),
        ("TENANT", "acme"),
        ("HOME", "/home/me"),
    ];
    (folder, Environment::made_up(&variables))
}

/// The arguments, with the files they name where they are here.
fn placed(args: &[String], folder: &std::path::Path) -> Vec<String> {
    let place = |arg: &String| {
        let (at, name) = match arg.strip_prefix('@') {
            Some(name) => ("@", name),
            None => ("", arg.as_str()),
        };
        let is_file = name.ends_with(".txt") || (at == "@" && name.ends_with(".json"));
        match is_file {
            true => format!("{at}{}", folder.join(name).display()),
            false => arg.clone(),
        }
    };
    args.iter().map(place).collect()
}

fn recorded() -> Vec<Fact> {
    let recorded: Recorded = serde_json::from_str(include_str!("observed.json")).unwrap();
    assert!(recorded.observed.len() > 120);
    recorded.observed
}

fn run(args: &[&str]) -> Options {
    let (_folder, environment) = machine();
    match read(
        args.iter().map(|arg| (*arg).to_owned()).collect(),
        &environment,
    ) {
        Invocation::Run(options) => *options,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// Where we differ on purpose: flags before the URL.
const ACCEPTED_HERE: &[&[&str]] = &[&["--debug", "http://127.0.0.1:9/mcp"]];

/// The drop-in contract: each argument list that was tried on mcp-remote 0.15.1 is accepted or refused here as it was
/// there, with the same exit code, the same kind of output, the same settings and the same name of the stored login.
#[test]
fn arguments_mean_what_they_meant_to_mcp_remote() {
    let (folder, environment) = machine();
    for fact in recorded() {
        let args = placed(&fact.args, folder.path());
        let what = format!("{fact:?}");
        if ACCEPTED_HERE.iter().any(|one| fact.args == *one) {
            assert!(
                matches!(read(args, &environment), Invocation::Run(_)),
                "{what}"
            );
            continue;
        }
        match read(args, &environment) {
            Invocation::Print(text) => {
                let kind = if text.starts_with("Usage: ") {
                    "usage"
                } else {
                    "version"
                };
                assert_eq!(
                    (fact.exit, fact.stdout.as_str(), fact.did.as_str()),
                    (0, kind, "answered"),
                    "{what}"
                );
            }
            Invocation::Refuse(why) => {
                assert_eq!((fact.exit, fact.stdout.as_str()), (1, "nothing"), "{what}");
                let usage = why.iter().any(|line| line.starts_with("Usage: "));
                // A flag in the URL's place is no URL there; here the URL is missing.
                let flags_alone = fact.args.iter().all(|arg| arg.starts_with('-'));
                assert!(
                    fact.did == if usage { "usage" } else { "failed" } || flags_alone,
                    "{what}"
                );
            }
            Invocation::Run(options) => {
                assert_eq!(fact.did, "ran", "{what}");
                compare(&fact, &options);
            }
        }
    }
}

fn compare(fact: &Fact, options: &Options) {
    let what = format!("{fact:?}\n{options:?}");
    if let Some(hash) = &fact.hash {
        assert_eq!(options.hash.as_str(), hash, "{what}");
    }
    if let Some(port) = &fact.port {
        assert_eq!(options.callback_port().to_string(), *port, "{what}");
        assert_eq!(options.port.is_some(), fact.strict, "{what}");
    }
    assert_eq!(options.is_mute(), fact.quiet, "{what}");
    assert!(options.warnings.len() >= fact.warned, "{what}");
    let transport = match options.transport {
        Transport::HttpFirst => "http-first",
        Transport::SseFirst => "sse-first",
        Transport::HttpOnly => "http-only",
        Transport::SseOnly => "sse-only",
    };
    assert_eq!(
        transport,
        fact.transport.as_deref().unwrap_or("http-first"),
        "{what}"
    );
    let auto = fact.protocol.as_deref() == Some("auto");
    assert_eq!(options.protocol == Protocol::Auto, auto, "{what}");
    assert_eq!(
        options.host,
        fact.host.as_deref().unwrap_or("localhost"),
        "{what}"
    );
    assert_eq!(
        options.callback_path,
        fact.path.as_deref().unwrap_or("/oauth/callback"),
        "{what}"
    );
    let seconds = |span: Duration| span.as_secs_f64().to_string();
    assert_eq!(options.connect_timeout.map(seconds), fact.connect, "{what}");
    for (patience, seen) in [
        (options.headers_timeout, &fact.headers_wait),
        (options.body_timeout, &fact.body),
    ] {
        let told = match patience {
            Patience::Usual => None,
            Patience::Endless => Some("disabled".to_owned()),
            Patience::For(span) => Some(seconds(span)),
        };
        assert_eq!(told, *seen, "{what}");
    }
    assert_eq!(
        options
            .auth_timeout
            .map_or_else(|| "30".to_owned(), seconds),
        fact.auth.as_deref().unwrap_or("30"),
        "{what}"
    );
    let resource = match &fact.resource {
        _ if fact.left_out => ResourceParameter::LeftOut,
        Some(given) => ResourceParameter::Given(given.clone()),
        None => ResourceParameter::Published,
    };
    assert_eq!(options.resource, resource, "{what}");
    let list = |names: Vec<String>| (!names.is_empty()).then(|| names.join(", "));
    let params = options.authorize_params.iter().map(|one| one.name.clone());
    assert_eq!(list(params.collect()), fact.params, "{what}");
    let mut headers: Vec<String> = options
        .headers
        .keys()
        .map(|name| name.as_str().to_owned())
        .collect();
    let mut seen: Vec<String> = fact
        .headers
        .iter()
        .flat_map(|all| all.split(", "))
        .map(str::to_lowercase)
        .collect();
    headers.sort();
    seen.sort();
    assert_eq!(headers, seen, "{what}");
    assert_eq!(
        options.ignored_tools.join(" "),
        fact.tools.clone().unwrap_or_default(),
        "{what}"
    );
}

/// A flag that nobody knows is passed over, and said to be; what it was set to is not repeated, for it may be a secret.
#[test]
fn what_nobody_reads_is_warned_about() {
    let url = "https://a.example/mcp";
    let cases: [(&[&str], &str); 6] = [
        (&[url, "--unknown", "x"], "--unknown is ignored"),
        (&[url, "--unknown=canary"], "--unknown is ignored"),
        (&[url, "--transport=canary"], "write --transport VALUE"),
        (&[url, "--header=X-Key: canary"], "write --header VALUE"),
        (&[url, "--transport"], "--transport needs a value"),
        (&[url, "--debug", "3000"], "3000 is ignored"),
    ];
    for (args, said) in cases {
        let warnings = run(args).warnings.join("\n");
        assert!(warnings.contains(said), "{args:?}: {warnings}");
        assert!(!warnings.contains("canary"), "{warnings}");
    }
    assert_eq!(
        run(&[url, "3000", "--debug", "--host", "127.0.0.1"]).warnings,
        Vec::<String>::new()
    );
}

/// Flags may stand before the URL, and between them a port is still one.
#[test]
fn flags_stand_anywhere() {
    let options = run(&[
        "--transport",
        "sse-only",
        "--debug",
        "https://a.example/mcp",
        "4000",
        "--silent",
    ]);
    assert_eq!(
        (options.port, options.transport),
        (Some(4000), Transport::SseOnly)
    );
    assert!(options.debug && options.silent && !options.is_mute() && options.port_is_strict());
}

/// T-33: no header value, parameter or client secret is in what a log would show.
#[test]
fn no_secret_is_in_what_is_shown() {
    let (folder, environment) = machine();
    let info = folder.path().join("client.json");
    let args = [
        "https://a.example/mcp",
        "--header",
        "X-Key: canary1",
        "--header",
        "X-B: ${SECRET}",
        "--authorize-param",
        "login_hint=canary2",
        "--static-oauth-client-info",
        &format!("@{}", info.display()),
    ];
    let Invocation::Run(options) = read(
        args.iter().map(|arg| (*arg).to_owned()).collect(),
        &environment,
    ) else {
        panic!("it runs");
    };
    assert_eq!(options.headers.get("x-b").unwrap(), "s3cret");
    let client = options.client.as_ref().unwrap();
    assert_eq!(client.secret.as_ref().unwrap().expose(), "s3cret");
    let shown = format!("{options:?}");
    assert!(
        !shown.contains("canary") && !shown.contains("s3cret"),
        "{shown}"
    );
}

/// Values as JavaScript reads them.
#[test]
fn numbers_and_placeholders_are_read_as_there() {
    let whole = [
        ("12", Some(12)),
        (" 7x", Some(7)),
        ("-3", Some(-3)),
        ("x", None),
        ("", None),
        ("0x1f", Some(31)),
    ];
    for (text, number) in whole {
        assert_eq!(text::whole_number(text, true), number, "{text:?}");
    }
    assert_eq!(text::whole_number("0x1f", false), Some(0));
    let numbers = [
        ("1.5", Some(1.5)),
        ("", Some(0.0)),
        ("1e2", Some(100.0)),
        ("0b11", Some(3.0)),
        ("inf", None),
        ("NaN", None),
        ("5s", None),
    ];
    for (text, number) in numbers {
        assert_eq!(text::number(text), number, "{text:?}");
    }
    let expand =
        |text: &str| text::expand(text, |name| (name == "A").then(|| "1".to_owned()), |_| {});
    let cases = [
        ("${A}", "1"),
        ("x${A}y${A}", "x1y1"),
        ("${B}", "${B}"),
        ("${}", "${}"),
        ("${A", "${A"),
        ("$${A}", "$1"),
        ("$A", "$A"),
    ];
    for (text, expanded) in cases {
        assert_eq!(expand(text), expanded, "{text}");
    }
}

/// The name that a program is called by decides: with ours our flags come first wherever they stood, with mcp-remote's
/// nothing is ours.
#[test]
fn the_name_decides_whose_flags_they_are() {
    let line = |words: &[&str]| -> Option<Vec<String>> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let done = rearranged(words)?;
        Some(
            done.into_iter()
                .map(|word| word.into_string().unwrap())
                .collect(),
        )
    };
    let same =
        |words: &[&str], expected: &[&str]| assert_eq!(line(words).unwrap(), expected, "{words:?}");
    same(
        &["/usr/bin/mcp-remote", "https://a.example", "--account", "x"],
        &[
            "/usr/bin/mcp-remote",
            "proxy",
            "--as-mcp-remote",
            "--",
            "https://a.example",
            "--account",
            "x",
        ],
    );
    same(
        &[
            "pilotlight",
            "proxy",
            "https://a.example",
            "--account",
            "work",
            "--debug",
            "-vv",
            "--json",
        ],
        &[
            "pilotlight",
            "--account",
            "work",
            "-vv",
            "--json",
            "proxy",
            "--",
            "https://a.example",
            "--debug",
        ],
    );
    same(
        &[
            "pilotlight",
            "--store=/s",
            "proxy",
            "--header",
            "A: b",
            "https://a.example",
            "3000",
        ],
        &[
            "pilotlight",
            "--store=/s",
            "proxy",
            "--",
            "--header",
            "A: b",
            "https://a.example",
            "3000",
        ],
    );
    same(
        &["pilotlight", "proxy", "--help"],
        &["pilotlight", "proxy", "--help"],
    );
    for other in [
        &["pilotlight", "list"][..],
        &["pilotlight"],
        &["pilotlight", "call", "proxy"],
        &["mcp-remote-client", "x"],
    ] {
        assert_eq!(line(other), None, "{other:?}");
    }
}
