//! What a login got, in words: from whom, what for, until when, and whether it stays alive by itself.

use pilotlight::core::{issuer::Issuer, quirks::Quirk, time::Wall};
use pilotlight_core::resource::clean;

use crate::{
    failure::quoted,
    report::{shown::Shown, words},
};

pub(super) fn told(
    login: &Shown,
    token_host: &str,
    adopted: bool,
    offline_access_offered: bool,
    now: Wall,
) -> String {
    let how = if adopted {
        "A moment ago somebody logged in"
    } else {
        "Logged in"
    };
    let mut text = format!("{how} to {} as {}.\n", login.key.url, clean(&login.name));
    if let Some(issuer) = &login.issuer {
        text.push_str(&format!("  issued by      {}\n", clean(issuer)));
    }
    if let Some(exception) = &login.exception {
        text.push_str(&format!("  accepted as    {}\n", clean(exception)));
    }
    text.push_str(&format!("  tokens from    {}\n", clean(token_host)));
    let scopes = if login.scopes.is_empty() {
        "(the server's default)".to_owned()
    } else {
        clean(&login.scopes.join(" "))
    };
    text.push_str(&format!("  permissions    {scopes}\n"));
    match login.expires_at {
        Some(at) => text.push_str(&format!(
            "  this token     ends {}\n",
            words::relative(at, now)
        )),
        None => text.push_str("  this token     ends nobody said when\n"),
    }
    let name = quoted(&login.name);
    if let Some(grant) = login.grant {
        text.push_str(&format!(
            "  stays alive    yes: without a person, the grant {grant} is made again before it ends"
        ));
    } else if login.refresh_token {
        text.push_str("  stays alive    yes: it is refreshed before it ends");
    } else {
        text.push_str(
            "  stays alive    no: no refresh token was issued, the login ends with this token",
        );
        if offline_access_offered && !login.scopes.iter().any(|scope| scope == "offline_access") {
            text.push_str(&format!(
                "\nhint: pilotlight login {name} --scope offline_access"
            ));
        } else {
            text.push_str(&format!("\nhint: pilotlight login {name}   (once it has ended; ask the server's operator for refresh tokens)"));
        }
    }
    text
}

/// What a login has taught about its authorization server: what the next one does otherwise.
pub(super) fn learned(quirks: &[Quirk]) -> String {
    quirks
        .iter()
        .map(|quirk| format!("\n  learned        {quirk}"))
        .collect()
}

/// What was stored by hand.
pub(super) fn kept(login: &Shown) -> String {
    let name = quoted(&login.name);
    format!(
        "Stored the key for {} as {}.\n  stays alive    until the server refuses it: nothing refreshes or revokes it\n\
         hint: pilotlight tools {name}   (to see whether the server takes it)",
        login.key.url,
        clean(&login.name)
    )
}

/// What is said where the server has changed its issuer; nothing where it has not.
pub(super) fn moved(former: Option<&Issuer>) -> String {
    former.map_or_else(String::new, |former| {
        format!(
            "\nThe server has changed its authorization server: it was {former}. The login there is kept, in case the server goes back."
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pilotlight_core::state::State;

    use super::*;
    use crate::report::table::tests::login;

    const NOW: Wall = Wall(1_795_400_000_000);

    #[test]
    fn a_login_says_what_was_got() {
        let linear = Shown {
            expires_at: Some(NOW + Duration::from_secs(3600)),
            ..login("linear", "default", State::Ok)
        };
        insta::assert_snapshot!(told(&linear, "auth.linear.example", false, true, NOW), @"
        Logged in to https://mcp.linear.example/mcp as linear.
          issued by      https://auth.linear.example
          tokens from    auth.linear.example
          permissions    read offline_access
          this token     ends in 1 h
          stays alive    yes: it is refreshed before it ends
        ");
    }

    #[test]
    fn a_login_without_a_person_says_what_it_lives_by() {
        let service = Shown {
            refresh_token: false,
            grant: Some("workload"),
            ..login("vercel", "default", State::Ok)
        };
        let text = told(&service, "auth.vercel.example", false, true, NOW);
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "  stays alive    yes: without a person, the grant workload is made again before it ends"
        );
    }

    #[test]
    fn a_login_without_a_refresh_token_says_what_would_give_one() {
        let state = State::Ending {
            at: Some(NOW + Duration::from_secs(3600)),
        };
        let vercel = Shown {
            refresh_token: false,
            scopes: vec!["read".into()],
            ..login("vercel", "default", state)
        };
        insta::assert_snapshot!(told(&vercel, "auth.vercel.example", true, true, NOW), @"
        A moment ago somebody logged in to https://mcp.vercel.example/mcp as vercel.
          issued by      https://auth.vercel.example
          tokens from    auth.vercel.example
          permissions    read
          this token     ends in 42 min
          stays alive    no: no refresh token was issued, the login ends with this token
        hint: pilotlight login vercel --scope offline_access
        ");
    }
}
