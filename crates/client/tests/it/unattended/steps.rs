//! Services that meet a server which wants more scopes.

use http::{HeaderMap, header::WWW_AUTHENTICATE};
use pilotlight::Next;

use super::*;

/// A request that the server refuses, because it wants this scope too: how that ends.
async fn wants(session: &Session, services: &Services, scope: &str) -> &'static str {
    let request = Request::post(services.world.lab.resource_url()).body(());
    let (mut parts, ()) = request.unwrap().into_parts();
    let sent = session.authorize(&mut parts).await.unwrap();
    let challenge = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
    let mut headers = HeaderMap::new();
    headers.insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    match session
        .answered(&sent, StatusCode::FORBIDDEN, &headers)
        .await
    {
        Next::Stop(error) => error.code(),
        Next::Retry => "retry",
        _ => "done",
    }
}

/// AUTH-58, I-9, T-31: an issuer that does not answer while any caller waits is asked three times in ten minutes, by whichever
/// process: each call has reached it, though nobody saw its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_issuer_is_not_asked_for_ever() {
    let services = Services::new(|_| {}).await;
    let world = &services.world;
    let one = services.process();
    let mut request = services.service();
    request.scopes = Some(Scopes::parse("mcp:tools"));
    let session = login(&one, request, world).await;
    let other = services.process().session(world).await;
    let slow = Fault::DelayAnswer { ms: 600_000 };
    world
        .lab
        .with_issuer(|issuer| issuer.set_standing_fault(Endpoint::Token, Some(slow)));
    let mut ended = Vec::new();
    for (calls, session) in (2..).zip([&session, &other, &session, &other, &session]) {
        let arrived = until("the call to arrive", || services.asked().len() == calls);
        // Each caller goes away as soon as the issuer has its call.
        ended.push(tokio::select! {
            code = wants(session, &services, "mcp:admin") => code,
            () = arrived => "left",
        });
    }
    let left = "left";
    assert_eq!(ended, [left, left, left, "login.scope", "login.scope"]);
    assert_eq!(services.asked().len(), 1 + 3);
}

/// EXT-41: a step-up that the issuer refuses is the end of that token: neither another step-up nor a login shows it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_refused_at_a_step_up_is_not_shown_again() {
    let services = Services::new(trusting).await;
    let world = &services.world;
    let process = services.process();
    let token = services.job("job", 9000);
    let mut request = workload(&services, &token);
    request.scopes = Some(Scopes::parse("mcp:tools"));
    let session = login(&process, request, world).await;
    let believe = |platform| {
        world.lab.with_issuer(|issuer| {
            issuer.config_mut().believes = vec![Platform::new(platform).public()];
        });
    };
    believe(8);
    let codes = [
        wants(&session, &services, "mcp:admin").await,
        wants(&session, &services, "mcp:admin").await,
    ];
    assert_eq!(codes, ["denied.by_issuer", "config.assertion"]);
    let again = workload(&services, &token);
    let error = process.sessions.login(again).await.unwrap_err();
    assert_eq!(error.code(), "config.assertion");
    assert_eq!(services.asked().len(), 1 + 1);
    believe(7);
    services.put("token", &services.job("job", 600));
    assert_eq!(wants(&session, &services, "mcp:admin").await, "retry");
}

/// EXT-41: what a renewal has shown in vain is shown by no step-up and no login; what a step-up has shown in vain is shown by
/// no renewal, in whichever process. Other tokens are.
#[tokio::test(flavor = "multi_thread")]
async fn renewals_and_logins_know_of_each_other() {
    for renewal_first in [true, false] {
        let services = Services::new(trusting).await;
        let world = &services.world;
        let (one, other) = (services.process(), services.process());
        let token = services.job("job", 90_000);
        let mut request = workload(&services, &token);
        request.scopes = Some(Scopes::parse("mcp:tools"));
        let session = login(&one, request, world).await;
        let elsewhere = other.session(world).await;
        let believe = |platform| {
            world.lab.with_issuer(|issuer| {
                issuer.config_mut().believes = vec![Platform::new(platform).public()];
            });
        };
        believe(8);
        if renewal_first {
            world.advance(Duration::from_secs(57 * 60));
            one.ticked().await;
            renewed(&services, &one, &session, 2).await;
            assert_eq!(
                wants(&elsewhere, &services, "mcp:admin").await,
                "config.assertion"
            );
            let again = workload(&services, &token);
            let error = other.sessions.login(again).await.unwrap_err();
            assert_eq!(error.code(), "config.assertion");
        } else {
            assert_eq!(
                wants(&session, &services, "mcp:admin").await,
                "denied.by_issuer"
            );
            world.advance(Duration::from_secs(61 * 60));
            other.ticked().await;
            let error = ask(&elsewhere, world).await.unwrap_err();
            assert_eq!(error.code(), "config.assertion");
        }
        assert_eq!(services.asked().len(), 2, "shown once more, in vain");
        believe(7);
        services.put("token", &services.job("job", 90_000));
        assert_eq!(wants(&elsewhere, &services, "mcp:admin").await, "retry");
    }
}

/// T-15: the issuer's metadata name another token endpoint all of a sudden, and any server of that issuer asks for one more
/// scope: neither a step-up nor a login takes the secret, or a workload's token, there. The login that there is goes on at
/// the endpoint that it was made at.
#[tokio::test(flavor = "multi_thread")]
async fn poisoned_metadata_collect_nothing() {
    let collector = AuthorizationServer::new(
        "http://127.0.0.1:1".into(),
        AuthorizationServerConfig::default(),
    );
    let collector = Arc::new(Mutex::new(collector));
    for job in [false, true] {
        let services = Services::new(trusting).await;
        let world = &services.world;
        let bound = Bound::new(0).await.unwrap();
        let evil = format!("{}/token", bound.origin());
        let running = bound.serve(Arc::clone(&collector), world.lab.clock().clone());
        let process = services.process();
        let request = || match job {
            true => workload(&services, &services.job("job", 90_000)),
            false => services.service(),
        };
        let session = login(&process, request(), world).await;
        world.lab.with_issuer(|issuer| {
            issuer.config_mut().metadata_overrides = json!({ "token_endpoint": evil });
        });
        assert_eq!(
            wants(&session, &services, "mcp:admin").await,
            "login.endpoint_moved"
        );
        let error = process.sessions.login(request()).await.unwrap_err();
        assert_eq!(error.code(), "login.endpoint_moved");
        assert_eq!(collector.lock().unwrap().stats().token, 0);
        world.advance(Duration::from_secs(57 * 60));
        process.ticked().await;
        renewed(&services, &process, &session, 2).await;
        assert!(services.asked().iter().all(|asked| asked.granted));
        running.stop().await;
    }
}
