//! A renewal without a person on the stage.

mod replaced;
mod unsaved;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use url::Url;

use super::*;
use crate::{
    assertion::ClientKey,
    credential::Generation,
    flow::stage::*,
    freshness::Policy,
    grant::{ID_JAG, JWT_BEARER},
    issuer::Issuer,
    reference::SecretRef,
    registration::{Client, ClientAuthentication, ClientSource},
    secret::ClientSecret,
    unattended::{ID_TOKEN, IdentityProvider},
};

fn service() -> Client {
    Client {
        secret: ClientSecret::new("cs-canary".into()).ok(),
        authentication: ClientAuthentication::Basic,
        source: ClientSource::PreRegistered,
        ..client("service")
    }
}

/// A login by this grant, in generation 4.
fn login(grant: Kind) -> Credential {
    Credential {
        client: service(),
        refresh_token: None,
        unattended: Some(grant),
        ..credential(4)
    }
}

fn task(held: u64) -> Task {
    Task {
        key: key(),
        held: Some(version(held)),
        refused: None,
        asked: false,
        unsaved: None,
        memory: None,
        remembered: None,
        process: process(1),
        entropy: [0x80; 32],
        policy: Policy::default(),
    }
}

fn due(grant: Kind) -> Stage {
    let mut stage = Stage::with(login(grant));
    stage.pass(secs(3400));
    stage
}

fn expired(grant: Kind) -> Stage {
    let mut stage = Stage::with(login(grant));
    stage.pass(secs(3700));
    stage
}

impl Stage {
    fn renew(&mut self) -> Outcome {
        self.run(Unattended::new(task(4)))
    }
}

/// An answer with a token of this generation, and a refresh token that nobody asked for.
fn granted(
    generation: u64,
) -> impl FnOnce(&crate::exchange::Exchange, &mut Stage) -> crate::exchange::Exchanged + 'static {
    tokens(generation)
}

/// EXT-10, AUTH-70: at the refresh point the grant is made again, under the lock, with the resource and the scopes of the
/// login; what it brings is durable before anybody sees it, and a refresh token is dropped. No attempt is noted: nothing
/// here can be spent.
#[test]
fn the_grant_is_made_again_at_the_refresh_point() {
    let mut stage = due(Kind::ClientCredentials);
    stage.answer(granted(5));
    let outcome = stage.renew();
    assert_eq!(outcome.result, Ok(Gain::Refreshed));
    assert_eq!(
        stage.log,
        ["lock", "reread", "send token", "commit 5 over 4", "unlock"]
    );
    let sent = &stage.exchanges[0];
    assert_eq!(
        form(sent, "grant_type").as_deref(),
        Some("client_credentials")
    );
    assert_eq!(
        form(sent, "resource").as_deref(),
        Some("https://mcp.example")
    );
    assert_eq!(form(sent, "scope").as_deref(), Some("a b"));
    assert_eq!(form(sent, "client_id"), None, "Basic goes alone");
    assert!(sent.headers.contains_key("authorization"));
    let new = outcome.record.unwrap().credential.unwrap();
    assert_eq!(new.version.generation, Generation(5));
    assert_eq!(
        (new.refresh_token, new.unattended),
        (None, Some(Kind::ClientCredentials))
    );
    assert!(matches!(
        stage.events.last().unwrap().happened,
        Happened::Refreshed { .. }
    ));
}

/// I-4, I-9: who comes second adopts what the first has got, without a word to the issuer; a fresh token is left alone.
#[test]
fn of_several_processes_one_asks() {
    let mut stage = due(Kind::ClientCredentials);
    stage.answer(granted(5));
    stage.renew();
    assert_eq!(stage.renew().result, Ok(Gain::Adopted));
    assert_eq!(
        stage.run(Unattended::new(task(5))).result,
        Ok(Gain::Nothing)
    );
    assert_eq!(stage.exchanges.len(), 1);
}

/// F-12: an issuer that cannot be reached costs nothing: the login stays, calls pause, and whoever comes meanwhile sends
/// nothing. No look at the issuer ends the pause early.
#[test]
fn while_the_issuer_is_down_calls_pause_and_nothing_is_lost() {
    let mut stage = expired(Kind::ClientCredentials);
    stage.answer(unreachable);
    assert_eq!(
        stage.renew().result.unwrap_err().code(),
        "unavailable.network"
    );
    let record = stage.record.clone().unwrap();
    assert_eq!(record.version(), Some(version(4)));
    assert_eq!((record.attempt, record.suspicion), (None, None));
    assert_eq!(record.backoff.as_ref().unwrap().failures, 1);
    for asked in [false, true] {
        let again = stage.run(Unattended::new(Task { asked, ..task(4) }));
        let Err(Error::BackingOff { code, .. }) = again.result else {
            panic!("{:?}", again.result);
        };
        assert_eq!(code, "unavailable.network");
    }
    assert_eq!(stage.exchanges.len(), 1, "no call, and no look");
    stage.pass(secs(2));
    stage.answer(granted(5));
    assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
    assert_eq!(stage.record.as_ref().unwrap().backoff, None);
}

/// A call whose answer was lost is made again after its pause, as a first one: with nothing single-use there is nothing to
/// label, and nothing is uncertain.
#[test]
fn a_lost_answer_is_asked_for_again() {
    let mut stage = due(Kind::ClientCredentials);
    stage.answer(broken);
    let outcome = stage.renew();
    assert_eq!(outcome.result.unwrap_err().code(), "unavailable.network");
    assert_eq!(stage.count("note attempt"), 0);
    stage.pass(secs(2));
    stage.answer(granted(5));
    assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
}

/// EXT-40, EXT-41: a refusal is named, to whoever asks meanwhile too; the login stays; no other grant is tried.
#[test]
fn a_refusal_is_named_and_costs_nothing() {
    for error in [
        "invalid_client",
        "unauthorized_client",
        "invalid_scope",
        "invalid_grant",
    ] {
        let mut stage = expired(Kind::ClientCredentials);
        stage.answer(oauth_error(error));
        let refused = Err(Error::DeniedByIssuer {
            error: error.into(),
        });
        assert_eq!(stage.renew().result, refused);
        assert_eq!(stage.renew().result, refused);
        assert_eq!(stage.exchanges.len(), 1);
        let record = stage.record.clone().unwrap();
        assert_eq!(
            (record.version(), record.suspicion),
            (Some(version(4)), None)
        );
        // A secret that was set right is found out after the pause.
        stage.pass(secs(2));
        stage.answer(granted(5));
        assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
    }
}

const TOKEN: &str = "/run/token";

fn workload() -> Kind {
    Kind::Workload {
        token: SecretRef::file(TOKEN).unwrap(),
    }
}

fn jwt(name: &str, audience: &str, ends_in: i64, stage: &Stage) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let exp = i64::try_from(stage.now.wall.unix_seconds()).unwrap() + ends_in;
    let claims = format!(r#"{{"sub":"{name}","aud":"{audience}","exp":{exp}}}"#);
    format!(
        "{}.{}.c2ln",
        part(r#"{"alg":"ES256"}"#.into()),
        part(claims)
    )
}

/// EXT-40: the token is read at each use: what the platform has put there meanwhile is what is shown.
#[test]
fn a_workload_token_is_read_anew_each_time() {
    let mut stage = due(workload());
    for generation in [5, 6] {
        let token = jwt(
            &format!("job-{generation}"),
            "https://as.example",
            600,
            &stage,
        );
        stage.secrets.insert(TOKEN, token.clone());
        stage.answer(granted(generation));
        let outcome = stage.run(Unattended::new(task(generation - 1)));
        assert_eq!(outcome.result, Ok(Gain::Refreshed));
        let sent = stage.exchanges.last().unwrap();
        assert_eq!(form(sent, "grant_type").as_deref(), Some(JWT_BEARER));
        assert_eq!(form(sent, "assertion"), Some(token));
        assert_eq!(
            form(sent, "resource").as_deref(),
            Some("https://mcp.example")
        );
        stage.pass(secs(3400));
    }
    assert_eq!(stage.exchanges.len(), 2);
}

/// EXT-40: an expired token, one for somebody else and one that is not there are not sent; the access token that works is
/// left alone, and so is the issuer. Whoever waits for a token finds the next one at once.
#[test]
fn what_cannot_be_taken_is_not_sent() {
    for (audience, ends_in) in [
        ("https://as.example", -1),
        ("https://as.example", 5),
        ("https://as.example/", 600),
        ("https://mcp.example", 600),
    ] {
        let mut stage = expired(workload());
        let bad = jwt("job", audience, ends_in, &stage);
        stage.secrets.insert(TOKEN, bad);
        assert_eq!(stage.renew().result.unwrap_err().code(), "config.assertion");
        let noted = stage.count("note");
        assert_eq!(stage.renew().result.unwrap_err().code(), "config.assertion");
        assert_eq!(stage.count("note"), noted, "a look is no failure more");
        assert_eq!(stage.exchanges.len(), 0);
        let good = jwt("job", "https://as.example", 600, &stage);
        stage.secrets.insert(TOKEN, good);
        stage.answer(granted(5));
        assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
    }
    let mut stage = expired(workload());
    assert_eq!(stage.renew().result.unwrap_err().code(), "config.value");
    let good = jwt("job", "https://as.example", 600, &stage);
    stage.secrets.insert(TOKEN, good);
    stage.answer(granted(5));
    assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
}

/// EXT-41, T-45: a token that the issuer has refused is never shown again, however long it stays in its file, and nothing
/// else is tried; the one that replaces it is shown at once to whoever waits.
#[test]
fn a_refused_assertion_is_never_sent_again() {
    let mut stage = expired(workload());
    let first = jwt("first", "https://as.example", 100_000, &stage);
    stage.secrets.insert(TOKEN, first);
    stage.answer(oauth_error("invalid_grant"));
    let refused = Err(Error::DeniedByIssuer {
        error: "invalid_grant".into(),
    });
    assert_eq!(stage.renew().result, refused);
    for wait in [0, 1, 300, 3600, 40_000] {
        stage.pass(secs(wait));
        let again = stage.renew().result.unwrap_err();
        assert_eq!(again.code(), "config.assertion", "{again}");
    }
    assert_eq!(stage.exchanges.len(), 1);
    assert_eq!(
        form(&stage.exchanges[0], "grant_type").as_deref(),
        Some(JWT_BEARER)
    );
    // Not even after something else went wrong in between.
    let second = jwt("second", "https://as.example", 100_000, &stage);
    let first = stage.secrets.insert(TOKEN, second).unwrap();
    stage.answer(unreachable);
    assert_eq!(
        stage.renew().result.unwrap_err().code(),
        "unavailable.network"
    );
    stage.pass(secs(600));
    let second = stage.secrets.insert(TOKEN, first).unwrap();
    assert_eq!(stage.renew().result.unwrap_err().code(), "config.assertion");
    assert_eq!(stage.exchanges.len(), 2);
    stage.secrets.insert(TOKEN, second);
    stage.answer(granted(5));
    assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
}

/// I-9: an outage is no matter of the token in its file: while the issuer is down, calls with it pause as any others do.
#[test]
fn an_outage_pauses_a_workload_too() {
    let mut stage = expired(workload());
    let token = jwt("job", "https://as.example", 100_000, &stage);
    stage.secrets.insert(TOKEN, token);
    stage.answer(unreachable);
    stage.renew();
    for _ in 0..20 {
        assert!(matches!(
            stage.renew().result,
            Err(Error::BackingOff { .. })
        ));
    }
    assert_eq!(stage.exchanges.len(), 1);
}

const IDENTITY: &str = "/run/identity";

fn enterprise() -> Kind {
    Kind::Enterprise(Box::new(IdentityProvider {
        issuer: Issuer::parse("https://idp.example").unwrap(),
        token_endpoint: Url::parse("https://idp.example/token").unwrap(),
        client: Client {
            authentication: ClientAuthentication::None,
            ..client("at-idp")
        },
        subject: SecretRef::file(IDENTITY).unwrap(),
        subject_type: ID_TOKEN.into(),
    }))
}

fn id_jag(token: &str) -> String {
    format!(r#"{{"issued_token_type":"{ID_JAG}","token_type":"N_A","access_token":"{token}"}}"#)
}

/// EXT-20, EXT-21: the identity goes to the identity provider, with the issuer as audience and the resource to the letter;
/// what it gives goes to the issuer, with the client's own authentication there. Neither sees what belongs to the other.
#[test]
fn an_identity_becomes_an_assertion_and_that_a_token() {
    let mut stage = due(enterprise());
    let (identity, assertion) = (
        jwt("alice", "at-idp", 600, &stage),
        jwt("jag", "https://as.example", 300, &stage),
    );
    stage.secrets.insert(IDENTITY, identity.clone());
    stage.page("https://idp.example/token", reply(200, &id_jag(&assertion)));
    stage.page("https://as.example/token", granted(5));
    assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
    let [first, second] = &stage.exchanges[..] else {
        panic!("{:?}", stage.asked());
    };
    for (name, want) in [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("requested_token_type", ID_JAG),
        ("subject_token", &identity),
        ("subject_token_type", ID_TOKEN),
        ("audience", "https://as.example"),
        ("resource", "https://mcp.example"),
        ("client_id", "at-idp"),
    ] {
        assert_eq!(form(first, name).as_deref(), Some(want), "{name}");
    }
    assert!(!first.headers.contains_key("authorization"));
    assert_eq!(form(second, "grant_type").as_deref(), Some(JWT_BEARER));
    assert_eq!(form(second, "assertion"), Some(assertion));
    assert_eq!(form(second, "subject_token"), None);
    assert!(second.headers.contains_key("authorization"));
}

/// EXT-20, F-12: an identity provider that is down, refuses, or gives something else than was asked for costs nothing, and
/// the issuer hears nothing of it. An identity that was refused is not shown again; one behind a refused assertion is.
#[test]
fn a_failing_identity_provider_costs_nothing() {
    let with = |stage: &mut Stage| {
        let identity = jwt("alice", "at-idp", 100_000, stage);
        stage.secrets.insert(IDENTITY, identity);
    };
    let mut stage = expired(enterprise());
    with(&mut stage);
    stage.page("https://idp.example/token", unreachable);
    assert_eq!(
        stage.renew().result.unwrap_err().code(),
        "unavailable.network"
    );
    let mut stage = expired(enterprise());
    with(&mut stage);
    stage.page("https://idp.example/token", granted(5));
    assert_eq!(
        stage.renew().result.unwrap_err().code(),
        "peer.metadata_invalid"
    );
    let mut stage = expired(enterprise());
    with(&mut stage);
    stage.page("https://idp.example/token", oauth_error("invalid_grant"));
    assert_eq!(stage.renew().result.unwrap_err().code(), "denied.by_issuer");
    stage.pass(secs(3600));
    assert_eq!(stage.renew().result.unwrap_err().code(), "config.assertion");
    assert_eq!(stage.asked(), ["https://idp.example/token"]);

    let mut stage = expired(enterprise());
    with(&mut stage);
    let assertion = jwt("jag", "https://as.example", 300, &stage);
    stage.page("https://idp.example/token", reply(200, &id_jag(&assertion)));
    stage.page("https://as.example/token", oauth_error("invalid_grant"));
    assert_eq!(stage.renew().result.unwrap_err().code(), "denied.by_issuer");
    assert_eq!(stage.renew().result.unwrap_err().code(), "denied.by_issuer");
    assert_eq!(stage.exchanges.len(), 2);
    stage.pass(secs(600));
    stage.page("https://idp.example/token", reply(200, &id_jag(&assertion)));
    stage.page("https://as.example/token", granted(5));
    assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
    assert_eq!(stage.record.unwrap().version(), Some(version(5)));
}

/// EXT-11: a client with a key is ordered an assertion for the issuer of the login, and shows no ID beside it.
#[test]
fn a_key_orders_an_assertion_for_the_issuer() {
    let mut login = login(Kind::ClientCredentials);
    login.client = Client {
        key: Some(ClientKey {
            reference: SecretRef::file("/run/key").unwrap(),
            algorithm: None,
            key_id: None,
        }),
        secret: None,
        authentication: ClientAuthentication::PrivateKeyJwt,
        ..service()
    };
    let mut stage = Stage::with(login);
    stage.pass(secs(3400)).answer(granted(5));
    assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
    let sent = &stage.exchanges[0];
    let order = sent.orders.assertion.as_ref().unwrap();
    assert_eq!(
        (order.client_id.as_str(), &order.audience),
        ("service", &issuer())
    );
    assert_eq!(form(sent, "client_id"), None);
    assert!(!sent.headers.contains_key("authorization"));
}

/// EXT-30, EXT-32: a login whose tokens are bound to a key renews with a proof of that key, and keeps it.
#[test]
fn a_renewal_proves_the_key_of_the_login() {
    let proof_key = crate::dpop::ProofKey::new(b"key", [1; 32], [2; 32]).ok();
    let mut stage = Stage::with(Credential {
        proof_key: proof_key.clone(),
        ..login(Kind::ClientCredentials)
    });
    stage.pass(secs(3400)).answer(granted(5));
    let outcome = stage.renew();
    assert_eq!(stage.exchanges[0].orders.proof, proof_key);
    assert_eq!(
        outcome.record.unwrap().credential.unwrap().proof_key,
        proof_key
    );
}

/// F-06: what the store does not take goes into the spool slot, and from there into the store; what neither takes is served
/// from memory, and nobody is kept from asking again.
#[test]
fn what_the_store_refuses_is_kept_and_merged() {
    let mut stage = due(Kind::ClientCredentials);
    stage.answer(granted(5)).fail("commit");
    let outcome = stage.renew();
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), false)
    );
    assert_eq!(stage.heal().renew().result, Ok(Gain::Adopted));
    assert_eq!(stage.count("commit 5 over 4"), 2);
    assert_eq!(stage.record.as_ref().unwrap().version(), Some(version(5)));

    let mut stage = due(Kind::ClientCredentials);
    stage.answer(granted(5)).fail("commit").fail("spool");
    let outcome = stage.renew();
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), true)
    );
    let kept = outcome.record.unwrap().credential.unwrap();
    stage.heal();
    let unsaved = Some(Box::new(kept));
    let again = stage.run(Unattended::new(Task { unsaved, ..task(5) }));
    assert_eq!(again.result, Ok(Gain::Nothing));
    assert_eq!(stage.record.as_ref().unwrap().version(), Some(version(5)));
    assert_eq!(stage.exchanges.len(), 1);
}

/// I-5: a login or a logout that came between counts, and what was just got for the old one goes nowhere.
#[test]
fn what_came_between_counts() {
    let mut stage = due(Kind::ClientCredentials);
    stage.answer(granted(5)).before("commit", |stage| {
        let other = Credential {
            unattended: None,
            ..other_login("other")
        };
        stage.record.as_mut().unwrap().credential = Some(other);
    });
    assert_eq!(stage.renew().result, Ok(Gain::Adopted));
    assert_eq!(
        stage
            .record
            .as_ref()
            .unwrap()
            .credential
            .as_ref()
            .unwrap()
            .client
            .id,
        "other"
    );

    let mut stage = due(Kind::ClientCredentials);
    stage.before("reread", |stage| {
        stage.record.as_mut().unwrap().credential = None
    });
    assert_eq!(stage.renew().result, Err(Error::login(LoginCause::Never)));
    assert_eq!(stage.exchanges.len(), 0);
}

/// T-45, I-10: a server that refuses whatever it is shown leads to one renewal, and then to none for half a token's life.
#[test]
fn a_server_that_refuses_everything_trips_the_breaker() {
    let mut stage = Stage::with(login(Kind::ClientCredentials));
    stage.pass(secs(60)).answer(granted(5));
    let refused = |generation| Task {
        refused: Some(version(generation)),
        ..task(generation)
    };
    assert_eq!(
        stage.run(Unattended::new(refused(4))).result,
        Ok(Gain::Refreshed)
    );
    for wait in [0, 60, 600, 1100] {
        stage.pass(Duration::from_secs(wait));
        let again = stage.run(Unattended::new(refused(5)));
        assert_eq!(again.result, Err(Error::DeniedByResource));
    }
    assert_eq!(stage.exchanges.len(), 1);
}
