//! `token`: an access token that is valid now.

use pilotlight::{Error, Token as Given, core::credential::TokenType};
use serde_json::json;

use crate::{
    app::{App, Stay},
    args::{Token, TokenFormat},
    failure::Failure,
    report::words,
};

pub(crate) async fn run(app: &App, args: Token) -> Result<(), Failure> {
    let (store, target) = app.open_target(&args.target).await?;
    let sessions = app.sessions(store, Stay::Brief)?;
    let session = sessions.get(&target.key.url, &target.key.account).await;
    let session = session.map_err(|error| Failure::of(&error, &target))?;
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
    let usual = if app.report.json() {
        TokenFormat::Json
    } else {
        TokenFormat::Bare
    };
    let format = args.format.unwrap_or(usual);
    let bound = token.token_type == TokenType::Dpop;
    if bound && matches!(format, TokenFormat::Header | TokenFormat::Headers) {
        return Err(Failure::of(&Error::ConfigProofNeeded, &target));
    }
    if app.report.stdout_is_terminal() {
        app.report
            .warn("whoever sees this screen can use the token until it ends");
    }
    if bound {
        app.report.warn(
            "this token is bound to a key (DPoP): without a proof for each request it is refused",
        );
    }
    print(app, format, &token);
    Ok(())
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
