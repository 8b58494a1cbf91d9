//! Redirects that come to the program which embeds this.

use super::*;

fn hosted(uri: &str) -> Task {
    Task {
        redirect: Redirect::Hosted(uri.into()),
        ..task()
    }
}

/// AUTH-36, AUTH-37, AUTH-43, AUTH-66: a hosted redirect opens no listener; it is registered, asked for and exchanged octet for
/// octet, as a web application's where it is https, as a native one's where it is a scheme's.
#[test]
fn a_hosted_redirect_needs_no_listener() {
    for (uri, kind) in [
        ("https://app.example:443/oauth?x=1", "web"),
        ("com.example.app:/oauth/login", "native"),
    ] {
        let mut stage = stage();
        let done = login(&mut stage, hosted(uri)).unwrap();
        assert_eq!(done.credential.client.id, "client-1");
        assert_eq!(stage.count("open-callback"), 0);
        let sent = sent_to(&stage, REGISTER)[0];
        let body: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(body["redirect_uris"], serde_json::json!([uri]));
        assert_eq!(body["application_type"], kind);
        assert_eq!(shown(&stage, "redirect_uri").as_deref(), Some(uri));
        let sent = sent_to(&stage, TOKEN)[0];
        assert_eq!(form(sent, "redirect_uri").as_deref(), Some(uri));
        assert_eq!(stage.registrations[0].redirect_uris, [uri]);
    }
}

/// AUTH-39: its registration is used again, and nobody else's.
#[test]
fn a_hosted_redirect_has_a_registration_of_its_own() {
    let uri = "com.example.app:/login";
    for (known, id) in [(uri, "earlier"), (ANY_PORT, "client-1")] {
        let mut stage = stage();
        stage.registrations.push(registration("earlier", known));
        let done = login(&mut stage, hosted(uri)).unwrap();
        assert_eq!(done.credential.client.id, id, "{known}");
    }
}

/// AUTH-66, T-02: what others could take redirects away with, or nobody could register, is a mistake of ours: nothing is sent.
#[test]
fn a_redirect_that_cannot_be_is_refused_at_once() {
    for uri in [
        "http://app.example/login",
        "http://127.0.0.1/callback",
        "myapp:/login",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://app.example/login#x",
        "https://u:p@app.example/login",
        "app.example/login",
        "",
    ] {
        let mut stage = stage();
        let error = login(&mut stage, hosted(uri)).unwrap_err();
        assert_eq!(error.code(), "config.value", "{uri}");
        assert!(stage.log.is_empty(), "{uri}: {:?}", stage.log);
    }
}

/// AUTH-31: a console is told the URI that redirects really go to.
#[test]
fn a_console_is_told_the_hosted_redirect() {
    let mut stage = with_metadata(r#","registration_endpoint":null"#);
    let uri = "https://app.example/login";
    let want = Error::NoRegistrationWay {
        issuer: "https://as.example".into(),
        redirect_uris: vec![uri.into()],
    };
    assert_eq!(login(&mut stage, hosted(uri)).unwrap_err(), want);
}
