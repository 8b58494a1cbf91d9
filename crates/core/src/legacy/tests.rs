use serde_json::json;

use super::*;

fn read(value: Value) -> PersistedCredentials {
    serde_json::from_str(&value.to_string()).unwrap()
}

fn written(credentials: &PersistedCredentials) -> Value {
    serde_json::from_str(&serde_json::to_string(credentials).unwrap()).unwrap()
}

fn tokens(access: &str, refresh: Option<&str>) -> PersistedTokens {
    let mut tokens = PersistedTokens::new(AccessToken::new(access.into()).unwrap());
    tokens.refresh_token = refresh.map(|t| RefreshToken::new(t.into()).unwrap());
    tokens
}

/// Issue 1, F-19: the time a token was received survives the store, and so does everything else.
#[test]
fn a_round_trip_keeps_the_received_time() {
    let form = json!({
        "client_id": "c",
        "token_response": {
            "access_token": "a",
            "token_type": "bearer",
            "expires_in": 3600,
            "refresh_token": "r",
            "scope": "x y",
            "id_token": "j.w.t",
        },
        "granted_scopes": ["x", "y"],
        "token_received_at": 1_700_000_000,
        "client_secret": "s",
        "issuer": "https://as.example",
        "added_later": {"n": 1},
    });
    let credentials = read(form.clone());
    assert_eq!(credentials.received_at(), Some(Wall(1_700_000_000_000)));
    assert_eq!(written(&credentials), form);
}

/// Issue 1: what a login stamps is what the next start reads.
#[test]
fn tokens_are_stored_with_their_time() {
    let mut tokens = tokens("a", Some("r"));
    tokens.scope = Some(Scopes::parse("x"));
    let credentials = PersistedCredentials::new("c".into())
        .with_tokens(tokens, Wall(1_700_000_000_999))
        .with_client_secret(ClientSecret::new("s".into()).ok())
        .with_issuer(Some("https://as.example".into()));
    let again = read(written(&credentials));
    assert_eq!(again, credentials);
    assert_eq!(again.token_received_at, Some(1_700_000_000));
    assert_eq!(again.granted_scopes, Scopes::parse("x"));
}

/// F-30: every older form loads, and what it does not say is none, never now and never zero.
#[test]
fn older_forms_load_as_unknown() {
    for form in [
        json!({"client_id": "c", "token_response": {"access_token": "a", "token_type": "bearer", "refresh_token": "r"}}),
        json!({"client_id": "c", "token_response": {"access_token": "a", "refresh_token": "r", "expires_in": null, "scope": null},
            "granted_scopes": null, "token_received_at": null, "client_secret": null, "issuer": null}),
        json!({"client_id": "c", "token_response": {"access_token": "a", "refresh_token": "r"},
            "token_received_at": -5, "client_secret": "", "issuer": ""}),
        json!({"client_id": "c", "token_response": {"access_token": "a", "refresh_token": "r"}, "token_received_at": {}}),
    ] {
        let credentials = read(form.clone());
        assert_eq!(credentials.received_at(), None, "{form}");
        assert_eq!(
            (&credentials.client_secret, &credentials.issuer),
            (&None, &None),
            "{form}"
        );
        let tokens = credentials.token_response.as_ref().unwrap();
        assert_eq!(
            tokens.refresh_token.as_ref().map(RefreshToken::expose),
            Some("r")
        );
        assert_eq!(
            (tokens.token_type.as_str(), tokens.expires_in),
            ("bearer", None)
        );
        assert!(written(&credentials)["token_received_at"].is_null());
    }
    let bare = read(json!({"client_id": "c", "token_response": null}));
    assert_eq!(bare, PersistedCredentials::new("c".into()));
}

/// F-17: numbers are read leniently, a scope as text or list.
#[test]
fn odd_values_are_read_leniently() {
    let lifetime = |value: Value| {
        let tokens: PersistedTokens =
            serde_json::from_str(&json!({"access_token": "a", "expires_in": value}).to_string())
                .unwrap();
        tokens.expires_in
    };
    for (value, want) in [
        (json!(3600), Some(3600)),
        (json!("3600"), Some(3600)),
        (json!(60.9), Some(60)),
        (json!(-1), None),
        (json!(1e20), None),
        (json!("soon"), None),
        (json!([]), None),
    ] {
        assert_eq!(lifetime(value.clone()), want, "{value}");
    }
    let tokens: PersistedTokens =
        serde_json::from_str(r#"{"access_token":"a","scope":["x","y"]}"#).unwrap();
    assert_eq!(tokens.scope, Some(Scopes::parse("x y")));
}

/// F-18, AUTH-85: what a refresh response omits, or leaves empty, is carried forward.
#[test]
fn what_is_omitted_is_carried_forward() {
    let previous = PersistedCredentials::new("c".into())
        .with_tokens(tokens("a1", Some("r1")), Wall(1_000_000))
        .with_client_secret(ClientSecret::new("s".into()).ok())
        .with_issuer(Some("https://as.example".into()));
    let mut next = read(json!({"client_id": "c", "client_secret": "", "issuer": "",
        "token_response": {"access_token": "a2", "refresh_token": ""}, "token_received_at": 2000}));
    next.carry_forward(&previous);
    let want = PersistedCredentials::new("c".into())
        .with_tokens(tokens("a2", Some("r1")), Wall(2_000_000))
        .with_client_secret(ClientSecret::new("s".into()).ok())
        .with_issuer(Some("https://as.example".into()));
    assert_eq!(next, want);

    let mut rotated = PersistedCredentials::new("c".into())
        .with_tokens(tokens("a3", Some("r3")), Wall(3_000_000));
    rotated.carry_forward(&previous);
    assert_eq!(
        rotated.token_response,
        Some(tokens("a3", Some("r3"))),
        "a new refresh token is never overwritten"
    );

    let mut untimed = PersistedCredentials::new("c".into());
    untimed.token_response = Some(tokens("a2", None));
    untimed.carry_forward(&previous);
    assert_eq!(
        untimed.token_received_at, None,
        "another access token has another age"
    );
    untimed.token_response = Some(tokens("a1", None));
    untimed.carry_forward(&previous);
    assert_eq!(untimed.token_received_at, Some(1000));
}

/// T-20, AUTH-40: nothing goes over from another issuer or another client.
#[test]
fn nothing_is_carried_between_issuers_or_clients() {
    let previous = PersistedCredentials::new("c".into())
        .with_tokens(tokens("a1", Some("r1")), Wall(1_000_000))
        .with_client_secret(ClientSecret::new("s".into()).ok())
        .with_issuer(Some("https://a.example".into()));
    for (client, issuer) in [
        ("c", Some("https://b.example")),
        ("other", Some("https://a.example")),
        ("other", None),
    ] {
        let next = PersistedCredentials::new(client.into())
            .with_tokens(tokens("a2", None), Wall(2_000_000))
            .with_issuer(issuer.map(str::to_owned));
        let mut carried = next.clone();
        carried.carry_forward(&previous);
        assert_eq!(carried, next, "{client} {issuer:?}");
    }
}

/// T-30, T-33: an unprintable token does not load, and no Debug output shows a secret.
#[test]
fn secrets_are_typed_and_redacted() {
    let bad = r#"{"client_id":"c","token_response":{"access_token":"a\r\nX: y"}}"#;
    assert!(serde_json::from_str::<PersistedCredentials>(bad).is_err());
    let credentials = read(json!({
        "client_id": "c", "client_secret": "canary1", "later": "canary2",
        "token_response": {"access_token": "canary3", "refresh_token": "canary4", "id_token": "canary5"},
    }));
    let shown = format!("{credentials:?} {credentials:#?}");
    assert!(
        !shown.contains("canary") && shown.contains("id_token"),
        "{shown}"
    );
}
