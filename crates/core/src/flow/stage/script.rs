//! What the other sides answer, and the logins that the tests begin with.

use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::*;
use crate::{
    credential::{Account, Generation, Incarnation, Lifetime, Pins, TokenType},
    error::NetworkFault,
    exchange::{Delivery, Failure, Fault, Reply},
    registration::{ClientAuthentication, ClientSource},
    resource::Resource,
    scope::Scopes,
    secret::{AccessToken, RefreshToken},
    time::BootId,
};

/// The only value of a form field; two of them are a bug of ours.
pub(in crate::flow) fn form(exchange: &Exchange, name: &str) -> Option<String> {
    let all: Vec<_> = url::form_urlencoded::parse(&exchange.body)
        .filter(|(key, _)| key == name)
        .collect();
    assert!(all.len() < 2, "{name} comes twice");
    all.into_iter().next().map(|(_, value)| value.into_owned())
}

/// An answer with this status and body.
pub(in crate::flow) fn reply(
    status: u16,
    body: &str,
) -> impl FnOnce(&Exchange, &mut Stage) -> Exchanged + 'static + use<> {
    with_headers(status, &[], body)
}

pub(in crate::flow) fn with_headers(
    status: u16,
    headers: &[(&'static str, &str)],
    body: &str,
) -> impl FnOnce(&Exchange, &mut Stage) -> Exchanged + 'static + use<> {
    let body = body.to_owned();
    let pairs = headers.iter().map(|(n, v)| {
        (
            HeaderName::from_static(n),
            HeaderValue::from_str(v).unwrap(),
        )
    });
    let headers: HeaderMap = pairs.collect();
    move |_, stage| {
        let sent_at = stage.now;
        stage.pass(Duration::from_millis(50));
        Ok(Reply {
            status,
            headers,
            body: Zeroizing::new(body.into_bytes()),
            sent_at,
        })
    }
}

/// The next generation: `at-N` and `rt-N`, good for an hour.
pub(in crate::flow) fn tokens(
    generation: u64,
) -> impl FnOnce(&Exchange, &mut Stage) -> Exchanged + 'static + use<> {
    let body = format!(
        r#"{{"access_token":"at-{generation}","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-{generation}"}}"#
    );
    reply(200, &body)
}

pub(in crate::flow) fn oauth_error(
    error: &str,
) -> impl FnOnce(&Exchange, &mut Stage) -> Exchanged + 'static + use<> {
    reply(400, &format!(r#"{{"error":"{error}"}}"#))
}

/// The path went dead, which took eight and a half seconds to find out.
pub(in crate::flow) fn dead_path(exchange: &Exchange, stage: &mut Stage) -> Exchanged {
    let dead = Fault::Network(NetworkFault::DeadPath);
    let took = Duration::from_millis(8500);
    failure(exchange, stage, Delivery::Ambiguous, dead, took)
}

/// The connection broke after it stood.
pub(in crate::flow) fn broken(exchange: &Exchange, stage: &mut Stage) -> Exchanged {
    breaks_after(Duration::from_millis(50))(exchange, stage)
}

/// The connection stood, and broke after some time.
pub(in crate::flow) fn breaks_after(
    took: Duration,
) -> impl FnOnce(&Exchange, &mut Stage) -> Exchanged + 'static {
    let fault = Fault::Network(NetworkFault::Broken);
    move |exchange, stage| failure(exchange, stage, Delivery::Ambiguous, fault, took)
}

/// No connection came up.
pub(in crate::flow) fn unreachable(exchange: &Exchange, stage: &mut Stage) -> Exchanged {
    failure(
        exchange,
        stage,
        Delivery::NotDelivered,
        Fault::Network(NetworkFault::Connect),
        Duration::from_millis(50),
    )
}

/// The connection stood and nothing came.
pub(in crate::flow) fn silent(exchange: &Exchange, stage: &mut Stage) -> Exchanged {
    let limit = exchange.within;
    failure(
        exchange,
        stage,
        Delivery::Ambiguous,
        Fault::Deadline(limit),
        limit,
    )
}

/// A connection that stands after nine seconds: the body leaves if it still may.
pub(in crate::flow) fn connects_slowly(
    then: impl FnOnce(&Exchange, &mut Stage) -> Exchanged + 'static,
) -> impl FnOnce(&Exchange, &mut Stage) -> Exchanged + 'static {
    let took = Duration::from_secs(9);
    move |exchange, stage| match exchange.not_after {
        Some(end) if stage.now.mono + took >= end => failure(
            exchange,
            stage,
            Delivery::NotDelivered,
            Fault::TooLate,
            took,
        ),
        _ => {
            stage.pass(took);
            then(exchange, stage)
        }
    }
}

/// What the request needs could not be read: nothing left.
pub(in crate::flow) fn unsigned(exchange: &Exchange, stage: &mut Stage) -> Exchanged {
    let why = Error::ConfigValue {
        what: "file:/run/key".into(),
        why: "it is not there".into(),
    };
    let fault = Fault::Unsigned(Box::new(why));
    failure(
        exchange,
        stage,
        Delivery::NotDelivered,
        fault,
        Duration::ZERO,
    )
}

fn failure(
    exchange: &Exchange,
    stage: &mut Stage,
    delivery: Delivery,
    fault: Fault,
    after: Duration,
) -> Exchanged {
    let sent_at = stage.now;
    stage.pass(after);
    Err(Failure {
        delivery,
        fault,
        host: exchange.host(),
        sent_at,
    })
}

pub(in crate::flow) fn start() -> Now {
    Now {
        wall: Wall::from_unix_seconds(1_800_000_000),
        mono: Mono(1_000_000),
        boot: BootId([1; 16]),
    }
}

pub(in crate::flow) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(in crate::flow) fn issuer() -> Issuer {
    Issuer::parse("https://as.example").unwrap()
}

pub(in crate::flow) fn server() -> Resource {
    Resource::parse("https://mcp.example").unwrap()
}

pub(in crate::flow) fn key() -> CredentialKey {
    CredentialKey {
        tenant: String::new(),
        resource: server(),
        issuer: issuer(),
        account: Account::default(),
    }
}

pub(in crate::flow) fn process(pid: u32) -> ProcessId {
    ProcessId {
        pid,
        nonce: pid.into(),
    }
}

pub(in crate::flow) fn version(generation: u64) -> Version {
    Version {
        incarnation: Incarnation([1; 16]),
        generation: Generation(generation),
    }
}

pub(in crate::flow) fn client(id: &str) -> Client {
    Client {
        id: id.into(),
        secret: None,
        secret_ref: None,
        key: None,
        secret_expires_at: None,
        authentication: ClientAuthentication::None,
        source: ClientSource::Dynamic,
    }
}

/// A login in this generation, received at the start and good for an hour.
pub(in crate::flow) fn credential(generation: u64) -> Credential {
    Credential {
        key: key(),
        version: version(generation),
        pins: Pins {
            resource_parameter: Some("https://mcp.example".into()),
            token_endpoint: Url::parse("https://as.example/token").unwrap(),
            revocation_endpoint: Some(Url::parse("https://as.example/revoke").unwrap()),
            called: None,
        },
        client: client("client-1"),
        access_token: AccessToken::new(format!("at-{generation}")).unwrap(),
        token_type: TokenType::Bearer,
        proof_key: None,
        unattended: None,
        refresh_token: Some(RefreshToken::new(format!("rt-{generation}")).unwrap()),
        received_at: Some(start()),
        lifetime: Some(Lifetime::Stated(HOUR)),
        scopes_requested: Scopes::parse("a b"),
        scopes_granted: Scopes::parse("a"),
        logged_in_at: start().wall,
    }
}

/// The same server's login, made anew by a person, as this client.
pub(in crate::flow) fn other_login(client_id: &str) -> Credential {
    let version = Version {
        incarnation: Incarnation([2; 16]),
        generation: Generation(0),
    };
    let (access_token, refresh_token) = (
        AccessToken::new("at-new".into()).unwrap(),
        RefreshToken::new("rt-new".into()).ok(),
    );
    let received_at = Some(start().after(secs(3000)));
    Credential {
        version,
        client: client(client_id),
        access_token,
        refresh_token,
        received_at,
        ..credential(0)
    }
}

/// What a scripted redirect has where the real `state` belongs.
pub(in crate::flow) const STATE: &str = "{state}";
pub(in crate::flow) const HOUR: Duration = Duration::from_secs(3600);
