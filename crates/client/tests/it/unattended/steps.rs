//! Services that meet a server which wants more scopes.

use http::{HeaderMap, header::WWW_AUTHENTICATE};
use pilotlight::{Limits, Next};

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

/// A process whose callers wait so long.
fn hurried(services: &Services, limit: Duration) -> Process {
    services.world.process_with(|builder| {
        let mut limits = Limits::default();
        limits.caller_wait = limit;
        builder.human(Arc::new(Refuse)).limits(limits)
    })
}

/// AUTH-58, I-9, T-31: an issuer that answers later than any caller waits is asked three times in ten minutes, by whichever
/// process: each call has gone out, though nobody saw its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_issuer_is_not_asked_for_ever() {
    let services = Services::new(|_| {}).await;
    let world = &services.world;
    let limit = Duration::from_millis(1500);
    let one = hurried(&services, limit);
    let mut request = services.service();
    request.scopes = Some(Scopes::parse("mcp:tools"));
    let session = login(&one, request, world).await;
    let other = hurried(&services, limit).session(world).await;
    let slow = Fault::DelayAnswer { ms: 60_000 };
    world
        .lab
        .with_issuer(|issuer| issuer.set_standing_fault(Endpoint::Token, Some(slow)));
    let mut codes = Vec::new();
    for session in [&session, &other, &session, &other, &session] {
        codes.push(wants(session, &services, "mcp:admin").await);
    }
    let late = "unavailable.timeout";
    assert_eq!(codes, [late, late, late, "login.scope", "login.scope"]);
    // On a slow machine one may not have got so far.
    assert!((1 + 1..=1 + 3).contains(&services.asked().len()));
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
