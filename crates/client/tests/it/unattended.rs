//! Grants without a person, from the file in which a secret lies to the server that takes the token.

mod enterprise;
mod keys;
mod steps;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use keys::{keyed, public};
use pilotlight::{
    Error, LoginRequest, Session,
    core::{
        credential::Account,
        issuer::Issuer,
        jws::JwsAlgorithm,
        reference::SecretRef,
        registration::{Client, ClientAuthentication as Method},
        scope::Scopes,
        state::State,
        unattended::{IdentityProvider, Unattended},
    },
    human::Refuse,
    store::Store,
};
use pilotlight_testkit::{
    AuthorizationServer, AuthorizationServerConfig, Canaries, Fault, LabConfig,
    authorization_server::{Asked, ClientAuthentication, Platform, StaticClient},
    faults::Endpoint,
    fingerprint,
    serve::Bound,
};
use serde_json::json;

use crate::faults_support::{HOUR, MINUTE, Process, Time, World, ask, served, until, until_async};

const EC: &str = include_str!("../../src/sign/ec.pem");
const ED25519: &str = include_str!("../../src/sign/ed25519.pem");
const RSA: &str = include_str!("../../src/sign/rsa.pem");
const ENCRYPTED: &str = include_str!("../../src/sign/encrypted.pem");

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const SECRET: &str = "cs-canary:%/ 1";

/// An issuer where services get tokens, and what they have to show in a folder.
struct Services {
    world: World,
    files: tempfile::TempDir,
}

impl Services {
    async fn new(change: impl FnOnce(&mut LabConfig)) -> Self {
        let world = World::new(|lab| {
            let issuer = &mut lab.authorization_server;
            issuer.registration = false;
            issuer.grant_types = vec!["client_credentials".into(), JWT_BEARER.into()];
            issuer.token_endpoint_auth_methods = vec![
                ClientAuthentication::Basic,
                ClientAuthentication::None,
                ClientAuthentication::PrivateKeyJwt,
            ];
            let client = |id: &str, secret: Option<&str>| StaticClient {
                client_id: id.into(),
                client_secret: secret.map(Into::into),
                redirect_uris: Vec::new(),
            };
            issuer.clients = vec![
                client("service", Some(SECRET)),
                client("keyed", None),
                client("job", None),
            ];
            change(lab);
        })
        .await;
        Self {
            world,
            files: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Puts something into a file, as a platform does: in one step.
    fn put(&self, name: &str, text: &str) -> SecretRef {
        let new = self.path("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
        fs::rename(&new, self.path(name)).unwrap();
        SecretRef::file(self.path(name).to_str().unwrap()).unwrap()
    }

    fn process(&self) -> Process {
        self.world
            .process_with(|builder| builder.human(Arc::new(Refuse)))
    }

    fn request(&self, client: Client, unattended: Option<Unattended>) -> LoginRequest {
        let mut request = LoginRequest::new(self.world.url(), Account::default());
        request.client = Some(client);
        request.unattended = unattended.or(Some(Unattended::ClientCredentials));
        request.issuer = Some(Issuer::parse(self.world.lab.issuer()).unwrap());
        request
    }

    fn service(&self) -> LoginRequest {
        let mut client = Client::brought("service".into());
        client.secret_ref = Some(self.put("secret", &format!("{SECRET}\n")));
        self.request(client, None)
    }

    fn asked(&self) -> Vec<Asked> {
        self.world.lab.with_issuer(|issuer| issuer.asked().to_vec())
    }

    fn now(&self) -> u64 {
        self.world.lab.clock().now_ms() / 1000
    }

    /// A workload's token for this issuer, which ends in so many seconds.
    fn job(&self, name: &str, ends_in: i64) -> String {
        Platform::new(7).token(&json!({
            "sub": name,
            "aud": self.world.lab.issuer(),
            "exp": self.now().checked_add_signed(ends_in).unwrap(),
        }))
    }
}

fn trusting(lab: &mut LabConfig) {
    lab.authorization_server.believes = vec![Platform::new(7).public()];
}

async fn login(process: &Process, request: LoginRequest, world: &World) -> Session {
    process.sessions.login(request).await.unwrap();
    process.session(world).await
}

/// Uses a session whose token is due until the issuer was asked so often.
async fn renewed(services: &Services, process: &Process, session: &Session, times: usize) {
    until_async("a renewal", async || {
        served(session, &services.world).await;
        process.idle().await;
        services.asked().len() >= times
    })
    .await;
}

/// EXT-01, EXT-10, I-4, I-9: a service logs in without a person, with a secret that lies in a file; at the refresh point one of eight
/// processes makes the grant again, and all others adopt what it got. The store never holds the secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_renews_itself_once_for_all_processes() {
    let services = Services::new(|_| {}).await;
    let world = &services.world;
    let first = services.process();
    login(&first, services.service(), world).await;
    let processes: Vec<_> = (0..8).map(|_| services.process()).collect();
    let mut sessions = Vec::new();
    for process in &processes {
        let session = process.session(world).await;
        let extension = "io.modelcontextprotocol/oauth-client-credentials";
        assert_eq!(session.extensions(), [extension]);
        sessions.push(session);
    }
    join_all(sessions.iter().map(|session| served(session, world))).await;
    assert_eq!(services.asked().len(), 1);

    for round in 2..=3 {
        world.advance(Duration::from_secs(57 * 60));
        until_async("a renewal", async || {
            join_all(sessions.iter().map(|session| served(session, world))).await;
            join_all(processes.iter().map(Process::idle)).await;
            services.asked().len() >= round
        })
        .await;
        join_all(sessions.iter().map(|session| served(session, world))).await;
        assert_eq!(services.asked().len(), round, "one for all");
    }
    for asked in services.asked() {
        assert_eq!(asked.grant_type, "client_credentials");
        assert_eq!(asked.resource.as_deref(), Some(world.lab.resource_url()));
        assert!(asked.granted);
    }
    let credential = first.record(world).await.credential.unwrap();
    assert_eq!(
        (
            credential.client.secret.clone(),
            credential.refresh_token.clone()
        ),
        (None, None)
    );
    assert_eq!(credential.version.generation.0, 2);
    let mut canaries = Canaries::new();
    canaries.add("client secret", SECRET);
    let stored = serde_json::to_vec(&credential).unwrap();
    assert!(canaries.find(&stored, "what is sealed").is_empty());
    let status = first
        .sessions
        .status(&first.binding(world).await)
        .await
        .unwrap();
    assert_eq!(status.state, State::Ok);
    assert_eq!(status.unattended, Some(Unattended::ClientCredentials));
    assert!(status.next_refresh_at.is_some());
}

/// F-12: while the issuer is down the token that works is served; nothing is lost when it ends, either, and the first call
/// after the pause brings the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_works_is_served_while_the_issuer_is_down() {
    let services = Services::new(|_| {}).await;
    let world = &services.world;
    let process = services.process();
    let session = login(&process, services.service(), world).await;
    world.proxy().close().await;
    world.advance(Duration::from_secs(57 * 60));
    process.ticked().await;
    for _ in 0..20 {
        served(&session, world).await;
        process.idle().await;
    }
    let record = process.record(world).await;
    assert_eq!(record.backoff.unwrap().code, "unavailable.network");
    assert_eq!(record.suspicion, None);
    world.advance(HOUR);
    process.ticked().await;
    let error = ask(&session, world).await.unwrap_err();
    assert!(error.code().starts_with("unavailable."), "{error}");
    world.proxy().open().unwrap();
    world.advance(Duration::from_secs(600));
    process.ticked().await;
    served(&session, world).await;
    assert_eq!(services.asked().len(), 2);
}

fn workload(services: &Services, token: &str) -> LoginRequest {
    let token = services.put("token", token);
    let grant = Unattended::Workload { token };
    services.request(Client::brought("job".into()), Some(grant))
}

/// EXT-40: a workload's token is read at each use: between two renewals the platform replaces it, and each token that the
/// issuer sees is the one of its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_token_is_replaced_between_renewals() {
    let services = Services::new(trusting).await;
    let world = &services.world;
    let process = services.process();
    let mut shown = vec![services.job("one", 600)];
    let session = login(&process, workload(&services, &shown[0]), world).await;
    for name in ["two", "three"] {
        world.advance(Duration::from_secs(57 * 60));
        process.ticked().await;
        shown.push(services.job(name, 600));
        services.put("token", &shown[shown.len() - 1]);
        renewed(&services, &process, &session, shown.len()).await;
    }
    let asked = services.asked();
    let seen: Vec<_> = asked
        .iter()
        .filter_map(|asked| asked.shown.clone())
        .collect();
    let want: Vec<_> = shown.iter().map(|token| fingerprint(token)).collect();
    assert_eq!(seen, want);
    assert!(
        asked
            .iter()
            .all(|asked| asked.granted && asked.grant_type == JWT_BEARER)
    );
}

/// EXT-40: an expired token and one for somebody else are never sent, at a login or later; the access token that works is
/// served until it ends, and what replaces the bad one is used at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_token_of_no_use_is_not_sent() {
    let services = Services::new(trusting).await;
    let world = &services.world;
    let process = services.process();
    let stranger = Platform::new(7).token(&json!({
        "sub": "job", "aud": "https://as.example", "exp": services.now() + 9000,
    }));
    for bad in [
        services.job("job", -1),
        services.job("job", 4),
        stranger.clone(),
    ] {
        let request = workload(&services, &bad);
        let error = process.sessions.login(request).await.unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("config.assertion", 2));
        assert!(!error.to_string().contains(&bad));
    }
    assert_eq!(services.asked().len(), 0);
    let session = login(
        &process,
        workload(&services, &services.job("job", 600)),
        world,
    )
    .await;
    services.put("token", &stranger);
    world.advance(Duration::from_secs(57 * 60));
    process.ticked().await;
    for _ in 0..10 {
        served(&session, world).await;
        process.idle().await;
    }
    world.advance(Duration::from_secs(600));
    process.ticked().await;
    assert_eq!(
        ask(&session, world).await.unwrap_err().code(),
        "config.assertion"
    );
    assert_eq!(services.asked().len(), 1, "no other grant either");
    services.put("token", &services.job("job", 600));
    served(&session, world).await;
}

/// EXT-41: what the issuer has refused is shown to it once, however often a login is begun, in whichever process, and no
/// other grant is tried; what replaces it is shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_workload_is_not_shown_twice() {
    // It believes another platform.
    let services = Services::new(|lab| {
        lab.authorization_server.believes = vec![Platform::new(8).public()];
    })
    .await;
    let world = &services.world;
    let refused = services.job("job", 9000);
    let mut codes = Vec::new();
    for process in [services.process(), services.process()] {
        for _ in 0..2 {
            let request = workload(&services, &refused);
            codes.push(process.sessions.login(request).await.unwrap_err().code());
        }
    }
    assert_eq!(
        codes,
        [
            "denied.by_issuer",
            "config.assertion",
            "config.assertion",
            "config.assertion"
        ]
    );
    assert_eq!(services.asked().len(), 1);
    world.lab.with_issuer(trusting_now);
    let process = services.process();
    let session = login(
        &process,
        workload(&services, &services.job("job", 600)),
        world,
    )
    .await;
    served(&session, world).await;
}

fn trusting_now(issuer: &mut AuthorizationServer) {
    issuer.config_mut().believes = vec![Platform::new(7).public()];
}

/// T-32: a clock that is an hour ahead makes a good token look over: that is said, with the clock as a possible cause, and
/// nothing is lost. So it is where the issuer finds an assertion from the past.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_an_hour_off_costs_nothing() {
    let services = Services::new(trusting).await;
    let world = &services.world;
    let time = Time::new(world.lab.clock());
    let process = world.process_at(&time);
    time.set_wall_off(3_600_000);
    let token = services.job("job", 600);
    let error = process
        .sessions
        .login(workload(&services, &token))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "config.assertion");
    assert!(error.to_string().contains("clock"), "{error}");
    time.set_wall_off(0);
    login(&process, workload(&services, &token), world).await;

    let services = Services::new(|lab| {
        let keys = &mut lab.authorization_server.client_keys;
        keys.insert("keyed".into(), public(JwsAlgorithm::Es256));
    })
    .await;
    let world = &services.world;
    let time = Time::new(world.lab.clock());
    let process = world.process_at(&time);
    let client = keyed(services.put("key", EC), None);
    login(&process, services.request(client, None), world).await;
    let session = process.session(world).await;
    time.set_wall_off(-3_600_000);
    world.advance(Duration::from_secs(57 * 60));
    process.ticked().await;
    // What is refused is made anew by the clock of whoever refused it, and from then on; so it is once the clock is right.
    for (off, asked) in [(-3_600_000, 3), (-3_600_000, 4), (0, 6)] {
        time.set_wall_off(off);
        renewed(&services, &process, &session, asked).await;
        let granted = services.asked().last().map(|asked| asked.granted);
        assert_eq!((granted, services.asked().len()), (Some(true), asked));
        assert_eq!(process.record(world).await.backoff, None);
        world.advance(Duration::from_secs(57 * 60));
        process.ticked().await;
    }
}

/// AUTH-54, AUTH-56: a service that meets a 403 asks its issuer for more scopes itself: there is nobody else to ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_steps_up_by_itself() {
    let services = Services::new(|_| {}).await;
    let world = &services.world;
    let process = services.process();
    let mut request = services.service();
    request.scopes = Some(Scopes::parse("mcp:tools"));
    let session = login(&process, request, world).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"admin","arguments":{},
        "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
        "io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let request = Request::post(world.lab.resource_url())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "admin")
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap();
    assert_eq!(
        session.send(request).await.unwrap().status(),
        StatusCode::OK
    );
    let scopes: Vec<_> = services
        .asked()
        .iter()
        .map(|asked| asked.scope.clone())
        .collect();
    assert_eq!(
        scopes,
        [Some("mcp:tools".into()), Some("mcp:tools mcp:admin".into())]
    );
}

/// AUTH-24, AUTH-35: nobody is asked, and nothing is sent, where neither a person nor anything to show is there.
#[tokio::test(flavor = "multi_thread")]
async fn without_anything_to_show_a_login_needs_a_person() {
    let services = Services::new(|_| {}).await;
    let (world, process) = (&services.world, services.process());
    // A secret alone makes no grant: nothing is asked of anybody, and no failure is noted that nobody saw.
    for mut request in [
        services.service(),
        services.request(Client::brought("job".into()), None),
    ] {
        request.unattended = None;
        let error = process.sessions.login(request).await.unwrap_err();
        assert_eq!(error.code(), "login.never");
    }
    assert_eq!(world.stats().discovery, 0);
    let grant = Some(Unattended::ClientCredentials);
    let request = services.request(Client::brought("job".into()), grant);
    let error = process.sessions.login(request).await.unwrap_err();
    assert_eq!(error.code(), "config.value", "{error}");
    assert_eq!(services.asked().len(), 0);
    assert!(process.store.bindings().await.unwrap().is_empty());
}
