//! `logout`: the issuer is told, and nothing of the login is left behind.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::peers::{Peers, seconds};
use crate::support::{Home, contains, until};

/// F-31, I-6, T-33: revoked at the issuer; no token, secret, code or address of that login is left in any file.
#[test]
fn logout_revokes_at_the_issuer_and_leaves_nothing() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "300"), ("NO_PUBLIC", "1")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    peers.call(&home).run().ok();
    home.run(["refresh", peers.url(), "--force"]).ok();
    let token = home
        .pilotlight(["token", peers.url(), "--format", "bare"])
        .reveals()
        .run()
        .ok()
        .stdout;
    assert_eq!(ask(peers.url(), token.trim()), 200, "the token worked");

    let before = home.files();
    home.run(["logout", peers.url(), "--json"]).ok();
    assert_ne!(peers.issuer().revocations, 0, "the issuer was told");
    assert_eq!(ask(peers.url(), token.trim()), 401, "and took it back");
    peers.call(&home).run().refused(3, "login.never");
    for (path, bytes) in home.files() {
        for trace in [peers.url(), "alice", token.trim()] {
            assert!(
                !contains(&bytes, trace.as_bytes()),
                "a trace of it in {}",
                path.display()
            );
        }
    }
    assert!(!survivors(&before, &before).is_empty(), "it would be seen");
    assert_eq!(
        survivors(&before, &home.files()),
        Vec::<String>::new(),
        "sealed, but not gone"
    );
    peers.assert_clean(&home);

    assert_eq!(home.events(peers.url(), "logged_out").len(), 1);
    let told = home.events(peers.url(), "revocation");
    let outcomes: Vec<_> = told.iter().map(|event| &event["outcome"]).collect();
    assert_eq!(outcomes, ["revoked"], "and so says the history");

    peers.login(&home);
    peers.call(&home).run().ok();
    let issuer = peers.issuer();
    assert_eq!(
        issuer.registrations, 2,
        "the client and its secret were forgotten too"
    );
}

/// F-31: the other account of the same server stays logged in, on the registration that both use.
#[test]
fn logout_of_one_account_leaves_the_other() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "5"), ("NO_PUBLIC", "1")]) else {
        return;
    };
    let home = Home::new();
    let browser = peers.browser(&home);
    for account in ["home", "work"] {
        let browser = browser.to_str().unwrap();
        let args = [
            "login",
            peers.url(),
            "--account",
            account,
            "--browser-command",
            browser,
            "--json",
        ];
        home.run(args).ok();
    }
    assert_eq!(
        peers.issuer().registrations,
        1,
        "one client on this machine"
    );
    home.run(["logout", peers.url(), "--account", "work"]).ok();
    for _ in 0..2 {
        // Past the expiry as well: the secret they shared is still there.
        until("it expires", seconds(15), || {
            (home.session()["state"] == "expired").then_some(())
        });
        home.run(["call", peers.url(), "whoami", "--account", "home", "--json"])
            .ok();
    }
    assert_eq!(peers.issuer().refresh_ok, 2);
    peers.assert_clean(&home);
}

/// The status an MCP server answers to a request with this token.
fn ask(url: &str, token: &str) -> u16 {
    use std::io::{Read, Write};
    let url = url::Url::parse(url).unwrap();
    let address = url.socket_addrs(|| None).unwrap()[0];
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
    write!(
        socket,
        "POST {} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        url.path(),
        body.len(),
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Where long stretches of ciphertext stood before that still stand somewhere: whoever has the key can read them.
/// A sealed grant is longer than this; the history and the name, which stay, are not.
fn survivors(before: &[(PathBuf, Vec<u8>)], after: &[(PathBuf, Vec<u8>)]) -> Vec<String> {
    const PIECE: usize = 16;
    const STRETCH: usize = 1008;
    let now: HashSet<&[u8]> = after
        .iter()
        .flat_map(|(_, bytes)| bytes.windows(PIECE))
        .collect();
    let is_random = |piece: &[u8]| piece.iter().collect::<HashSet<_>>().len() > PIECE / 2;
    let survives = |piece: &[u8]| is_random(piece) && now.contains(piece);
    let mut found = Vec::new();
    for (path, bytes) in before {
        for (number, stretch) in bytes.windows(STRETCH).enumerate().step_by(16) {
            if stretch.chunks(PIECE).all(survives) {
                found.push(format!("{} at {number}", path.display()));
            }
        }
    }
    found
}
