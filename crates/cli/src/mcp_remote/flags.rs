//! mcp-remote's flags: what is known of each, for the parser and for people.

use std::fmt::Write as _;

/// A flag.
#[derive(Debug)]
pub(super) struct Flag {
    name: &'static str,
    /// What its value is called, if it has one.
    pub(super) value: Option<&'static str>,
    help: &'static str,
}

/// The flag of that name.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// What stands below the help of `pilotlight proxy`.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "pilotlight proxy URL [PORT] [FLAGS] replaces mcp-remote URL [PORT] [FLAGS]. Its flags:\n",
    );
    for Flag { name, value, help } in FLAGS {
        let typed = format!("{name} {}", value.unwrap_or_default());
        // A string takes everything.
        let _ = writeln!(text, "  {typed:<43} {help}");
    }
    text.push_str("\nWhat differs and why: docs/guides/bridge.md");
    text
}

const fn with(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    let value = Some(value);
    Flag { name, value, help }
}

const fn alone(name: &'static str, help: &'static str) -> Flag {
    let value = None;
    Flag { name, value, help }
}

const FLAGS: &[Flag] = &[
    with(
        "--header",
        "\"NAME: VALUE\"",
        "A header of every request; ${NAME} stands for a variable",
    ),
    with("--header-file", "FILE", "The same, one on each line"),
    with(
        "--transport",
        "WHICH",
        "http-first (the default), sse-first, http-only or sse-only",
    ),
    with(
        "--protocol",
        "WHICH",
        "legacy or auto: read, both are looked for in any case",
    ),
    with("--ignore-tool", "GLOB", "Hide the tools of that name"),
    with(
        "--headers-timeout",
        "S",
        "How long the head of an answer may take; 0 for ever",
    ),
    with(
        "--body-timeout",
        "S",
        "How long an answer may pause; 0 for ever",
    ),
    alone("--keep-alive", "Ping the server every 30 s"),
    with("--ping-interval", "S", "Ping it so often"),
    with(
        "--connect-timeout",
        "S",
        "How long a connection to the server may take to stand; else 15 s",
    ),
    alone("--ipv4", "Use IPv4 addresses alone"),
    alone(
        "--enable-proxy",
        "Read: the proxies of the environment are used in any case",
    ),
    alone(
        "--allow-http",
        "Talk in the clear to a server that is not on this machine",
    ),
    alone(
        "--disable-cookies",
        "Keep no cookies of the server; else they are kept in memory",
    ),
    alone("--device-code", "Log in with a code on another device"),
    with(
        "--static-oauth-client-info",
        "JSON|@FILE",
        "A client that was registered by hand",
    ),
    with(
        "--static-oauth-client-metadata",
        "JSON|@FILE",
        "Of it the scope is asked for",
    ),
    with(
        "--client-metadata-url",
        "URL",
        "The document that is the ID of the client",
    ),
    with(
        "--authorize-param",
        "NAME=VALUE",
        "A further parameter of the login's page",
    ),
    with(
        "--resource",
        "URI",
        "Part of the name that mcp-remote keeps the login under",
    ),
    alone("--disable-resource-parameter", "Send no resource parameter"),
    with("--host", "NAME", "The host in the redirect"),
    with("--callback-path", "PATH", "The path of the redirect"),
    with(
        "--auth-timeout",
        "S",
        "How long a person has for a login; else ten minutes",
    ),
    with(
        "--auth-success-url",
        "URL",
        "The page that the browser ends at after a login",
    ),
    alone(
        "--client-credentials",
        "Refused: `pilotlight login URL --grant client-credentials`",
    ),
    with("--token-endpoint", "URL", "Only with --client-credentials"),
    alone(
        "--use-id-token",
        "Read: it is the access token that is sent",
    ),
    alone("--debug", "Say more on stderr, whatever --silent says"),
    alone("--silent", "Say nothing on stderr"),
];
