//! `token`: an access token that is valid now.

use http::{HeaderMap, HeaderValue, Request, StatusCode, header::WWW_AUTHENTICATE, request::Parts};
use pilotlight::{
    Error, Next, Session, Token as Given,
    core::{
        credential::TokenType,
        dpop::{NONCE_FIELD, PROOF_FIELD},
    },
};
use serde_json::{Map, Value, json};
use url::Url;

use crate::{
    app::{App, Stay},
    args::{Token, TokenFormat},
    config::bad_value,
    failure::Failure,
    report::words,
};

pub(crate) async fn run(app: &App, args: Token) -> Result<(), Failure> {
    let usual = match (&args.for_url, app.report.json()) {
        (Some(_), _) => TokenFormat::Headers,
        (None, true) => TokenFormat::Json,
        (None, false) => TokenFormat::Bare,
    };
    let format = args.format.unwrap_or(usual);
    if args.for_url.is_some() && format != TokenFormat::Headers {
        return Err(bad_value("--for", "only --format headers is for one request").into());
    }
    let (session, target) = super::grant::session(app, &args.target, Stay::Brief).await?;
    let token = app
        .report
        .wait("refreshing the token", session.token(args.min_valid))
        .await;
    let token = token.map_err(|error| Failure::of(&error, &target))?;
    if let Some(why) = &token.warning {
        app.report.warn(format!(
            "this token ends soon, and refreshing it did not work: {why} ({})",
            why.code()
        ));
    }
    let bound = token.token_type == TokenType::Dpop;
    let needs_proof = matches!(format, TokenFormat::Header | TokenFormat::Headers);
    if bound && needs_proof && args.for_url.is_none() {
        return Err(Failure::of(&Error::ConfigProofNeeded, &target));
    }
    let made = match &args.for_url {
        Some(url) => {
            let nonce = args.dpop_nonce.as_deref();
            let made = for_request(&session, url, &args.method, nonce).await;
            Some(made.map_err(|error| Failure::of(&error, &target))?)
        }
        None => None,
    };
    if app.report.stdout_is_terminal() {
        app.report
            .warn("whoever sees this screen can use the token until it ends");
    }
    if bound && made.is_none() {
        app.report.warn(
            "this token is bound to a key (DPoP): without a proof for each request it is refused",
        );
    }
    match made {
        // Other programs read this one: it is their form, without our version.
        Some(headers) => app.report.data(Value::Object(headers)),
        None => print(app, format, &token),
    }
    Ok(())
}

/// The headers of one request: what the session would put on it.
async fn for_request(
    session: &Session,
    url: &Url,
    method: &http::Method,
    nonce: Option<&str>,
) -> Result<Map<String, Value>, Error> {
    let request = Request::builder().method(method).uri(url.as_str());
    let (mut parts, ()): (Parts, ()) = request
        .body(())
        .map_err(|_| bad_value("--for", "no request can be made to it"))?
        .into_parts();
    let sent = session.authorize(&mut parts).await?;
    // Without a proof the answer would be about the token.
    if let Some(nonce) = nonce.filter(|_| parts.headers.contains_key(PROOF_FIELD)) {
        // Nonces live in the process that was told them: this one is told now, as if its own request had been refused.
        let mut answer = HeaderMap::new();
        let unfit = |_| bad_value("--dpop-nonce", "it holds what no header can");
        answer.insert(NONCE_FIELD, nonce.parse().map_err(unfit)?);
        answer.insert(WWW_AUTHENTICATE, WANTS_NONCE);
        let next = session.answered(&sent, StatusCode::UNAUTHORIZED, &answer);
        match Box::pin(next).await {
            Next::Retry => session.authorize(&mut parts).await?,
            _ => {
                return Err(bad_value(
                    "--dpop-nonce",
                    "it is no nonce that a proof can hold",
                ));
            }
        };
    }
    Ok(shown(&parts.headers))
}

const WANTS_NONCE: HeaderValue = HeaderValue::from_static("DPoP error=\"use_dpop_nonce\"");

fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let named = |name: &str| match name {
        "authorization" => "Authorization".to_owned(),
        "dpop" => "DPoP".to_owned(),
        other => other.to_owned(),
    };
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let all = headers.iter();
    all.map(|(name, value)| (named(name.as_str()), json!(text(value))))
        .collect()
}

fn print(app: &App, format: TokenFormat, given: &Given) {
    let (token, expires_at) = (given.access_token.expose(), given.expires_at);
    let kind = match given.token_type {
        TokenType::Dpop => "DPoP",
        _ => "Bearer",
    };
    match format {
        TokenFormat::Bare => app.report.data(token),
        TokenFormat::Header => app.report.data(format!("Authorization: Bearer {token}")),
        // Other programs read this one: it is their form, without our version.
        TokenFormat::Headers => app
            .report
            .data(json!({ "Authorization": format!("Bearer {token}") })),
        TokenFormat::Json => app.report.object(json!({
            "access_token": token,
            "token_type": kind,
            "expires_at": expires_at.map(words::rfc3339),
            "expires_in_s": expires_at.map(|at| app.now().until(at).as_secs()),
        })),
    }
}
