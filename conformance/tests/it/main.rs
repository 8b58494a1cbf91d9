//! That the client which the suite judges knows nothing of the suite, and that the lists beside it are in order.

#![expect(clippy::unwrap_used, reason = "tests")]

mod ids;

use std::collections::BTreeMap;

use serde::Deserialize;

/// The client that is judged goes one way for every server: no name of a scenario or of a check is in its source.
#[test]
fn the_client_names_no_scenario_and_no_check() {
    let checks = checks();
    let words: Vec<&str> = checks
        .iter()
        .flat_map(|(row, ids)| {
            let name = row.split(' ').next().unwrap();
            // The last part alone would do to branch on.
            let last = name.rsplit('/').next().unwrap();
            ids.iter().map(String::as_str).chain([name, last])
        })
        .collect();
    assert!(words.contains(&"auth/dpop") && words.contains(&"dpop"));
    let found: Vec<&str> = words
        .into_iter()
        .filter(|word| CLIENT.contains(word))
        .collect();
    assert!(found.is_empty(), "{found:?}");
    for told in ["SCENARIO", "server_info", "serverInfo", "peer_info"] {
        assert!(!CLIENT.contains(told), "{told}");
    }
}

/// The client stays small enough to be read by whoever doubts it.
#[test]
fn the_client_is_small() {
    assert!(CLIENT.lines().count() <= 200);
}

/// The wrapper leaves no name of a scenario where the client could read it, and runs nothing where it does not know how to take
/// it out.
#[test]
fn the_wrapper_hides_the_name_or_refuses() {
    let hidden = |context: &str| {
        let hide = concat!(env!("CARGO_MANIFEST_DIR"), "/hide");
        let mut command = std::process::Command::new(hide);
        command.args(["sh", "-c", "env; exit 7", "http://127.0.0.1/mcp"]);
        command.env("MCP_CONFORMANCE_SCENARIO", "auth/some-name");
        let output = command
            .env("MCP_CONFORMANCE_CONTEXT", context)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, seen) = hidden(r#"{"name":"auth/some-name","tool":{"name":"add"}}"#);
    assert_eq!(code, Some(7));
    assert!(
        !seen.contains("some-name") && seen.contains(r#""tool":{"name":"add"}"#),
        "{seen}"
    );
    let (code, seen) = hidden(r#"{ "name": "auth/some-name" }"#);
    assert_eq!((code, seen.as_str()), (Some(3), ""));
}

/// Whatever is red has a reason, and a row of its own.
#[test]
fn what_is_red_has_a_reason() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Expected {
        #[serde(default)]
        scenario: Vec<Scenario>,
        #[serde(default)]
        command: Vec<Command>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Scenario {
        name: String,
        wires: Vec<String>,
        #[serde(default)]
        skip: bool,
        reason: String,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Command {
        arguments: String,
        reason: String,
    }
    let expected: Expected = toml::from_str(include_str!("../../expected.toml")).unwrap();
    let checks = checks();
    let mut rows = BTreeMap::new();
    for scenario in &expected.scenario {
        assert!(scenario.reason.len() > 10, "{}", scenario.name);
        assert!(!scenario.wires.is_empty(), "{}", scenario.name);
        for wire in &scenario.wires {
            let row = format!("{} {wire}", scenario.name);
            let made = checks.get(&row).unwrap_or_else(|| panic!("{row}"));
            assert_eq!(scenario.skip, made.is_empty(), "{row}");
            assert!(rows.insert(row, ()).is_none(), "{} twice", scenario.name);
        }
    }
    for command in &expected.command {
        assert!(command.arguments.starts_with("--") && command.reason.len() > 10);
    }
}

/// The checks that each scenario makes on each wire.
fn checks() -> BTreeMap<String, Vec<String>> {
    let checks: BTreeMap<String, Vec<String>> =
        serde_json::from_str(include_str!("../../checks.json")).unwrap();
    assert!(checks.len() >= 64);
    checks
}

const CLIENT: &str = include_str!("../../src/main.rs");
