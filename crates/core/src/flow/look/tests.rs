//! A look on the stage: what it finds, and what it asks for.

use super::*;
use crate::flow::stage::*;

const MCP: &str = "https://mcp.example/mcp";
const RESOURCE: &str = "https://mcp.example/.well-known/oauth-protected-resource/mcp";
const OLD: &str = "https://as.example";
const NEW: &str = "https://new.example";

fn named(issuers: &str) -> Stage {
    let mut stage = Stage::new();
    stage.page(
        MCP,
        with_headers(401, &[("www-authenticate", "Bearer")], ""),
    );
    let document = format!(r#"{{"resource":"{MCP}","authorization_servers":{issuers}}}"#);
    stage.page(RESOURCE, reply(200, &document));
    for issuer in [OLD, NEW] {
        let document = format!(
            r#"{{"issuer":"{issuer}","authorization_endpoint":"{issuer}/a","token_endpoint":"{issuer}/t"}}"#
        );
        let place = format!("{issuer}/.well-known/oauth-authorization-server");
        stage.page(&place, reply(200, &document));
    }
    stage
}

/// The metadata of the new issuer names another.
fn calls_itself(stage: &mut Stage, name: &str) {
    let document = format!(r#"{{"issuer":"{name}","token_endpoint":"{name}/t"}}"#);
    let place = format!("{NEW}/.well-known/oauth-authorization-server");
    stage.page(&place, reply(200, &document));
}

fn task() -> Task {
    Task {
        server: Resource::parse(MCP).unwrap(),
        issuer: issuer(),
        exception: None,
        challenge: None,
    }
}

fn look(stage: &mut Stage) -> Result<Option<Issuer>, Error> {
    stage.run(Look::new(task()))
}

/// AUTH-40, T-15: only where the login's issuer is named no more has the server changed it. Documents are asked for, and
/// nothing else is sent or written.
#[test]
fn a_server_that_names_only_others_has_changed() {
    for (issuers, want) in [
        (r#"["https://as.example"]"#, None),
        (r#"["https://new.example","https://as.example"]"#, None),
        (r#"["https://new.example"]"#, Some(NEW)),
    ] {
        let mut stage = named(issuers);
        let found = look(&mut stage).unwrap();
        assert_eq!(found.as_ref().map(Issuer::as_str), want);
        assert!(
            stage.log.iter().all(|act| act.starts_with("send")),
            "{:?}",
            stage.log
        );
        let secrets = |sent: &crate::exchange::Exchange| {
            sent.headers.contains_key(http::header::AUTHORIZATION)
        };
        assert!(!stage.exchanges.iter().any(secrets));
    }
}

/// T-15, T-16: what cannot be read says nothing: an issuer that does not exist, a server that is away, a document on another
/// host, an issuer that is somebody else.
#[test]
fn what_cannot_be_read_says_nothing() {
    let mut stage = named(r#"["https://nobody.example"]"#);
    stage.answer(reply(404, "")).answer(reply(404, ""));
    assert!(look(&mut stage).is_err());

    let mut stage = named(r#"["https://new.example"]"#);
    stage.page(MCP, unreachable);
    assert!(look(&mut stage).is_err());

    let mut stage = named(r#"["https://new.example"]"#);
    let elsewhere = r#"Bearer resource_metadata="https://evil.example/prm""#;
    stage.page(
        MCP,
        with_headers(401, &[("www-authenticate", elsewhere)], ""),
    );
    assert!(look(&mut stage).is_err());
    assert_eq!(stage.asked(), [MCP]);

    let mut stage = named(r#"["https://new.example"]"#);
    calls_itself(&mut stage, "https://evil.example");
    assert!(look(&mut stage).is_err());
}

/// T-17, T-20: the issuer that a server names stays the same under whatever name a person has accepted it. It is another than the true
/// issuer of that name, and a login at that one has lost its own.
#[test]
fn an_accepted_name_is_no_identity() {
    let known = |known: &str| Task {
        issuer: Issuer::parse(known).unwrap(),
        exception: Some(IssuerException {
            published: Issuer::parse(NEW).unwrap(),
            metadata: issuer(),
        }),
        ..task()
    };
    for (login_at, want) in [(NEW, None), (OLD, Some(NEW))] {
        let mut stage = named(r#"["https://new.example"]"#);
        calls_itself(&mut stage, "https://as.example");
        let found = stage.run(Look::new(known(login_at))).unwrap();
        assert_eq!(found.as_ref().map(Issuer::as_str), want, "{login_at}");
    }
}
