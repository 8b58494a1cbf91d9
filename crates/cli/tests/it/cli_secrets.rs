//! Secrets in the wrong place on the command line: refused, and repeated nowhere.

use crate::support::{Home, contains};

const CANARY: &str = "canary-0123456789abcdef";
const URL: &str = "https://mcp.example/mcp";

/// T-28, T-33, T-34: whoever types a secret where a flag, a file or a reference belongs reads what belongs there. The secret is in
/// nothing that is printed, in words or as JSON, logged however detailed, or stored.
#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let home = Home::new();
    let log = home.beside("log");
    let value = |flag: &str| format!("{flag}={CANARY}");
    let client = ["login", URL, "--client-id", "mine"];
    let service = [&client[..], &["--grant", "client_credentials"]].concat();
    let job = ["login", URL, "--client-id", "mine", "--grant", "workload"];
    let (with_token, on_stdin) = (value("--with-token"), value("--client-secret-stdin"));
    let (unknown, variable) = (value("--client-secret"), format!("env:{CANARY}"));
    let lines: Vec<Vec<&str>> = vec![
        vec!["login", URL, &with_token],
        vec!["login", URL, "--with-token", CANARY],
        [&client[..], &[&on_stdin]].concat(),
        [&client[..], &["--client-secret-stdin", CANARY]].concat(),
        [&client[..], &["--client-secret-file", CANARY]].concat(),
        [&service[..], &["--client-secret-file", CANARY]].concat(),
        [&client[..], &["--client-key", CANARY]].concat(),
        [&client[..], &["--client-key", &variable]].concat(),
        [&job[..], &["--workload-token", CANARY]].concat(),
        [&job[..], &["--workload-token", &variable]].concat(),
        [&client[..], &["--subject-token", CANARY]].concat(),
        [&client[..], &["--idp-client-secret", CANARY]].concat(),
        [
            &client[..],
            &["--client-key", "file:/k", "--client-key-algorithm", CANARY],
        ]
        .concat(),
        [&client[..], &[&unknown]].concat(),
        vec!["login", URL, "--client-metadata-url", CANARY],
        vec!["login", URL, "--issuer", CANARY],
        vec!["login", URL, "--accept-issuer", CANARY],
        vec!["login", URL, "--callback-port", CANARY],
        vec!["token", URL, CANARY],
        vec!["token", URL, "--format", CANARY],
    ];
    for line in lines {
        for form in [&[][..], &["--json"], &["-vvv"]] {
            let run = home.pilotlight(&line).with(form);
            let run = run.env("PILOTLIGHT_LOG", &log).env("RUST_LOG", "trace");
            let done = run.run();
            assert_eq!(done.code, Some(2), "{done:#?}");
            let said = done.stdout.clone() + &done.stderr;
            assert!(
                !said.is_empty() && !said.contains("canary"),
                "{line:?}: {said}"
            );
            if form == ["--json"] {
                done.refused(2, "config.value");
            }
        }
    }
    let logged = std::fs::read(&log).unwrap_or_default();
    assert!(!contains(&logged, b"canary"));
    assert!(home.stores().is_empty(), "nothing was begun");
    home.assert_no_leak(&[CANARY.to_owned()]);
}

/// T-34: a key that was given as a value of `--with-token` is answered with where it belongs.
#[test]
fn a_key_on_the_command_line_is_answered_with_where_it_belongs() {
    let done = Home::new().run(["login", URL, &format!("--with-token={CANARY}")]);
    assert_eq!(done.code, Some(2));
    for part in ["--with-token", "read from stdin", "have it replaced"] {
        assert!(done.stderr.contains(part), "{}", done.stderr);
    }
}
