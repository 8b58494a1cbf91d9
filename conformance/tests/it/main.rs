//! That what the suite judges knows nothing of the suite, and that the lists beside it are in order.

#![expect(clippy::unwrap_used, reason = "tests")]

mod ids;

use std::collections::BTreeMap;

use serde::Deserialize;

/// What is judged goes one way for every server: no name of a scenario or of a check is in its source. A host has to say
/// `initialize`, which is the name of one, too.
#[test]
fn the_sources_name_no_scenario_and_no_check() {
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
    for source in [CLIENT, SAMPLES, HOST, PERSON] {
        let named = words.iter().filter(|word| source.contains(**word));
        let found: Vec<_> = named.filter(|word| **word != "initialize").collect();
        assert!(found.is_empty(), "{found:?}");
        for told in ["SCENARIO", "server_info", "serverInfo", "peer_info"] {
            assert!(!source.contains(told), "{told}");
        }
    }
}

/// Client and host stay small enough to be read by whoever doubts them.
#[test]
fn the_sources_are_small() {
    for source in [CLIENT, HOST, PERSON] {
        assert!(source.lines().count() <= 200);
    }
}

/// The host knows nothing of how a login is made: it has no word for what a login needs.
#[test]
fn the_host_knows_nothing_of_logins() {
    let code = HOST
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n").to_lowercase();
    for word in [
        "oauth",
        "token",
        "client_id",
        "secret",
        "login",
        "authoriz",
        "401",
        "http",
    ] {
        assert!(!code.contains(word), "{word}");
    }
    assert!(PERSON.contains("client_id"));
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

/// What is known of the rows through the bridge is about rows that there are, about checks that they make, and has a reason.
#[test]
fn what_is_red_through_the_bridge_has_a_reason() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Known {
        scenario: Vec<Row>,
        person: Vec<Row>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        name: String,
        wires: Vec<String>,
        hosts: Vec<String>,
        #[serde(default)]
        checks: Vec<String>,
        reason: String,
    }
    let known: Known = toml::from_str(include_str!("../../bridge.toml")).unwrap();
    let all = checks();
    let mut rows = BTreeMap::new();
    for (row, red) in (known.scenario.iter().map(|row| (row, true)))
        .chain(known.person.iter().map(|row| (row, false)))
    {
        assert!(row.reason.len() > 30, "{}", row.name);
        assert_eq!(row.checks.is_empty(), !red, "{}", row.name);
        for wire in &row.wires {
            let made = &all[&format!("{} {wire}", row.name)];
            assert!(
                row.checks.iter().all(|check| made.contains(check)),
                "{}",
                row.name
            );
            for host in &row.hosts {
                assert!(host == "old" || host == "new");
                let twice = rows.insert((&row.name, wire, host), ());
                assert!(twice.is_none(), "{} twice", row.name);
            }
        }
    }
    assert!(!rows.is_empty());
}

/// The checks that each scenario makes on each wire.
fn checks() -> BTreeMap<String, Vec<String>> {
    let checks: BTreeMap<String, Vec<String>> =
        serde_json::from_str(include_str!("../../checks.json")).unwrap();
    assert!(checks.len() >= 64);
    checks
}

const CLIENT: &str = include_str!("../../src/main.rs");
const SAMPLES: &str = include_str!("../../src/samples.rs");
const HOST: &str = include_str!("../../src/host.rs");
const PERSON: &str = include_str!("../../src/person.rs");
