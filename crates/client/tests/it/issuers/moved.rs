//! Endpoints that move, and issuers that forget their clients.

use super::*;

const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// Requests for so long that a refresh fails many times in a row, at the pace at which it may.
pub(super) async fn fails_for(
    world: &World,
    process: &Process,
    session: &pilotlight::Session,
    spans: u32,
) {
    for _ in 0..spans {
        world.advance(FIVE_MINUTES);
        drop(session.refresh(false).await);
        process.idle().await;
    }
}

/// T-15: the issuer moves its token endpoint within its origin: after the row of failures that DESIGN.md states, its own metadata
/// is read once, the login is pinned anew with an event, and goes on. Nobody is asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_moves_within_its_origin() {
    let world = World::with_tokens_of(Duration::from_secs(600)).await;
    let (process, session) = world.logged_in().await;
    let discovered = world.stats().discovery;
    world
        .lab
        .with_issuer(|issuer| issuer.config_mut().token_path = "/v2/token".into());
    world.advance(Duration::from_secs(700));
    fails_for(&world, &process, &session, 8).await;
    assert_eq!(world.stats().discovery, discovered, "not before its time");
    assert_eq!(world.refreshes().len(), 0);
    fails_for(&world, &process, &session, 8).await;
    assert_eq!(world.stats().discovery, discovered + 1);
    served(&session, &world).await;
    let pins = process.record(&world).await.credential.unwrap().pins;
    assert_eq!(pins.token_endpoint.path(), "/v2/token");
    let repinned = |happened: &Happened| matches!(happened, Happened::Repinned { from, to } if from.ends_with("/token") && to.ends_with("/v2/token"));
    assert_eq!(process.count(&world, repinned).await, 1);
    world.assert_nothing_lost();
}

/// T-15, I-15: the same, and the metadata names another origin: the refresh token stays where it is, and a person is asked to log in;
/// which pins the new place.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_moves_to_another_origin() {
    let world = World::with_tokens_of(Duration::from_secs(600)).await;
    let (process, session) = world.logged_in().await;
    let evil = another(&world, |_| {}).await;
    let elsewhere = json!({ "token_endpoint": format!("{}/token", evil.issuer()) });
    world.lab.with_issuer(|issuer| {
        let config = issuer.config_mut();
        config.token_path = "/gone".into();
        config.metadata_overrides = elsewhere;
    });
    world.advance(Duration::from_secs(700));
    fails_for(&world, &process, &session, 16).await;
    let error = session.header().await.unwrap_err();
    assert_eq!(error, Error::login(LoginCause::EndpointMoved));
    assert!(
        process
            .record(&world)
            .await
            .credential
            .unwrap()
            .refresh_token
            .is_some()
    );
    assert_nothing_leaked(&world.lab, &evil);
    assert_eq!(evil.with_issuer(|issuer| issuer.heard().len()), 0);

    world
        .lab
        .with_issuer(|issuer| issuer.config_mut().metadata_overrides = json!({}));
    process.sessions.login(request(&world)).await.unwrap();
    served(&session, &world).await;
}

/// F-16: an issuer forgets its clients: the look before the browser opens sees the page, one other client is registered and shown
/// to the person, who sees one URL that works. A client that was given a token within the day is not asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_client_is_seen_before_the_browser() {
    let world = World::new(|_| {}).await;
    let human = Remembers::new();
    let process = process(&world, &human);
    process.sessions.login(request(&world)).await.unwrap();
    world.advance(Duration::from_secs(3600));
    process.sessions.login(request(&world)).await.unwrap();
    let clients = |world: &World| world.stats().registrations;
    assert_eq!((clients(&world), human.prompts().len()), (1, 2));

    world.lab.with_issuer(|issuer| issuer.forget_clients());
    world.advance(Duration::from_secs(25 * 3600));
    process.sessions.login(request(&world)).await.unwrap();
    assert_eq!((clients(&world), human.prompts().len()), (2, 3));
    served(&process.session(&world).await, &world).await;
    let stored = process
        .store
        .registrations(&issuer(&world.lab))
        .await
        .unwrap();
    assert_eq!(stored.len(), 1, "the dead one is forgotten");
}

/// F-16: where the issuer knows the client, the look costs one request and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_client_is_only_looked_at() {
    let world = World::new(|_| {}).await;
    let human = Remembers::new();
    let process = process(&world, &human);
    process.sessions.login(request(&world)).await.unwrap();
    world.advance(Duration::from_secs(25 * 3600));
    process.sessions.login(request(&world)).await.unwrap();
    let stats = world.stats();
    assert_eq!(
        (stats.registrations, stats.code_ok, human.prompts().len()),
        (1, 2, 2)
    );
}

/// F-16: the issuer forgets the client between the page and the exchange: it is registered once more inside the same login.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_forgotten_at_the_exchange_is_registered_once_more() {
    let world = World::new(|_| {}).await;
    let human = Remembers::new();
    let process = process(&world, &human);
    world.lab.with_issuer(|issuer| {
        issuer.push_fault(pilotlight_testkit::Fault::Status {
            status: 401,
            retry_after: None,
            body: Some(r#"{"error":"invalid_client"}"#.into()),
        });
    });
    process.sessions.login(request(&world)).await.unwrap();
    assert_eq!((world.stats().registrations, human.prompts().len()), (2, 2));
    served(&process.session(&world).await, &world).await;
    let ids: Vec<_> = human
        .prompts()
        .iter()
        .map(|prompt| {
            prompt
                .url
                .query_pairs()
                .find(|(name, _)| name == "client_id")
                .unwrap()
                .1
                .into_owned()
        })
        .collect();
    assert_ne!(ids[0], ids[1]);
}

/// T-15, T-17: under an accepted exception an endpoint that moves within its origin is found as without one: the metadata is asked
/// for where the server's issuer has it.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_moves_under_an_exception() {
    let world = World::with_tokens_of(Duration::from_secs(600)).await;
    let inner = format!("{}/inner", world.lab.issuer());
    let overrides = json!({ "issuer": inner });
    world.lab.with_issuer(|issuer| {
        let config = issuer.config_mut();
        config.metadata_overrides = overrides;
        config.send_iss = pilotlight_testkit::authorization_server::SendIss::Other(inner.clone());
    });
    let process = world.process();
    let mut accepting = request(&world);
    let exception = format!("{}={inner}", world.lab.issuer());
    accepting.exception = IssuerException::parse(&exception).ok();
    process.sessions.login(accepting).await.unwrap();
    let session = process.session(&world).await;
    world
        .lab
        .with_issuer(|issuer| issuer.config_mut().token_path = "/v2/token".into());
    world.advance(Duration::from_secs(700));
    fails_for(&world, &process, &session, 16).await;
    served(&session, &world).await;
    let pins = process.record(&world).await.credential.unwrap().pins;
    assert_eq!(pins.token_endpoint.path(), "/v2/token");
    world.assert_nothing_lost();
}
