//! Logins on another device (RFC 8628) at an issuer that keeps its rules, over real sockets.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode};
use pilotlight::{
    Error, LoginRequest,
    core::{
        assertion::ClientKey,
        credential::{Account, TokenType},
        flow::{CodePrompt, Device, Prompt},
        issuer::Issuer,
        reference::SecretRef,
        registration::Client,
        secret::ClientSecret,
    },
    human::Human,
    store::Store,
};
use pilotlight_testkit::{
    Fault, LabConfig,
    authorization_server::{
        ClientAuthentication, DeviceRules, NonceRule, ProofRules, PublicKey, StaticClient,
    },
};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use tokio::sync::mpsc;

use crate::{
    dpop,
    faults_support::{Process, World, served, until, until_async},
    sessions::Clicks,
};

/// Somebody whose browser is elsewhere: the test reads the code and types it in.
#[derive(Debug)]
struct Shows(mpsc::UnboundedSender<CodePrompt>);

#[async_trait]
impl Human for Shows {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, _: &Prompt) -> Result<Vec<(String, String)>, Error> {
        panic!("no browser is asked for")
    }

    async fn show_code(&self, prompt: &CodePrompt) -> Result<(), Error> {
        self.0.send(prompt.clone()).unwrap();
        Ok(())
    }
}

type Shown = mpsc::UnboundedReceiver<CodePrompt>;

fn process(world: &World) -> (Process, Shown) {
    let (sender, shown) = mpsc::unbounded_channel();
    let human = Arc::new(Shows(sender));
    (world.process_with(|builder| builder.human(human)), shown)
}

async fn world(change: impl FnOnce(&mut LabConfig)) -> World {
    World::new(|lab| {
        lab.authorization_server.device = Some(DeviceRules {
            interval: Duration::from_secs(1),
            expires_in: Duration::from_secs(60),
        });
        change(lab);
    })
    .await
}

fn request(world: &World) -> LoginRequest {
    let mut request = LoginRequest::new(world.url(), Account::default());
    request.device = Device::Only;
    request
}

/// Types the code in, and says yes or no.
fn answer(world: &World, prompt: &CodePrompt, allow: bool) {
    let now = world.lab.clock().now_ms();
    let known = world
        .lab
        .with_issuer(|issuer| issuer.decide_device(now, &prompt.user_code, allow));
    assert!(known);
}

/// Logs in with a person who allows it.
async fn log_in(world: &World, process: &Process, shown: &mut Shown, request: LoginRequest) {
    let (done, ()) = tokio::join!(process.sessions.login(request), async {
        answer(world, &shown.recv().await.unwrap(), true);
    });
    assert!(!done.unwrap().adopted);
}

/// It is kept alive like any other: three times its token ends and is renewed.
async fn survives(world: &World, process: &Process) {
    let session = process.session(world).await;
    for renewals in 1..=3 {
        world.advance(Duration::from_secs(57 * 60));
        process.ticked().await;
        until_async("a renewal", async || {
            served(&session, world).await;
            process.idle().await;
            world.stats().refresh_ok >= renewals
        })
        .await;
    }
    let stats = world.stats();
    assert_eq!((stats.device, stats.authorize, stats.code_ok), (1, 0, 0));
    assert_eq!((stats.spent_presented, stats.refresh_err), (0, 0));
    assert_eq!(world.lab.with_issuer(|issuer| issuer.live_grants()), 1);
}

/// RFC 8628, F-18: what was granted on another device is a login like any other, at an issuer that offers no PKCE at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_on_another_device_lives_on() {
    let world = world(|lab| lab.authorization_server.pkce_methods.clear()).await;
    let (process, mut shown) = process(&world);
    log_in(&world, &process, &mut shown, request(&world)).await;
    survives(&world, &process).await;
    let secrets = world
        .lab
        .with_issuer(|issuer| issuer.issued_secrets().to_vec());
    assert!(secrets.iter().any(|secret| secret.starts_with("dc-")));
}

/// EXT-30, EXT-31, EXT-32: it is bound to a key where the issuer can, with a nonce where it wants one, and each question has a
/// proof of its own.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_bound_to_a_key() {
    let world = world(|lab| {
        let mut rules = ProofRules::default();
        rules.nonces = NonceRule::Next(2);
        lab.authorization_server.dpop = Some(rules.clone());
        lab.mcp_server.dpop = rules;
        lab.authorization_server.dpop_required = true;
    })
    .await;
    let (process, mut shown) = process(&world);
    log_in(&world, &process, &mut shown, request(&world)).await;
    let credential = process.record(&world).await.credential.unwrap();
    assert_eq!(credential.token_type, TokenType::Dpop);
    let session = process.session(&world).await;
    for _ in 0..3 {
        served(&session, &world).await;
        assert!(session.refresh(true).await.unwrap().refreshed);
    }
    let kept = process.record(&world).await.credential.unwrap();
    assert!(kept.proof_key.is_some() && kept.proof_key == credential.proof_key);
    // Every question had a proof: what was not taken wanted another nonce.
    let (taken, refused) = (dpop::taken(&world.lab).0.len(), dpop::refused(&world.lab).0);
    assert!(
        refused.iter().all(|error| *error == "use_dpop_nonce"),
        "{refused:?}"
    );
    assert_eq!((taken + refused.len()) as u64, world.stats().token);
    dpop::in_order(&world.lab);
}

/// EXT-11, AUTH-44: a client that signs its own assertions shows a new one at each question.
#[tokio::test(flavor = "multi_thread")]
async fn its_client_signs_an_assertion_for_each_question() {
    let pem = include_str!("../../src/sign/ec.pem");
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let random = ring::rand::SystemRandom::new();
    let rule = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_pkcs8(rule, der.secret_pkcs8_der(), &random).unwrap();
    let world = world(|lab| {
        let issuer = &mut lab.authorization_server;
        issuer.registration = false;
        issuer.token_endpoint_auth_methods = vec![ClientAuthentication::PrivateKeyJwt];
        issuer.clients = vec![StaticClient {
            client_id: "keyed".into(),
            client_secret: None,
            redirect_uris: Vec::new(),
        }];
        let public = PublicKey {
            algorithm: "ES256",
            bytes: pair.public_key().as_ref().to_vec(),
        };
        issuer.client_keys.insert("keyed".into(), public);
    })
    .await;
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("key.pem");
    fs::write(&path, pem).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut client = Client::brought("keyed".into());
    let reference = SecretRef::file(path.to_str().unwrap()).unwrap();
    client.key = Some(ClientKey::new(reference));
    let (process, mut shown) = process(&world);
    let mut wanted = request(&world);
    wanted.client = Some(client);
    let (done, ()) = tokio::join!(process.sessions.login(wanted), async {
        let prompt = shown.recv().await.unwrap();
        // At least one question finds it pending.
        until("a question", || world.stats().token > 0).await;
        answer(&world, &prompt, true);
    });
    done.unwrap();
    let session = process.session(&world).await;
    for _ in 0..3 {
        served(&session, &world).await;
        assert!(session.refresh(true).await.unwrap().refreshed);
    }
    assert!(
        world
            .stats()
            .by_error
            .keys()
            .all(|error| error == "authorization_pending")
    );
}

/// AUTH-41, T-20: an issuer that only the server names gets no secret of a client that somebody brought, before a person has seen
/// anything; one that is named does.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_no_secret() {
    let secret = "top-secret-of-another";
    let world = world(|lab| {
        let issuer = &mut lab.authorization_server;
        issuer.keep_requests = true;
        issuer.registration = false;
        issuer.clients = vec![StaticClient {
            client_id: "brought".into(),
            client_secret: Some(secret.into()),
            redirect_uris: Vec::new(),
        }];
    })
    .await;
    let (process, mut shown) = process(&world);
    let mut wanted = request(&world);
    wanted.client = Some(Client {
        secret: ClientSecret::new(secret.into()).ok(),
        ..Client::brought("brought".into())
    });
    let error = tokio::select! {
        ended = process.sessions.login(wanted.clone()) => ended.unwrap_err(),
        prompt = shown.recv() => panic!("asked: {prompt:?}"),
    };
    assert_eq!(error.code(), "config.value");
    assert!(error.to_string().contains("--issuer"), "{error}");
    let heard = world.lab.with_issuer(|issuer| issuer.heard().join("\n"));
    assert!(
        !heard.contains("/device") && !heard.contains("/token"),
        "{heard}"
    );

    wanted.issuer = Issuer::parse(world.lab.issuer()).ok();
    log_in(&world, &process, &mut shown, wanted).await;
}

/// F-01: of two processes that log in at once one shows a code; the other goes on with what came of it, and ends with it where
/// the person says no.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_goes_on() {
    for allow in [true, false] {
        let world = world(|_| {}).await;
        let ((one, mut shown_one), (two, mut shown_two)) = (process(&world), process(&world));
        let (first, second, ()) = tokio::join!(
            one.sessions.login(request(&world)),
            two.sessions.login(request(&world)),
            async {
                let prompt = tokio::select! {
                    prompt = shown_one.recv() => prompt,
                    prompt = shown_two.recv() => prompt,
                };
                answer(&world, &prompt.unwrap(), allow);
            }
        );
        assert!(shown_one.try_recv().is_err() && shown_two.try_recv().is_err());
        assert_eq!(world.stats().device, 1);
        if allow {
            let (first, second) = (first.unwrap(), second.unwrap());
            assert_ne!(first.adopted, second.adopted);
            for process in [&one, &two] {
                served(&process.session(&world).await, &world).await;
            }
        } else {
            let codes = [first.unwrap_err().code(), second.unwrap_err().code()];
            assert_eq!(codes, ["denied.by_human"; 2]);
        }
    }
}

/// A host that cannot show a code says so; nothing is asked of the issuer in vain.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_shows_no_codes() {
    let world = world(|_| {}).await;
    let clicks = Arc::new(Clicks(pilotlight_testkit::ScriptedHuman::allows()));
    let process = world.process_with(|builder| builder.human(clicks));
    let error = process.sessions.login(request(&world)).await.unwrap_err();
    assert_eq!((error.code(), world.stats().token), ("login.never", 0));
    // Without the wish it logs in by its browser.
    let session = process.log_in(&world).await;
    served(&session, &world).await;
}

/// Who goes away while the person is awaited ends the login: nothing is asked any more, and the next login finds no lock.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_ends_it() {
    let world = world(|_| {}).await;
    let (process, mut shown) = process(&world);
    let sessions = process.sessions.clone();
    let wanted = request(&world);
    let caller = tokio::spawn(async move { sessions.login(wanted).await });
    shown.recv().await.unwrap();
    until("a question", || world.stats().token > 0).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    process.idle().await;
    let asked = world.stats().token;
    log_in(&world, &process, &mut shown, request(&world)).await;
    let stats = world.stats();
    assert_eq!(stats.device, 2);
    // One or two questions of the second login, none of the first.
    assert!(stats.token <= asked + 2, "{} after {asked}", stats.token);
}

/// F-05: who goes away while an answer is under way loses nothing: what it brings is stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_stored_without_its_caller() {
    let world = world(|_| {}).await;
    let (process, mut shown) = process(&world);
    let sessions = process.sessions.clone();
    let wanted = request(&world);
    let caller = tokio::spawn(async move { sessions.login(wanted).await });
    let prompt = shown.recv().await.unwrap();
    let late = Fault::DelayAnswer { ms: 1500 };
    world.lab.with_issuer(|issuer| issuer.push_fault(late));
    answer(&world, &prompt, true);
    until("the question", || world.stats().token > 0).await;
    caller.abort();
    until_async("the login", async || {
        let binding = process.store.binding(&world.key()).await.unwrap();
        binding.is_some_and(|binding| binding.credential.is_some())
    })
    .await;
    process.idle().await;
    served(&process.session(&world).await, &world).await;
    assert_eq!(world.stats().device, 1);
}

/// AUTH-54: a login that was made on another device asks for more permissions there, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_403_is_answered_on_the_other_device() {
    let world = world(|_| {}).await;
    let (process, mut shown) = process(&world);
    log_in(&world, &process, &mut shown, request(&world)).await;
    let session = process.session(&world).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"admin","arguments":{},"_meta":{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let call = Request::post(world.lab.resource_url())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "admin")
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap();
    let (answered, ()) = tokio::join!(session.send(call), async {
        let prompt = shown.recv().await.unwrap();
        assert!(prompt.scopes.contains("mcp:admin"), "{}", prompt.scopes);
        answer(&world, &prompt, true);
    });
    assert_eq!(answered.unwrap().status(), StatusCode::OK);
    assert_eq!((world.stats().device, world.stats().authorize), (2, 0));
}
