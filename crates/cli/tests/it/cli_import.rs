//! Logins that mcp-remote has left: brought in by `import`, and by a bridge that keeps silent.

use std::{fs, path::PathBuf};

use md5::{Digest as _, Md5};
use serde_json::json;

use crate::bridged::Bridged;
use crate::cli::Machine;

/// Puts a login where mcp-remote keeps it, in the folder of a layout, and answers the folder that it is below.
pub(crate) fn theirs(machine: &Machine, layout: &str, tokens: &str) -> PathBuf {
    let hash: [u8; 16] = Md5::digest(machine.url().as_bytes()).into();
    let hash = format!("{:032x}", u128::from_be_bytes(hash));
    let base = machine.home.beside("home").join(".mcp-auth");
    let folder = base.join(layout);
    fs::create_dir_all(&folder).unwrap();
    let client = json!({ "client_id": "theirs" }).to_string();
    for (name, text) in [("tokens", tokens), ("client_info", &client)] {
        fs::write(folder.join(format!("{hash}_{name}.json")), text).unwrap();
    }
    base
}

/// Logs this machine in; answers the tokens as mcp-remote writes them.
pub(crate) fn tokens(machine: &Machine) -> String {
    machine.login(&[]);
    let token = machine.home.run(["token", machine.url()]).ok().stdout;
    let tokens = json!({
        "access_token": token.trim(),
        "token_type": "Bearer",
        "expires_in": 3600,
        "refresh_token": "unused",
    });
    tokens.to_string()
}

/// F-18: a login of an older layout is brought in, which is no failure, and said to be ours alone; the present layout is said to
/// be shared, and nothing at all is a failure.
#[test]
fn what_was_copied_is_told_from_what_is_shared() {
    let machine = Machine::new();
    let tokens = tokens(&machine);
    let import = |store: &str| {
        let store = machine.home.beside(store);
        machine
            .home
            .pilotlight(["import", "mcp-remote", machine.url(), "--json", "--store"])
            .with(&[store.to_str().unwrap()])
            .run()
    };
    let nothing = import("none");
    assert_eq!(nothing.code, Some(1), "{nothing:?}");

    let base = theirs(&machine, "mcp-remote-0.1.38", &tokens);
    let copied = import("copied").ok();
    let told = copied.json();
    assert_eq!(told["copied"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["shared"], json!([]), "{told}");
    fs::remove_dir_all(base).unwrap();

    theirs(&machine, "mcp-remote-v1", &tokens);
    let told = import("shared").ok().json();
    assert_eq!(told["shared"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["copied"], json!([]), "{told}");
}

/// `--silent` is silent: also about a login of mcp-remote that is left alone.
#[test]
fn a_silent_bridge_says_nothing_of_a_torn_login() {
    let machine = Machine::new();
    machine.login(&[]);
    theirs(&machine, "mcp-remote-v1", "{\"access_tok");
    for (more, says) in [(&["--silent"][..], false), (&[], true)] {
        let mut bridge = Bridged::start(&machine, more);
        bridge.begin();
        bridge.welcomed();
        drop(bridge.stdin.take());
        assert_eq!(bridge.ended(), Some(0), "{}", bridge.errors());
        let said = bridge.errors();
        assert_eq!(said.contains("left alone"), says, "{said}");
        assert_eq!(said.is_empty(), !says, "{said}");
    }
}
