//! What can be typed: commands, flags, and the small values that flags take.

mod by_hand;
mod grant;
mod issuer;

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use url::Url;

pub(crate) use by_hand::{ByHand, Quirk};
pub(crate) use grant::{GrantFlags, Reference};
pub(crate) use issuer::IssuerFlags;

/// Log in once, stay connected: keeps the OAuth sessions of MCP clients alive.
#[derive(Debug, Parser)]
#[command(
    name = "pilotlight",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_flag = true,
    disable_version_flag = true,
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    /// Print the version
    #[arg(long, short = 'V', action = ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command; where they are set otherwise, `pilotlight paths` says so.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Every command")]
pub(crate) struct Global {
    /// Which of several logins to the same server
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) account: Option<String>,
    /// Print one JSON object on stdout, and errors as one JSON line on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but results and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Say more; twice or three times for still more
    #[arg(long, short, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// A private network that servers may lead to, as 10.0.0.0/8; may be repeated
    #[arg(long, global = true, value_name = "CIDR")]
    pub(crate) allow_private: Vec<String>,
    /// The configuration file to read
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The folder of the store
    #[arg(long, global = true, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) store: Option<PathBuf>,
    /// The file with the store's key
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key_file: Option<PathBuf>,
    /// Print help
    #[arg(long, short, global = true, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in to servers, with a browser, a pasted redirect, or a code for another device
    Login(Box<Login>),
    /// List the logins
    List,
    /// Show where the logins stand, at a glance
    Status(Status),
    /// List the tools of a server
    Tools(Tools),
    /// Call a tool of a server
    Call(Call),
    /// Print an access token that is valid now
    Token(Token),
    /// Refresh what is due
    Refresh(Refresh),
    /// End a login: revoke it at its issuer and forget it
    Logout(Logout),
    /// Be the bridge between an MCP host on stdio and a server over HTTP; takes every flag of mcp-remote
    #[command(
        after_help = crate::mcp_remote::help()
    )]
    Proxy(Proxy),
    /// Bring in the logins of another program, and share them with it
    Import(Import),
    /// Tell the history of a login, and why it was lost
    Why(Why),
    /// Give a login another name
    Rename(Rename),
    /// Print every location, and where each setting came from
    Paths,
    /// Watch three processes keep one login alive through every mishap; needs no account and no network
    Demo(Demo),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the version
    Version,
    /// One process of the demo
    #[command(hide = true, name = "demo-worker")]
    DemoWorker(DemoWorker),
}

#[derive(Debug, Clone, Default, Args)]
#[command(after_help = LOGINS)]
pub(crate) struct Login {
    /// URLs or names of servers
    #[arg(required_unless_present_any = ["all", "print_client_metadata"], value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// The local name of the login; by default it comes from the server's host
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A scope to ask for, instead of those that the server names; may be repeated
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Vec<String>,
    /// Every login that needs a person, instead of a TARGET
    #[arg(long, conflicts_with = "targets")]
    pub(crate) all: bool,
    /// How long the person has
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) way: Way,
    #[command(flatten)]
    pub(crate) own: OwnClient,
    #[command(flatten)]
    pub(crate) grant: GrantFlags,
    #[command(flatten)]
    pub(crate) by_hand: ByHand,
    #[command(flatten)]
    pub(crate) issuers: IssuerFlags,
}

/// How the person is reached; each flag only narrows what is tried.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = HOW)]
pub(crate) struct Way {
    /// Open the browser, wherever this runs
    #[arg(long, conflicts_with_all = ["paste", "no_interactive"])]
    pub(crate) browser: bool,
    /// The program that opens a URL
    #[arg(long, value_name = "PATH", conflicts_with_all = ["paste", "no_interactive"], value_hint = ValueHint::ExecutablePath)]
    pub(crate) browser_command: Option<PathBuf>,
    /// Show a code to type in on another device, where a browser is
    #[arg(long, conflicts_with_all = ["browser", "browser_command", "paste", "no_interactive", "callback_port", "callback_host"])]
    pub(crate) device: bool,
    /// Only print the URL, and read the redirect from the terminal
    #[arg(long, conflicts_with = "no_interactive")]
    pub(crate) paste: bool,
    /// The port that the redirect arrives at, as for `ssh -L`
    #[arg(long, value_name = "PORT")]
    pub(crate) callback_port: Option<u16>,
    /// The host in the redirect: 127.0.0.1, [::1] or localhost
    #[arg(long, value_name = "HOST", value_parser = ["127.0.0.1", "[::1]", "localhost"], hide_possible_values = true)]
    pub(crate) callback_host: Option<String>,
    /// Ask nobody: fail where a person would be needed
    #[arg(long)]
    pub(crate) no_interactive: bool,
}

/// A client that a person has made at the authorization server, or describes in a document.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = OWN)]
pub(crate) struct OwnClient {
    /// The ID of a client that was registered by hand
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// The file that holds that client's secret
    #[arg(long, value_name = "FILE", requires = "client_id", conflicts_with = "client_secret_stdin", value_hint = ValueHint::FilePath)]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// Read that client's secret from stdin
    #[arg(long, requires = "client_id")]
    pub(crate) client_secret_stdin: bool,
    /// The URL of a hosted client ID metadata document
    #[arg(long, value_name = "URL")]
    pub(crate) client_metadata_url: Option<Url>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Status {
    /// A name or URL
    pub(crate) target: Option<String>,
    /// End with exit code 3 if a login needs a person
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Tools {
    /// A name or URL
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) request: RequestFlags,
}

/// How a request is made.
#[derive(Debug, Clone, Args)]
pub(crate) struct RequestFlags {
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// The revision of MCP to speak: auto, modern (2026-07-28) or legacy (2025-11-25 and before)
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub(crate) wire: Wire,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = CALLS)]
pub(crate) struct Call {
    /// A name or URL
    pub(crate) target: String,
    /// The tool; without it, the tools are listed
    pub(crate) tool: Option<String>,
    /// One JSON object, or key=value (key:=JSON for what is no text), or @FILE
    pub(crate) arguments: Vec<String>,
    #[command(flatten)]
    pub(crate) request: RequestFlags,
    /// Call again and again, this often
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "during", help_heading = LOOP)]
    pub(crate) every: Option<Duration>,
    /// For this long
    #[arg(long = "for", id = "during", value_name = "DURATION", value_parser = duration, requires = "every", help_heading = LOOP)]
    pub(crate) during: Option<Duration>,
    /// This many at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = LOOP)]
    pub(crate) parallel: Option<u16>,
}

/// Which revision of MCP is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wire {
    /// Whichever the server speaks
    #[default]
    Auto,
    /// 2026-07-28: each request stands alone
    Modern,
    /// 2025-11-25 and before: `initialize` opens a session
    Legacy,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = TOKENS)]
pub(crate) struct Token {
    /// A name or URL
    pub(crate) target: String,
    /// How to print it: bare, header (the whole line), headers (a JSON object, for programs that run a command for it) or
    /// json (with when it ends)
    #[arg(long, value_enum, hide_possible_values = true)]
    pub(crate) format: Option<TokenFormat>,
    /// How long it must be valid at least
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) min_valid: Option<Duration>,
    /// The URL of that request; the format is headers
    #[arg(
        long = "for",
        id = "for_url",
        value_name = "URL",
        help_heading = ONE_REQUEST
    )]
    pub(crate) for_url: Option<Url>,
    /// Its method
    #[arg(long, value_name = "METHOD", default_value = "POST", requires = "for_url", help_heading = ONE_REQUEST)]
    pub(crate) method: http::Method,
    /// What the server's last answer had in its DPoP-Nonce field: one that wants a nonce refuses (401) what has none
    #[arg(long, value_name = "NONCE", requires = "for_url", help_heading = ONE_REQUEST)]
    pub(crate) dpop_nonce: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenFormat {
    /// The token and nothing else
    Bare,
    /// The whole header line
    Header,
    /// A JSON object of header names and values, for clients that run a program for it
    Headers,
    /// A JSON object with the token and when it ends
    Json,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Refresh {
    /// A name or URL
    #[arg(conflicts_with = "all")]
    pub(crate) target: Option<String>,
    /// Every login
    #[arg(long)]
    pub(crate) all: bool,
    /// Also what is not due
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Logout {
    /// A name or URL
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) target: Option<String>,
    /// Every login
    #[arg(long)]
    pub(crate) all: bool,
    /// Forget it here and tell the issuer nothing
    #[arg(long)]
    pub(crate) local: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Why {
    /// A name or URL; not needed where there is only one login
    pub(crate) target: Option<String>,
    /// How many of the newest events to tell
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: usize,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Rename {
    /// The login
    pub(crate) old: String,
    /// Its new name
    pub(crate) new: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// For how many seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(20..=86_400))]
    pub(crate) seconds: u64,
    /// For how many seconds the issuer repeats its answer to a spent refresh token
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) grace: u64,
    /// Click Allow yourself, in a browser
    #[arg(long)]
    pub(crate) browser: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DemoWorker {
    /// The server
    #[arg(long)]
    pub(crate) url: String,
    /// Milliseconds between two calls
    #[arg(long, default_value_t = 200)]
    pub(crate) every_ms: u64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Proxy {
    /// Called by that name
    #[arg(long, hide = true)]
    pub(crate) as_mcp_remote: bool,
    /// The URL of the server, and mcp-remote's arguments and flags
    #[arg(last = true, value_name = "URL", allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Import {
    /// The other program
    #[arg(value_enum)]
    pub(crate) tool: Tool,
    /// The URLs of its servers, as its configuration has them; with --move, those that are shared already if none is named
    #[arg(required_unless_present = "moves", value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// Delete them there: from then on they are ours alone, and the other program has to log in again
    #[arg(long = "move", id = "moves")]
    pub(crate) moves: bool,
}

/// A program whose logins can be brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// The bridge of that name, 0.1 to 0.15
    McpRemote,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Reads `200ms`, `75s`, `5m`, `1h30m`, `7d`; a bare number counts seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "write a duration as 200ms, 75s, 5m, 1h30m or 2d".to_owned();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let seconds = match unit.trim() {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(bad()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        whole = whole.checked_add(part).ok_or_else(bad)?;
        rest = tail;
    }
    Ok(whole)
}

const HOW: &str = "How to log in";
const OWN: &str = "A client of your own";
const LOOP: &str = "A loop";
const ONE_REQUEST: &str =
    "The headers of one request (needed where tokens are bound to a key, DPoP)";

const EXIT_CODES: &str = "\
TARGET is a name, a URL, or the beginning of one that fits a single login; NAME@ACCOUNT where there
are several.

Exit codes:
  0  done                              4   refused
  1  the answer is no                  5   the server is at fault
  2  fix the command or its settings   6   the store is damaged
  3  a person must log in              75  try again later; nothing is lost
  70 a bug                             130 interrupted; nothing is lost";

const LOGINS: &str = "\
Examples:
  pilotlight login https://mcp.example.com/mcp                        a browser opens
  pilotlight login https://mcp.example.com/mcp --device               a code, for another device
  pilotlight login https://mcp.example.com/mcp --with-token <key.txt  a key that you have already
  pilotlight login example                                            once more, by its name

REF is file:PATH, env:NAME or fd:NUMBER: where a secret lies, never the secret itself.";

const CALLS: &str = "\
Examples:
  pilotlight call example                                  what tools there are
  pilotlight call example search query=rust limit:=5
  pilotlight call example search '{\"query\": \"rust\"}'";

const TOKENS: &str = "\
Examples:
  curl -H \"$(pilotlight token example --format header)\" https://mcp.example.com/mcp ...
  pilotlight token example --for https://mcp.example.com/mcp --method POST";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in [
            ("200ms", 200),
            ("75s", 75_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("90", 90_000),
            ("0.5s", 500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "s",
            "5 parsecs",
            "-1s",
            "1e9",
            "..",
            "99999999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    /// No secret can be given as an argument: other users see those. What sounds like one names a file or a reference, and a
    /// value that is no reference is not even kept.
    #[test]
    fn no_flag_takes_a_secret() {
        let mut references = 0;
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                let sounds = ["secret", "token", "key", "password", "assertion"];
                let takes_value = argument.get_action().takes_values();
                if !takes_value || !sounds.iter().any(|word| name.contains(word)) {
                    continue;
                }
                let parser = argument.get_value_parser().type_id();
                let reference = parser == std::any::TypeId::of::<Reference>();
                references += usize::from(reference);
                let about_it = ["_file", "_algorithm", "_id", "_type", "_endpoint"];
                let harmless = about_it.iter().any(|end| name.ends_with(end));
                assert!(reference || harmless, "{name}");
            }
        }
        assert_eq!(references, 4);
        let read = |text: &str| text.parse::<Reference>().unwrap();
        assert!(!format!("{:?}", read("hunter2canary")).contains("canary"));
        assert!(read("file:/run/secrets/key").0.is_some());
    }

    #[test]
    fn a_loop_needs_both_a_pace_and_an_end() {
        let parse = |args: &[&str]| {
            Cli::try_parse_from([&["pilotlight", "call", "x", "echo"], args].concat()).is_ok()
        };
        assert!(parse(&[
            "text=a", "--every", "200ms", "--for", "75s", "--json"
        ]));
        assert!(!parse(&["--every", "200ms"]) && !parse(&["--for", "75s"]));
        assert!(parse(&["--parallel", "6"]) && !parse(&["--parallel", "0"]));
    }
}
