//! A server that changes its issuer, and one that names several.

use super::*;
use crate::{record::Suspicion, scope::Scopes};

const FORMER: &str = "https://former.example";

fn former() -> Issuer {
    Issuer::parse(FORMER).unwrap()
}

fn former_key() -> CredentialKey {
    CredentialKey {
        issuer: former(),
        ..key()
    }
}

/// The binding of a login at the former issuer.
fn bound() -> Task {
    let mut task = task();
    task.binding.credential = Some(former_key());
    task
}

/// A stage that holds it; the server names another issuer now.
fn moved() -> Stage {
    let mut stage = stage();
    let login = Credential {
        key: former_key(),
        ..credential(7)
    };
    let record = Record {
        credential: Some(login),
        ..Record::default()
    };
    stage.elsewhere.push((former(), record));
    let mut registered = registration("at-the-former", ANY_PORT);
    registered.issuer = former();
    stage.registrations.push(registered);
    stage
}

/// AUTH-16, AUTH-39, AUTH-40, T-15, T-20: the new issuer is asked as a stranger: the prompt names both, the client is its own, and
/// nothing of the former login goes anywhere. That login is not replaced, and so not revoked; the commit says what happened.
#[test]
fn another_issuer_is_a_stranger() {
    let mut stage = moved();
    let done = login(&mut stage, bound()).unwrap();
    let prompt = stage.prompt.as_ref().unwrap();
    assert_eq!(
        (prompt.issuer.as_str(), prompt.former_issuer.clone()),
        ("https://as.example", Some(former()))
    );
    assert_eq!(shown(&stage, "client_id").as_deref(), Some("client-1"));
    assert_eq!(done.former_issuer, Some(former()));
    assert!(done.superseded.is_none() && stage.queue.is_empty());
    let binding = stage.binding.as_ref().unwrap();
    assert_eq!(binding.credential, Some(key()));
    assert!(matches!(
        &stage.events[..],
        [Event { happened: Happened::LoggedIn { former_issuer: Some(said), .. }, .. }] if said == FORMER
    ));
    let secrets = ["at-7", "rt-7", "at-the-former"];
    for sent in &stage.exchanges {
        let body = String::from_utf8_lossy(&sent.body).into_owned();
        let all = format!("{} {:?} {body}", sent.url, sent.headers);
        assert!(!secrets.iter().any(|secret| all.contains(secret)), "{all}");
    }
}

/// The same, with a login at the new issuer that is still there.
fn gone_back(record: Record) -> Stage {
    let mut stage = moved();
    stage.record = Some(record);
    stage
}

fn earlier() -> Record {
    Record {
        credential: Some(credential(4)),
        ..Record::default()
    }
}

/// T-20, AUTH-16: a server that goes back: the login that is still there is used again, nobody is asked and nothing but
/// documents is.
#[test]
fn the_way_back_finds_the_login_as_it_was() {
    let mut stage = gone_back(earlier());
    let done = login(&mut stage, bound()).unwrap();
    assert_eq!(done.credential, credential(4));
    assert_eq!(done.former_issuer, Some(former()));
    assert_eq!((stage.count("show"), stage.count("commit")), (0, 0));
    assert_eq!(stage.binding.as_ref().unwrap().credential, Some(key()));
    assert!(
        stage
            .exchanges
            .iter()
            .all(|sent| sent.url.as_str() != TOKEN)
    );
    assert!(matches!(
        &stage.events[..],
        [Event { happened: Happened::IssuerChanged { from, to }, .. }] if from == FORMER && to == "https://as.example"
    ));
}

/// T-20: an earlier login that is refused, does not cover what is asked, belongs to another client or ends with its token is
/// not gone back to. Nor is any after a logout: then nothing is used any more that was there.
#[test]
fn what_is_of_no_use_is_not_gone_back_to() {
    let doubt = Suspicion {
        cause: LoginCause::Never,
        since: start().wall,
        probes: 0,
        next_probe_at: None,
        at: None,
    };
    let refused = Record {
        suspicion: Some(doubt),
        ..earlier()
    };
    let mut ended = earlier();
    ended.credential.as_mut().unwrap().refresh_token = None;
    let more = Task {
        scopes: Some(Scopes::parse("a c")),
        ..bound()
    };
    let same_client = Task {
        issuer: Issuer::parse("https://as.example").ok(),
        client: Some(client("another")),
        ..bound()
    };
    for (what, record, task, passes) in [
        ("refused", refused, bound(), 0),
        ("ended", ended, bound(), 3700),
        ("more scopes", earlier(), more, 0),
        ("another client", earlier(), same_client, 0),
        ("a tombstone", Record::default(), bound(), 0),
    ] {
        let mut stage = gone_back(record);
        stage.pass(secs(passes));
        login(&mut stage, task).unwrap();
        assert_eq!(stage.count("show"), 1, "{what}");
    }
    let mut stage = gone_back(earlier());
    stage.elsewhere[0].1 = Record::default();
    login(&mut stage, bound()).unwrap();
    assert_eq!(stage.count("show"), 1, "after a logout");
}

/// AUTH-41: a client that was made at one issuer is of use at another only where a person says that it was made there.
#[test]
fn a_brought_client_goes_where_a_person_says() {
    let mut task = bound();
    task.client = Some(client("brought"));
    task.issuer = Issuer::parse("https://as.example").ok();
    let mut stage = moved();
    let done = login(&mut stage, task).unwrap();
    assert_eq!(done.credential.client.id, "brought");
}

/// AUTH-15: the issuer that a person chooses is the one of the login, and one that the server does not name is refused before
/// anything is sent to it.
#[test]
fn a_person_chooses_the_issuer() {
    let second = "https://second.example";
    let mut stage = stage();
    stage.page(
        RESOURCE,
        reply(
            200,
            r#"{"resource":"https://mcp.example","authorization_servers":["https://second.example","https://as.example"]}"#,
        ),
    );
    let task = Task {
        issuer: Issuer::parse("https://as.example").ok(),
        ..task()
    };
    let done = login(&mut stage, task.clone()).unwrap();
    assert_eq!(done.credential.key.issuer.as_str(), "https://as.example");
    assert!(!stage.asked().iter().any(|url| url.starts_with(second)));

    let mut stage = self::stage();
    let wrong = Task {
        issuer: Issuer::parse(second).ok(),
        ..task
    };
    let error = login(&mut stage, wrong).unwrap_err();
    assert_eq!(error.code(), "config.value");
    assert!(
        error.to_string().contains("it names https://as.example"),
        "{error}"
    );
    assert_eq!(stage.asked(), [MCP, RESOURCE]);
}

/// F-06, I-5: a login at another issuer that the store refuses is found by whoever looks for it: the binding names it as soon as the
/// spool has it. Where the binding cannot be written either, nobody is told that they are logged in; the old one stays in force.
#[test]
fn a_login_at_another_issuer_is_found_or_not_told() {
    let mut stage = moved();
    stage.fail("commit");
    let done = login(&mut stage, bound()).unwrap();
    assert_eq!(done.credential.key, key());
    let binding = stage.binding.as_ref().expect("a binding");
    assert_eq!(binding.credential, Some(key()));
    assert_eq!(binding.former, [former_key()]);
    let (_, kept) = stage.spool.take().expect("a spooled login");
    assert_eq!(kept.version, done.credential.version);
    let at = |act: &str| stage.log.iter().position(|line| line.starts_with(act));
    assert!(
        at("spool") < at("bind"),
        "what is in force stays until there is another"
    );

    let mut stage = moved();
    stage.fail("commit").fail("bind");
    let error = login(&mut stage, bound()).unwrap_err();
    assert_eq!(error.code(), "unavailable.store");

    // Nothing was spooled, so nothing is pointed at.
    let mut stage = moved();
    stage.fail("commit").fail("spool");
    let error = login(&mut stage, bound()).unwrap_err();
    assert_eq!(error.code(), "unavailable.store");
    assert!(stage.binding.is_none());
}

/// T-24: the way back keeps to what a person has just said of `resource`: a login whose tokens are limited otherwise is not it.
#[test]
fn the_way_back_keeps_to_what_is_said_of_resource() {
    let unlimited = || {
        let mut record = earlier();
        record.credential.as_mut().unwrap().pins.resource_parameter = None;
        record
    };
    let without_at = |at: Option<Issuer>| {
        let mut task = bound();
        task.binding.without_resource_at = at;
        task
    };
    for (record, at, said, back) in [
        (earlier(), None, None, true),
        (earlier(), None, Some(false), true),
        (earlier(), None, Some(true), false),
        (unlimited(), Some(issuer()), None, true),
        (unlimited(), Some(issuer()), Some(true), true),
        (unlimited(), Some(issuer()), Some(false), false),
        (unlimited(), None, None, false),
        (earlier(), Some(former()), Some(false), true),
    ] {
        let mut stage = gone_back(record);
        let task = Task {
            without_resource: said,
            ..without_at(at.clone())
        };
        login(&mut stage, task).unwrap();
        assert_eq!(stage.count("show"), usize::from(!back), "{at:?} {said:?}");
        let want = match said {
            Some(true) => Some(issuer()),
            Some(false) => None,
            None => at,
        };
        assert_eq!(stage.binding.as_ref().unwrap().without_resource_at, want);
    }
}
