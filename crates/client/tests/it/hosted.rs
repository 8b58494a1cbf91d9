//! Redirects that come to the program which embeds the library.

use std::sync::Arc;

use async_trait::async_trait;
use pilotlight::{
    Error, LoginRequest,
    core::{
        credential::Account,
        flow::{Prompt, Redirect},
    },
    human::Human,
};
use pilotlight_testkit::{ScriptedHuman, authorization_server::Approval};
use tokio::sync::mpsc;

use crate::faults_support::{Process, World, served};

/// A host that shows URLs in its own window: the test goes on from there.
#[derive(Debug)]
struct Opens(mpsc::UnboundedSender<String>);

#[async_trait]
impl Human for Opens {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        self.0.send(prompt.url.to_string()).unwrap();
        std::future::pending().await
    }
}

fn process(world: &World) -> (Process, mpsc::UnboundedReceiver<String>) {
    let (sender, opened) = mpsc::unbounded_channel();
    let human = Arc::new(Opens(sender));
    (world.process_with(|builder| builder.human(human)), opened)
}

async fn world() -> World {
    World::new(|lab| lab.authorization_server.approval = Approval::Page).await
}

fn request(world: &World, uri: &str) -> LoginRequest {
    let mut request = LoginRequest::new(world.url(), Account::default());
    request.redirect = Redirect::Hosted(uri.into());
    request
}

/// Approves or not; the redirect, which no browser could follow.
async fn redirect(human: ScriptedHuman, url: &str) -> String {
    human.without_callback().visit(url).await.unwrap()
}

/// RFC 8252 section 7.1, T-04: the redirect of a scheme or of a page of the host's own ends the login that it belongs to, once,
/// and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_is_handed_in_ends_its_login() {
    for uri in [
        "com.example.app:/oauth",
        "https://app.example/oauth?from=mcp",
    ] {
        let world = world().await;
        let ((one, mut opened), (other, _)) = (process(&world), process(&world));
        let (done, ()) = tokio::join!(one.sessions.login(request(&world, uri)), async {
            let url = opened.recv().await.unwrap();
            let back = redirect(ScriptedHuman::allows(), &url).await;
            assert!(back.starts_with(uri), "{back}");
            let forged = back.replace("state=", "state=x");
            assert!(!one.sessions.deliver(&forged) && !one.sessions.deliver(uri));
            assert!(!other.sessions.deliver(&back), "another process's");
            assert!(one.sessions.deliver(&back));
            assert!(!one.sessions.deliver(&back), "once");
        });
        assert!(!done.unwrap().adopted);
        served(&one.session(&world).await, &world).await;
        assert_eq!((world.stats().code_ok, world.stats().registrations), (1, 1));
    }
}

/// T-10: of several people at one web page, each finishes only what they have begun: Mallory begins a login and has Alice approve it;
/// what comes back with Alice's browser ends nothing, and no code is exchanged. Mallory's own approval does.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_finished_by_who_began_it() {
    let world = world().await;
    let (one, mut opened) = process(&world);
    let mut begun = request(&world, "https://app.example/oauth");
    begun.owner = Some("mallory".into());
    let (done, ()) = tokio::join!(one.sessions.login(begun), async {
        let url = opened.recv().await.unwrap();
        let back = redirect(ScriptedHuman::allows(), &url).await;
        assert!(!one.sessions.deliver_for(&back, "alice"));
        assert!(!one.sessions.deliver(&back), "nobody in particular");
        assert_eq!(world.stats().token, 0);
        assert!(one.sessions.deliver_for(&back, "mallory"));
    });
    done.unwrap();
    served(&one.session(&world).await, &world).await;
}

/// F-01: whoever waits goes on with a login that another process's host has finished, and ends with one that the person refused.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_goes_on() {
    let uri = "com.example.app:/oauth";
    for (human, ends) in [
        (ScriptedHuman::allows(), None),
        (ScriptedHuman::denies(), Some("denied.by_human")),
    ] {
        let world = world().await;
        let ((one, mut opened_one), (two, mut opened_two)) = (process(&world), process(&world));
        let (first, second, ()) = tokio::join!(
            one.sessions.login(request(&world, uri)),
            two.sessions.login(request(&world, uri)),
            async {
                let (url, sessions) = tokio::select! {
                    url = opened_one.recv() => (url, &one.sessions),
                    url = opened_two.recv() => (url, &two.sessions),
                };
                let back = redirect(human, &url.unwrap()).await;
                assert!(sessions.deliver(&back));
            }
        );
        assert!(opened_one.try_recv().is_err() && opened_two.try_recv().is_err());
        match ends {
            None => {
                assert_ne!(first.unwrap().adopted, second.unwrap().adopted);
                for process in [&one, &two] {
                    served(&process.session(&world).await, &world).await;
                }
            }
            Some(code) => {
                let codes = [first.unwrap_err().code(), second.unwrap_err().code()];
                assert_eq!(codes, [code; 2]);
            }
        }
    }
}

/// AUTH-63: a redirect that is handed in is judged like any other: one from another issuer ends the login, and no code is sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_in_is_judged() {
    let world = world().await;
    let (one, mut opened) = process(&world);
    let uri = "com.example.app:/oauth";
    let (done, ()) = tokio::join!(one.sessions.login(request(&world, uri)), async {
        let url = opened.recv().await.unwrap();
        let back = redirect(ScriptedHuman::allows(), &url).await;
        let (before, _) = back.split_once("&iss=").unwrap();
        let evil = format!("{before}&iss=https%3A%2F%2Fevil.example");
        assert!(one.sessions.deliver(&evil));
    });
    assert_eq!(done.unwrap_err().code(), "peer.issuer_mismatch");
    assert_eq!(world.stats().token, 0);
}

/// A redirect that cannot be one is a mistake of the host's; nothing is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_cannot_be_is_refused() {
    let world = world().await;
    let (one, _opened) = process(&world);
    for uri in ["http://app.example/oauth", "myapp:/oauth", "nonsense"] {
        let error = one.sessions.login(request(&world, uri)).await.unwrap_err();
        assert_eq!(error.code(), "config.value", "{uri}");
    }
    assert_eq!(world.stats().discovery, 0);
}
