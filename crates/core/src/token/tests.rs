use super::*;
use crate::{
    error::NetworkFault,
    exchange::{Failure, Fault},
    time::Stamp,
};
use http::HeaderMap;
use zeroize::Zeroizing;

fn reply(status: u16, body: &str) -> Exchanged {
    let body = Zeroizing::new(body.as_bytes().to_vec());
    Ok(Reply {
        status,
        headers: HeaderMap::new(),
        body,
        sent_at: Stamp::default(),
    })
}

fn granted(body: &str) -> TokenAnswer {
    match Verdict::of(&reply(200, body)) {
        Verdict::Granted(answer) => *answer,
        other => panic!("{body}: {other:?}"),
    }
}

/// F-17: odd numbers are read leniently; unknown is never expired.
#[test]
fn odd_lifetimes_are_read_leniently() {
    let stated = |s| Some(Lifetime::Stated(Duration::from_secs(s)));
    for (value, want) in [
        ("3600", stated(3600)),
        ("\"3600\"", stated(3600)),
        ("\" 60 \"", stated(60)),
        ("60.0", stated(60)),
        ("0", None),
        ("-1", None),
        ("1e20", None),
        ("null", None),
        ("\"soon\"", None),
        ("{}", None),
        ("true", None),
    ] {
        let body = format!(r#"{{"access_token":"a","token_type":"Bearer","expires_in":{value}}}"#);
        assert_eq!(granted(&body).lifetime, want, "{value}");
    }
}

/// EXT-30: the kinds of token that are known, in any case of letters; silence is left to who knows more.
#[test]
fn the_kind_of_a_token_is_read() {
    let kind = |said: &str| granted(&format!(r#"{{"access_token":"a"{said}}}"#)).token_type;
    assert_eq!(kind(r#","token_type":"bearer""#), Some(TokenType::Bearer));
    assert_eq!(kind(r#","token_type":"DPOP""#), Some(TokenType::Dpop));
    assert_eq!(kind(""), None);
    assert_eq!(kind(r#","token_type":"""#), None);
}

/// F-17, T-30: a 200 that is no token response is ambiguous: the refresh token may be spent.
#[test]
fn an_unreadable_200_is_ambiguous() {
    for body in [
        "",
        "{",
        "null",
        "[]",
        "<html>login</html>",
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":null}"#,
        r#"{"access_token":7}"#,
        r#"{"access_token":"a\r\nX: y"}"#,
        r#"{"access_token":"a","refresh_token":"b\u0000"}"#,
        r#"{"access_token":"a","token_type":"mac"}"#,
        r#"{"access_token":"a","token_type":"#,
    ] {
        assert!(
            matches!(
                Verdict::of(&reply(200, body)),
                Verdict::Ambiguous { broken: true, .. }
            ),
            "{body}"
        );
    }
}

/// F-18: an absent and an empty refresh token are the same, and a JWT's life is a hint only.
#[test]
fn what_is_omitted_is_absent() {
    let answer =
        granted(r#"{"access_token":"a","token_type":"bearer","refresh_token":"","scope":""}"#);
    assert_eq!(
        (answer.refresh_token, answer.scopes, answer.lifetime),
        (None, None, None)
    );
    let payload =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"iat":100,"exp":400}"#);
    let answer = granted(&format!(r#"{{"access_token":"h.{payload}.s"}}"#));
    assert_eq!(
        answer.lifetime,
        Some(Lifetime::Hint(Duration::from_secs(300)))
    );
}

/// F-12, F-15, F-16: which answers are a verdict, and which only a bad moment.
#[test]
fn only_the_issuers_own_words_are_a_verdict() {
    let with = |status, body: &str| Verdict::of(&reply(status, body));
    assert_eq!(
        with(400, r#"{"error":"invalid_grant"}"#),
        Verdict::InvalidGrant { named: None }
    );
    assert_eq!(
        with(
            400,
            r#"{"error":"invalid_grant","error_description":"refresh token already used"}"#
        ),
        Verdict::InvalidGrant {
            named: Some(Named::Reuse)
        }
    );
    assert_eq!(
        with(401, r#"{"error":"invalid_client"}"#),
        Verdict::InvalidClient
    );
    assert_eq!(
        with(400, r#"{"error":"invalid_scope"}"#),
        Verdict::Refused {
            error: "invalid_scope".into()
        }
    );
    for (status, body) in [(404, ""), (302, ""), (429, "{}")] {
        assert!(
            matches!(with(status, body), Verdict::NotDelivered { .. }),
            "{status}"
        );
    }
    for (status, body) in [(400, "<html>"), (403, "blocked"), (408, "")] {
        assert!(
            matches!(with(status, body), Verdict::Ambiguous { .. }),
            "{status}: after the connection stood nobody knows"
        );
    }
    let created = with(201, r#"{"access_token":"a","token_type":"Bearer"}"#);
    assert!(
        matches!(created, Verdict::Granted(_)),
        "any success with tokens is one"
    );
    for status in [500, 502, 503, 504] {
        assert!(
            matches!(
                with(status, r#"{"error":"invalid_grant"}"#),
                Verdict::Ambiguous { .. }
            ),
            "{status}"
        );
    }
}

/// F-12: 503 with Retry-After says that nothing was done.
#[test]
fn a_503_with_retry_after_is_not_delivered() {
    let mut answer = reply(503, "").unwrap();
    answer.headers.insert(
        http::header::RETRY_AFTER,
        http::HeaderValue::from_static("2"),
    );
    let Verdict::NotDelivered { retry_after, .. } = Verdict::of(&Ok(answer)) else {
        panic!()
    };
    assert_eq!(retry_after, Some(Duration::from_secs(2)));
}

/// F-12: a failure before the connection stood spends nothing; after that nobody knows.
#[test]
fn the_connection_decides_the_verdict_on_a_failure() {
    let failed = |delivery, fault| {
        Verdict::of(&Err(Failure {
            delivery,
            fault,
            host: "h".into(),
            sent_at: Stamp::default(),
        }))
    };
    let dns = Fault::Network(NetworkFault::Dns);
    assert!(matches!(
        failed(Delivery::NotDelivered, dns),
        Verdict::NotDelivered { .. }
    ));
    let cut = Fault::Network(NetworkFault::Broken);
    assert!(matches!(
        failed(Delivery::Ambiguous, cut),
        Verdict::Ambiguous { broken: true, .. }
    ));
    let late = Fault::Deadline(Duration::from_secs(60));
    assert!(matches!(
        failed(Delivery::Ambiguous, late),
        Verdict::Ambiguous { broken: false, .. }
    ));
}
