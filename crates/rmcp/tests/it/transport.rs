//! rmcp's own client over the transport, on both wires.

use std::time::Duration;

use pilotlight::{
    LoginRequest, Sessions,
    core::{
        Error, credential::Account, error::LoginCause, issuer::Issuer, registration,
        resource::Resource, secret::ClientSecret, unattended::Unattended,
    },
};
use pilotlight_rmcp::{ConnectError, Wire, cause, connect, connect_on};
use pilotlight_testkit::authorization_server::StaticClient;
use pilotlight_testkit::mcp_server::{Answers, Wires};
use rmcp::{
    RoleClient,
    model::CallToolRequestParams,
    service::{RunningService, ServiceError},
};
use serde_json::json;

use crate::support::World;

type Client = RunningService<RoleClient, ()>;

/// TR-01, TR-15, TR-30: lists and calls on either wire, with JSON and with SSE answers, over one session each; a server
/// that speaks both is spoken to on the newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_wires_list_and_call() {
    for (wires, version) in [
        (Wires::Modern, "2026-07-28"),
        (Wires::Both, "2026-07-28"),
        (Wires::Legacy, "2025-11-25"),
    ] {
        for answers in [Answers::Json, Answers::EventStream] {
            let world = World::start(|lab| {
                lab.mcp_server.wires = wires;
                lab.mcp_server.answers = answers;
            })
            .await;
            let client = connect(world.session.clone(), ()).await.unwrap();
            assert_eq!(
                client.peer_info().unwrap().protocol_version.as_str(),
                version,
                "{wires:?}"
            );
            let tools = client.list_all_tools().await.unwrap();
            assert!(
                tools.iter().any(|tool| tool.name == "echo"),
                "{wires:?} {answers:?}"
            );
            assert_eq!(echo(&client, "hello").await.unwrap(), "hello");
            client.cancel().await.unwrap();
            let stats = world.lab.with_mcp(|server| server.stats().clone());
            assert_eq!(stats.unauthorized, 1, "only the login's own probe");
            assert_eq!(stats.initialize, u64::from(wires == Wires::Legacy));
        }
    }
}

/// A wire that is decided beforehand is the only one that is tried.
#[tokio::test]
async fn a_wire_can_be_decided_beforehand() {
    let world = World::start(|_| {}).await;
    let client = connect_on(Wire::Stateful, world.session.clone(), ())
        .await
        .unwrap();
    assert_eq!(echo(&client, "hello").await.unwrap(), "hello");
    assert_eq!(world.lab.with_mcp(|server| server.stats().initialize), 1);
    world
        .lab
        .with_mcp(|server| server.config_mut().wires = Wires::Legacy);
    let refused = connect_on(Wire::Stateless, world.session.clone(), ()).await;
    assert!(matches!(refused, Err(ConnectError::Protocol(_))));
    assert_eq!(world.lab.with_mcp(|server| server.stats().initialize), 1);
}

/// TR-15: a handshake is never asked for at a revision that has none.
#[tokio::test]
async fn initialize_asks_for_a_revision_that_has_it() {
    let world = World::start(|_| {}).await;
    let replaced = world
        .replace_server(|_| "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned())
        .await;
    let refused = connect_on(Wire::Stateful, replaced.session.clone(), ()).await;
    assert!(matches!(refused, Err(ConnectError::Protocol(_))));
    let requests = replaced.requests.lock().unwrap().clone();
    assert!(
        requests[0].contains(r#""protocolVersion":"2025-11-25""#),
        "{}",
        requests[0]
    );
}

/// TR-31: a server that forgets its sessions costs no call.
#[tokio::test]
async fn an_expired_mcp_session_is_begun_anew() {
    let world = World::start(|lab| lab.mcp_server.wires = Wires::Legacy).await;
    let client = connect(world.session.clone(), ()).await.unwrap();
    assert_eq!(echo(&client, "before").await.unwrap(), "before");
    assert_eq!(world.lab.with_mcp(|server| server.forget_sessions()), 1);
    assert_eq!(echo(&client, "after").await.unwrap(), "after");
    assert_eq!(world.lab.with_mcp(|server| server.stats().initialize), 2);
}

/// F-02, AUTH-84: six calls meet a token that was invalidated at the issuer: one refresh, no failed call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_401_in_flight_is_met_with_one_refresh() {
    for wires in [Wires::Modern, Wires::Legacy] {
        let world = World::start(|lab| lab.mcp_server.wires = wires).await;
        let client = connect(world.session.clone(), ()).await.unwrap();
        echo(&client, "accepted once").await.unwrap();
        assert_eq!(world.lab.with_issuer(|issuer| issuer.revoke_access()), 1);
        let calls = (0..6).map(|_| echo(&client, "x"));
        for called in futures_util::future::join_all(calls).await {
            assert_eq!(called.unwrap(), "x", "{wires:?}");
        }
        let stats = world.lab.with_issuer(|issuer| issuer.stats().clone());
        assert_eq!(
            (stats.refresh_ok, stats.code_ok, stats.spent_presented),
            (1, 1, 0)
        );
    }
}

/// F-24: tokens that end every two seconds under a client that keeps calling, on either wire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_while_tokens_end() {
    let both = [Wires::Modern, Wires::Legacy].map(|wires| async move {
        let world = World::start(|lab| {
            lab.authorization_server.access_ttl = Duration::from_secs(2);
            lab.mcp_server.wires = wires;
        })
        .await;
        let client = connect(world.session.clone(), ()).await.unwrap();
        for _ in 0..25 {
            assert_eq!(echo(&client, "x").await.unwrap(), "x", "{wires:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let stats = world.lab.with_issuer(|issuer| issuer.stats().clone());
        assert!((2..=4).contains(&stats.refresh_ok), "{stats:?}");
        assert_eq!((stats.code_ok, stats.refresh_err), (1, 0));
        assert_eq!(world.lab.with_mcp(|server| server.stats().unauthorized), 1);
    });
    futures_util::future::join_all(both).await;
}

/// AUTH-56: what the session says about a request arrives, typed, under whatever rmcp wraps it in.
#[tokio::test]
async fn the_cause_of_a_failure_is_found() {
    let world = World::start(|_| {}).await;
    let binding = world.session.status().await.unwrap().binding;
    // A program without a person, on the same store: nobody can be asked for more.
    let alone = Sessions::builder(world.sessions.store().clone())
        .open()
        .unwrap();
    let session = alone
        .get(&binding.key.url, &binding.key.account)
        .await
        .unwrap();
    let client = connect(session.clone(), ()).await.unwrap();
    let error = client
        .call_tool(CallToolRequestParams::new("admin"))
        .await
        .unwrap_err();
    let Some(Error::LoginRequired {
        cause: LoginCause::Scope { scopes },
    }) = cause(&error)
    else {
        panic!("{error:?}");
    };
    assert!(
        scopes.iter().any(|scope| scope == "mcp:admin"),
        "{scopes:?}"
    );

    alone.logout(&binding.key, false).await.unwrap();
    let error = echo(&client, "x").await.unwrap_err();
    assert_eq!(cause(&error), Some(&Error::login(LoginCause::Never)));
    match connect(session, ()).await {
        Err(error @ ConnectError::Session(_)) => {
            assert_eq!(cause(&error).map(Error::code), Some("login.never"))
        }
        other => panic!("{other:?}"),
    }
}

/// F-12: a server that is away is the network's error, at connect and in a call.
#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let world = World::start(|_| {}).await;
    let client = connect(world.session.clone(), ()).await.unwrap();
    world.lab.stop().await;
    let error = echo(&client, "x").await.unwrap_err();
    assert_eq!(
        cause(&error).map(Error::code),
        Some("unavailable.network"),
        "{error:?}"
    );
    match connect(world.session.clone(), ()).await {
        Err(ConnectError::Session(error)) => assert_eq!(error.code(), "unavailable.network"),
        other => panic!("{other:?}"),
    }
}

async fn echo(client: &Client, text: &str) -> Result<String, ServiceError> {
    let arguments = json!({ "text": text });
    let call =
        CallToolRequestParams::new("echo").with_arguments(arguments.as_object().unwrap().clone());
    let result = client.call_tool(call).await?;
    let result = serde_json::to_value(result).unwrap();
    Ok(result["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

/// EXT-01: a host that says nothing about extensions declares the one that its login makes use of, on either wire, as soon as
/// there is such a login; before, there is nothing to declare.
#[tokio::test]
async fn a_login_without_a_person_is_declared_on_both_wires() {
    const NAME: &str = r#""io.modelcontextprotocol/oauth-client-credentials":{}"#;
    for (wire, method) in [
        (Wire::Stateful, "initialize"),
        (Wire::Stateless, "server/discover"),
    ] {
        for service in [false, true] {
            let world = World::start(|lab| {
                let issuer = &mut lab.authorization_server;
                issuer.grant_types.push("client_credentials".into());
                issuer.clients = vec![StaticClient {
                    client_id: "service".into(),
                    client_secret: Some("s".into()),
                    redirect_uris: Vec::new(),
                }];
            })
            .await;
            if service {
                let url = Resource::parse(world.lab.resource_url()).unwrap();
                let mut request = LoginRequest::new(url, Account::default());
                let mut client = registration::Client::brought("service".into());
                client.secret = Some(ClientSecret::new("s".into()).unwrap());
                request.client = Some(client);
                request.unattended = Some(Unattended::ClientCredentials);
                request.issuer = Some(Issuer::parse(world.lab.issuer()).unwrap());
                world.sessions.login(request).await.unwrap();
            }
            let replaced = world
                .replace_server(|_| {
                    "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned()
                })
                .await;
            let refused = connect_on(wire, replaced.session.clone(), ()).await;
            assert!(refused.is_err());
            let requests = replaced.requests.lock().unwrap().clone();
            assert!(requests[0].contains(method), "{}", requests[0]);
            assert_eq!(requests[0].contains(NAME), service, "{}", requests[0]);
        }
    }
}
