//! What was typed and makes no command. Which argument is wrong is said; what it held is not repeated, since it may be a secret
//! that belongs elsewhere (T-33, T-34): `--with-token=KEY` ends up in the logs of a pipeline otherwise.

use clap::{
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};
use serde_json::json;

use super::err;
use crate::failure::Failure;

/// Tells it, and gives the exit code: help and version are asked for, and come on stdout.
pub(crate) fn usage(error: clap::Error, json: bool) -> u8 {
    let exit = u8::try_from(error.exit_code()).unwrap_or(2);
    let error = without_values(error);
    if json && error.use_stderr() {
        let failure = Failure::usage(first_line(&error), exit);
        err(&format!(
            "{}\n",
            json!({ "version": 1, "error": failure.to_json() })
        ));
    } else {
        drop(error.print());
    }
    exit
}

fn first_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let first = rendered.lines().next().unwrap_or_default();
    first.trim_start_matches("error: ").to_owned()
}

/// The same error, without what was typed for an argument.
fn without_values(mut error: clap::Error) -> clap::Error {
    let hidden = || ContextValue::String("...".into());
    if error.get(ContextKind::InvalidValue).is_some() {
        error.insert(ContextKind::InvalidValue, hidden());
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg);
    match error.kind() {
        // A word too many is no name of an argument.
        ErrorKind::UnknownArgument
            if argument.as_ref().is_some_and(|name| !name.starts_with('-')) =>
        {
            error.insert(ContextKind::InvalidArg, hidden());
            error.remove(ContextKind::Suggested);
        }
        ErrorKind::TooManyValues
            if argument
                .as_ref()
                .is_some_and(|name| FROM_STDIN.contains(&name.as_str())) =>
        {
            let tips = ON_STDIN.iter().copied().map(StyledStr::from).collect();
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
        _ => {}
    }
    error
}

/// Flags that say that a secret comes on stdin.
const FROM_STDIN: [&str; 2] = ["--with-token", "--client-secret-stdin"];
const ON_STDIN: [&str; 2] = [
    "it takes no value: the secret is read from stdin, as in `pilotlight login TARGET --with-token <key.txt`",
    "a secret on a command line is seen by others and kept by the shell: have it replaced",
];

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::args::Cli;

    const CANARY: &str = "canary-0123456789";

    fn said(args: &[&str]) -> String {
        let error = Cli::try_parse_from([&["pilotlight"], args].concat()).unwrap_err();
        without_values(error).render().to_string()
    }

    /// T-33, T-34: no argument of any command, whether it takes a value or none, whether there is such a one or not, has
    /// its value repeated in the error; its own name is.
    #[test]
    fn what_was_typed_is_not_repeated() {
        let mut refused = 0;
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let flags = command.get_arguments().filter_map(|flag| flag.get_long());
            let unknown = ["token", "client-secret", "password"];
            for flag in flags.chain(unknown) {
                let given = format!("--{flag}={CANARY}");
                let line = ["pilotlight", name, "x", "y", &given];
                let Err(error) = Cli::try_parse_from(line) else {
                    continue;
                };
                let text = without_values(error).render().to_string();
                assert!(!text.contains("canary"), "{given}: {text}");
                refused += usize::from(text.contains(&format!("--{flag}")));
            }
        }
        assert!(refused > 30, "{refused}");
    }

    /// T-34: who gives a secret to a flag that takes none reads where it belongs, and that it is none any more.
    #[test]
    fn a_secret_in_place_of_a_switch_is_answered_with_where_it_belongs() {
        for flag in FROM_STDIN {
            let text = said(&[
                "login",
                "x",
                "--client-id",
                "y",
                &format!("{flag}={CANARY}"),
            ]);
            assert!(!text.contains("canary"), "{text}");
            assert!(text.contains(flag) && text.contains("<key.txt"), "{text}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_still_answered() {
        assert!(said(&["lgoin"]).contains("'login'"));
        assert!(said(&["token", "x", "--formt", "bare"]).contains("--format"));
        let wrong = said(&["token", "x", "--format", "headr"]);
        assert!(wrong.contains("'header'"), "{wrong}");
        let wrong = said(&["status", "x", CANARY]);
        assert!(wrong.contains("Usage: pilotlight status"), "{wrong}");
        assert!(!wrong.contains("canary"), "{wrong}");
        assert!(said(&["call", "x", "t", "--timeout", "soon"]).contains("1h30m"));
    }
}
