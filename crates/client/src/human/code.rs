//! What a person reads who logs in on another device.

use std::{fmt::Write as _, time::Duration};

use pilotlight_core::{flow::CodePrompt, resource::clean};

pub(super) fn explain(prompt: &CodePrompt) -> String {
    // The serialised form of a URL is printable ASCII: a terminal has nothing to obey in it.
    let mut text = format!(
        "To log in to {}, open this page in a browser, on any device:\n\n  {}\n\nand type in the code\n\n  {}\n",
        clean(&prompt.resource),
        prompt.verification_uri,
        clean(&prompt.user_code)
    );
    if let Some(page) = &prompt.verification_uri_complete {
        let _ = write!(
            text,
            "\nOr open it with the code filled in, and see that it is this one:\n\n  {page}\n"
        );
    }
    let _ = write!(
        text,
        "\nThe code is good for {}. Tokens come from {}.",
        span(prompt.expires_in),
        clean(&prompt.token_host)
    );
    if let Some(former) = &prompt.former_issuer {
        let _ = write!(text, "{}", super::moved(former, &prompt.issuer));
    }
    text.push_str(&super::permissions(&prompt.scopes));
    text
}

fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_core::{issuer::Issuer, scope::Scopes};

    use super::*;

    /// T-21: page and code stand on lines of their own, and nothing that was sent can draw on the terminal.
    #[test]
    fn page_and_code_are_shown() {
        let mut prompt = CodePrompt {
            user_code: "WDJB-MJHT".into(),
            verification_uri: "https://as.example/device".parse().unwrap(),
            verification_uri_complete: "https://as.example/device?user_code=WDJB-MJHT".parse().ok(),
            expires_in: Duration::from_secs(599),
            issuer: Issuer::parse("https://as.example").unwrap(),
            former_issuer: None,
            token_host: "as.example".into(),
            resource: "https://mcp.example/mcp".into(),
            scopes: Scopes::parse("read"),
        };
        let want =
            "To log in to https://mcp.example/mcp, open this page in a browser, on any device:

  https://as.example/device

and type in the code

  WDJB-MJHT

Or open it with the code filled in, and see that it is this one:

  https://as.example/device?user_code=WDJB-MJHT

The code is good for 9 min. Tokens come from as.example. Permissions asked for: read.";
        assert_eq!(explain(&prompt), want);
        prompt.user_code = "\u{1b}]52;c;x\u{7}\u{202e}".into();
        prompt.verification_uri_complete = None;
        prompt.expires_in = Duration::from_secs(90);
        let text = explain(&prompt);
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text}");
        assert!(text.contains("good for 90 s") && !text.contains("Or open it"));
    }
}
