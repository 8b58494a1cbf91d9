use super::*;
use pilotlight_core::{
    attempt::ProcessId,
    credential::{Account, CredentialKey, Generation, Incarnation, Lifetime, Pins, TokenType},
    issuer::Issuer,
    registration::{Client, ClientAuthentication, ClientSource},
    resource::Resource,
    scope::Scopes,
    secret::{AccessToken, RefreshToken},
    time::{Stamp, Wall},
};

/// An entry as the first stores wrote it.
#[derive(Serialize, Deserialize)]
struct Before {
    after: Vec<Option<Version>>,
    credential: Credential,
}

fn version(generation: u64) -> Version {
    Version {
        incarnation: Incarnation([1; 16]),
        generation: Generation(generation),
    }
}

fn credential(generation: u64) -> Credential {
    Credential {
        key: CredentialKey {
            tenant: String::new(),
            resource: Resource::parse("https://mcp.example").unwrap(),
            issuer: Issuer::parse("https://as.example").unwrap(),
            account: Account::default(),
        },
        version: version(generation),
        pins: Pins {
            resource_parameter: None,
            token_endpoint: "https://as.example/token".parse().unwrap(),
            revocation_endpoint: None,
            called: None,
        },
        client: Client {
            id: "client".into(),
            secret: None,
            secret_ref: None,
            key: None,
            secret_expires_at: None,
            authentication: ClientAuthentication::None,
            source: ClientSource::Dynamic,
        },
        access_token: AccessToken::new("at".into()).unwrap(),
        token_type: TokenType::Bearer,
        proof_key: None,
        unattended: None,
        refresh_token: RefreshToken::new("rt".into()).ok(),
        received_at: Some(Stamp::default()),
        lifetime: Some(Lifetime::Stated(std::time::Duration::from_secs(60))),
        scopes_requested: Scopes::parse("a"),
        scopes_granted: Scopes::parse("a"),
        logged_in_at: Wall(1),
    }
}

fn attempt(generation: u64, number: u32) -> Attempt {
    Attempt {
        generation: Generation(generation),
        number,
        label: None,
        fence: 1,
        process: ProcessId::default(),
        first_sent_at: Stamp::default(),
        sent_at: Stamp::default(),
    }
}

fn held(generation: u64) -> Held {
    Held::Login(version(generation))
}

/// F-06, I-18: an entry that an earlier version left is read, and one with a credential can be read by it.
#[test]
fn entries_of_earlier_versions_are_read() {
    let before = Before {
        after: vec![Some(version(4))],
        credential: credential(5),
    };
    let text = serde_json::to_vec(&before).unwrap();
    let mut entry: Entry = serde_json::from_slice(&text).unwrap();
    assert_eq!(entry.counting(held(4)), Some(&credential(5)));
    assert_eq!(entry.attempt_of(version(5)), None);
    assert_eq!(
        serde_json::to_vec(&entry).unwrap(),
        text,
        "what holds no attempt looks as it always has"
    );
    entry.keep_attempt(version(5), Some(&attempt(5, 1)));
    let text = serde_json::to_vec(&entry).unwrap();
    let before: Before = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (before.after, before.credential),
        (entry.after, credential(5))
    );
}

/// F-06, I-3: neither a version nor an attempt takes the other's place, in whatever order they come.
#[test]
fn a_version_and_an_attempt_lie_side_by_side() {
    let one = attempt(4, 1);
    let mut entry = Entry::default();
    assert!(entry.keep_attempt(version(4), Some(&one)));
    assert!(entry.counting(held(4)).is_none());
    entry.keep(Some(version(4)), credential(5));
    assert_eq!(entry.attempt_of(version(4)), Some(one));
    assert_eq!(entry.counting(held(4)), Some(&credential(5)));
    let five = attempt(5, 1);
    assert!(entry.keep_attempt(version(5), Some(&five)));
    assert_eq!(entry.attempt_of(version(5)), Some(five));
    assert_eq!(entry.attempt_of(version(4)), None);
    assert_eq!(entry.counting(held(4)), Some(&credential(5)));
    entry.keep(Some(version(5)), credential(6));
    assert_eq!(
        entry.counting(held(4)),
        Some(&credential(6)),
        "it follows what the one before followed"
    );
}

/// I-3: only the attempt that is meant is taken back, and what changes nothing is said to change nothing.
#[test]
fn an_attempt_is_taken_back_by_its_version() {
    let one = attempt(4, 1);
    let mut entry = Entry::default();
    entry.keep(Some(version(4)), credential(5));
    assert!(!entry.keep_attempt(version(4), None), "none was there");
    entry.keep_attempt(version(4), Some(&one));
    assert!(!entry.keep_attempt(version(4), Some(&one)), "it was there");
    assert!(!entry.keep_attempt(version(3), None), "another's");
    assert_eq!(entry.attempt_of(version(4)), Some(one));
    assert!(entry.keep_attempt(version(4), None));
    assert_eq!(entry.attempt_of(version(4)), None);
    assert_eq!(entry.counting(held(4)), Some(&credential(5)));
}

/// F-31, I-2, I-5: a login that was under way while another version was spooled replaces that one: a late refresh of it does
/// not displace the login, nor bring the spent version back that the store still holds.
#[test]
fn a_login_stays_in_the_slot() {
    let mut login = credential(0);
    login.version.incarnation = Incarnation([2; 16]);
    let mut entry = Entry::default();
    assert!(entry.keep(Some(version(3)), credential(4)));
    assert!(entry.keep(Some(version(3)), login.clone()));
    assert!(!entry.keep(Some(version(4)), credential(5)));
    assert_eq!(
        entry.counting(held(3)).map(|kept| kept.version),
        Some(login.version)
    );
    assert_eq!(
        entry.counting(held(4)).map(|kept| kept.version),
        Some(login.version)
    );
}
