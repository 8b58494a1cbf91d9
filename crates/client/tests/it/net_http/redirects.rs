//! What is followed, and what never is (T-13).

use super::*;

/// T-13: metadata is followed within its origin, three times at most; each hop is one request.
#[tokio::test]
async fn metadata_redirects_stay_in_their_origin_and_end() {
    for status in [301, 302, 303, 307, 308] {
        let (address, seen) = redirecting(status, |path| match path {
            "/0" => Some("/1".into()),
            "/1" => Some("2#fragment".into()),
            "/2" => Some("/3?x=y".into()),
            _ => None,
        })
        .await;
        let reply = local().send(get(address, "/0")).await.unwrap();
        assert_eq!((reply.status, reply.body.as_slice()), (200, &b"{}"[..]));
        assert_eq!(
            *seen.lock().unwrap(),
            ["GET /0", "GET /1", "GET /2", "GET /3?x=y"]
        );
    }
    let (address, seen) = redirecting(302, |path| Some(path.to_owned())).await;
    assert_eq!(
        local().send(get(address, "/loop")).await.unwrap_err().fault,
        Fault::Network(NetworkFault::Redirect)
    );
    assert_eq!(seen.lock().unwrap().len(), 4);
}

/// AUTH-103, T-13, T-23: a redirect to another origin, scheme or user is refused before a byte goes there.
#[tokio::test]
async fn metadata_redirects_to_another_origin_reach_nobody() {
    let (collector, collected) = redirecting(200, |_| None).await;
    for target in [
        format!("http://{collector}/"),
        format!("//{collector}/"),
        format!("http://localhost:{}/", collector.port()),
        format!("https://{collector}/"),
        "http://user@SELF/".into(),
        "http://user:password@SELF/".into(),
        "https://SELF/".into(),
        "http://169.254.169.254/".into(),
        "javascript:alert(1)".into(),
        "data:application/json,{}".into(),
        "file:///etc/passwd".into(),
        "http://[".into(),
        "/caf\u{e9}".into(),
    ] {
        let own = Arc::new(Mutex::new(String::new()));
        let at = own.clone();
        let (address, seen) = redirecting(302, move |_| {
            Some(target.replace("SELF", &at.lock().unwrap()))
        })
        .await;
        *own.lock().unwrap() = address.to_string();
        let failure = local().send(get(address, "/")).await.unwrap_err();
        assert_eq!(failure.fault, Fault::Network(NetworkFault::Redirect));
        assert_eq!(seen.lock().unwrap().len(), 1);
    }
    assert!(collected.lock().unwrap().is_empty());
}

/// AUTH-103, T-13: no leg that carries a secret follows a redirect, whatever the status; the answer is given as it came.
#[tokio::test]
async fn secrets_are_never_sent_after_a_redirect() {
    let (collector, collected) = redirecting(200, |_| None).await;
    for leg in [
        Leg::Token,
        Leg::Registration,
        Leg::Revocation,
        Leg::Challenge,
    ] {
        for status in [301, 302, 303, 307, 308] {
            for target in [format!("http://{collector}/"), "/elsewhere".into()] {
                let (address, seen) = redirecting(status, move |_| Some(target.clone())).await;
                let reply = send(&local(), leg, address).await.unwrap();
                assert_eq!(reply.status, status);
                assert_eq!(seen.lock().unwrap().len(), 1);
            }
        }
    }
    assert!(collected.lock().unwrap().is_empty());
}
