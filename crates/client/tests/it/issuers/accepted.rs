//! An issuer that is accepted although its metadata names another, which is there, too: neither gets what is the other's.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pilotlight::core::resource::Resource;

use super::*;

/// An issuer, and another that calls itself by its name: both give out clients with secrets, and keep what they hear.
async fn two() -> (World, Lab) {
    let world = World::new(|lab| {
        lab.authorization_server.confidential_clients = true;
        lab.authorization_server.keep_requests = true;
    })
    .await;
    let name = world.lab.issuer().to_owned();
    let poses = another(&world, |config| {
        config.confidential_clients = true;
        config.metadata_overrides = json!({ "issuer": name });
        config.send_iss = pilotlight_testkit::authorization_server::SendIss::Other(name);
    });
    let poses = poses.await;
    (world, poses)
}

fn at(lab: &Lab) -> LoginRequest {
    let url = Resource::parse(lab.resource_url()).unwrap();
    LoginRequest::new(url, Account::default())
}

fn accepting(world: &World, poses: &Lab) -> LoginRequest {
    let exception = format!("{}={}", poses.issuer(), world.lab.issuer());
    let mut request = at(poses);
    request.exception = IssuerException::parse(&exception).ok();
    request
}

/// The client that this prompt was for.
fn client_of(prompt: &Prompt) -> String {
    let mut pairs = prompt.url.query_pairs();
    let id = pairs.find(|(name, _)| name == "client_id").unwrap().1;
    id.into_owned()
}

/// Nothing of one came to the other: no secret, in no form, and not the name of its client.
fn assert_apart(from: &Lab, client_id: &str, to: &Lab) {
    assert_nothing_leaked(from, to);
    let secrets = from.with_issuer(|issuer| issuer.issued_secrets().to_vec());
    let heard = to.with_issuer(|issuer| issuer.heard().join("\n"));
    assert!(heard.contains("/token"), "it was asked for tokens");
    for secret in secrets {
        let basic = STANDARD.encode(format!("{client_id}:{secret}"));
        assert!(!heard.contains(&basic), "{heard}");
    }
    assert!(
        !heard.contains(&format!("client_id={client_id}&")),
        "{heard}"
    );
}

/// AUTH-16, AUTH-39, T-15, T-17, T-20: whichever came first, the one that poses as the other gets none of its secrets, registers a
/// client of its own, and gives the other none of it. Both logins live on, each by its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_poses_gets_nothing_of_the_true_one() {
    for true_one_first in [true, false] {
        let (world, poses) = two().await;
        let human = Remembers::new();
        let process = process(&world, &human);
        let mut requests = [request(&world), accepting(&world, &poses)];
        if !true_one_first {
            requests.reverse();
        }
        for request in requests {
            process.sessions.login(request).await.unwrap();
        }
        world.advance(Duration::from_secs(3700));
        for lab in [&world.lab, &poses] {
            let url = Resource::parse(lab.resource_url()).unwrap();
            let session = process.sessions.get(&url, &Account::default()).await;
            assert!(session.unwrap().refresh(true).await.unwrap().refreshed);
            let stats = lab.with_issuer(|issuer| issuer.stats().clone());
            assert_eq!((stats.registrations, stats.refresh_ok), (1, 1));
        }
        let prompts = human.prompts();
        let prompt = |lab: &Lab| {
            let host = lab.resource_url();
            prompts.iter().find(|one| one.resource == host).unwrap()
        };
        let (of_true, of_other) = (prompt(&world.lab), prompt(&poses));
        assert_apart(&world.lab, &client_of(of_true), &poses);
        assert_apart(&poses, &client_of(of_other), &world.lab);
        assert_eq!(of_true.issuer, issuer(&world.lab));
        assert_eq!(of_other.issuer, issuer(&poses));
        process.idle().await;
    }
}

/// T-15, T-17, T-20: back at the true issuer, the exception stays with the server, and counts for nothing there: where the token
/// endpoint is now is asked of the issuer of the login, and the one that goes by its name has no say in it.
#[tokio::test(flavor = "multi_thread")]
async fn an_exception_says_nothing_of_the_true_issuer() {
    let world = World::with_tokens_of(Duration::from_secs(600)).await;
    let name = world.lab.issuer().to_owned();
    let poses = another(&world, |config| {
        config.metadata_overrides = json!({ "issuer": name });
        config.send_iss = pilotlight_testkit::authorization_server::SendIss::Other(name.clone());
    })
    .await;
    let human = Remembers::new();
    let process = process(&world, &human);
    process.sessions.login(request(&world)).await.unwrap();
    world.lab.trust(&poses);
    world.advance(Duration::from_secs(60));
    let mut accepting = request(&world);
    let exception = format!("{}={name}", poses.issuer());
    accepting.exception = IssuerException::parse(&exception).ok();
    process.sessions.login(accepting).await.unwrap();

    world.lab.trust(&world.lab);
    world.advance(Duration::from_secs(60));
    let back = process.sessions.login(request(&world)).await.unwrap();
    assert_eq!(back.former_issuer, Some(issuer(&poses)));
    assert_eq!(human.prompts().len(), 2, "nobody was asked");
    let kept = process.binding(&world).await.exception;
    assert_eq!(kept.unwrap().to_string(), exception);

    let collects = json!({ "issuer": name, "token_endpoint": format!("{name}/collect") });
    poses.with_issuer(|issuer| issuer.config_mut().metadata_overrides = collects);
    let heard = poses.with_issuer(|issuer| issuer.heard().len());
    world
        .lab
        .with_issuer(|issuer| issuer.config_mut().token_path = "/v2/token".into());
    let session = process.session(&world).await;
    world.advance(Duration::from_secs(700));
    moved::fails_for(&world, &process, &session, 16).await;
    served(&session, &world).await;
    let pins = process.record(&world).await.credential.unwrap().pins;
    assert_eq!(pins.token_endpoint.path(), "/v2/token");
    assert_eq!(poses.with_issuer(|issuer| issuer.heard().len()), heard);
}
