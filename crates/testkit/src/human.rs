//! A scripted person: opens the login URL, clicks on the consent page, and lets the browser go back to the client.

use std::fmt;

use http::StatusCode;
use url::Url;

use crate::fetch::{self, FetchError, Fetched};

/// A person with a browser, as a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptedHuman {
    decision: Decision,
    delivers: bool,
}

impl ScriptedHuman {
    /// Makes one who clicks Allow.
    #[must_use]
    pub fn allows() -> Self {
        Self {
            decision: Decision::Allow,
            delivers: true,
        }
    }

    /// Makes one who clicks Deny.
    #[must_use]
    pub fn denies() -> Self {
        Self {
            decision: Decision::Deny,
            delivers: true,
        }
    }

    /// Keeps the browser from opening the last redirect, as on another machine, where only its URL can be copied.
    #[must_use]
    pub fn without_callback(mut self) -> Self {
        self.delivers = false;
        self
    }

    /// Opens an authorization URL and goes on until the client's redirect URI is reached; gives that last URL.
    ///
    /// # Errors
    ///
    /// The issuer answers with an error page, with a page that has no consent form, or with too many redirects; or
    /// somebody does not answer.
    pub async fn visit(self, authorization_url: &str) -> Result<String, HumanError> {
        let redirect_uri = redirect_uri(authorization_url)?;
        let mut url = authorization_url.to_owned();
        let mut page = fetch::get(&url).await?;
        for _ in 0..MAX_STEPS {
            if page.status.is_redirection() {
                url = location(&url, &page)?;
                if leads_to(&url, &redirect_uri) {
                    if self.delivers {
                        fetch::get(&url).await?;
                    }
                    return Ok(url);
                }
                page = fetch::get(&url).await?;
            } else if page.status == StatusCode::OK {
                let form = Form::find(&page.text()).ok_or(HumanError::NoForm)?;
                let decision = match self.decision {
                    Decision::Allow => "allow",
                    Decision::Deny => "deny",
                };
                url = resolve(&url, &form.action)?;
                let mut fields: Vec<(&str, &str)> = form
                    .hidden
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                fields.push(("decision", decision));
                page = fetch::post_form(&url, &fields).await?;
            } else {
                return Err(HumanError::ErrorPage {
                    status: page.status,
                    text: page.text(),
                });
            }
        }
        Err(HumanError::TooManySteps)
    }
}

/// Why a scripted person could not finish.
#[derive(Debug)]
#[non_exhaustive]
pub enum HumanError {
    /// The authorization URL, or a redirect, is not a URL or has no `redirect_uri`.
    BadUrl(String),
    /// The issuer showed an error page.
    ErrorPage {
        /// The HTTP status.
        status: StatusCode,
        /// The page.
        text: String,
    },
    /// The page has no consent form.
    NoForm,
    /// It went on and on.
    TooManySteps,
    /// Somebody did not answer.
    Fetch(FetchError),
}

impl fmt::Display for HumanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl(why) => write!(f, "not a usable URL: {why}"),
            Self::ErrorPage { status, .. } => {
                write!(f, "the issuer showed an error page ({status})")
            }
            Self::NoForm => write!(f, "the page has no consent form"),
            Self::TooManySteps => write!(f, "too many redirects"),
            Self::Fetch(_) => write!(f, "a page could not be fetched"),
        }
    }
}

impl std::error::Error for HumanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Fetch(error) => Some(error),
            _ => None,
        }
    }
}

impl From<FetchError> for HumanError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Allow,
    Deny,
}

const MAX_STEPS: usize = 10;

fn redirect_uri(authorization_url: &str) -> Result<Url, HumanError> {
    let url = parse(authorization_url)?;
    let found = url.query_pairs().find(|(name, _)| name == "redirect_uri");
    match found {
        Some((_, uri)) => parse(&uri),
        None => Err(HumanError::BadUrl("redirect_uri is missing".into())),
    }
}

fn parse(url: &str) -> Result<Url, HumanError> {
    Url::parse(url).map_err(|error| HumanError::BadUrl(error.to_string()))
}

fn location(base: &str, page: &Fetched) -> Result<String, HumanError> {
    match page.header("location") {
        Some(location) => resolve(base, location),
        None => Err(HumanError::BadUrl("a redirect without location".into())),
    }
}

fn resolve(base: &str, reference: &str) -> Result<String, HumanError> {
    match parse(base)?.join(reference) {
        Ok(url) => Ok(url.into()),
        Err(error) => Err(HumanError::BadUrl(error.to_string())),
    }
}

/// Tells whether a URL is the redirect URI with some query.
fn leads_to(url: &str, redirect_uri: &Url) -> bool {
    let Ok(mut url) = Url::parse(url) else {
        return false;
    };
    let mut redirect_uri = redirect_uri.clone();
    url.set_query(None);
    redirect_uri.set_query(None);
    url == redirect_uri
}

/// The one form of a consent page. It reads our own page, not HTML at large.
#[derive(Debug, PartialEq, Eq)]
struct Form {
    action: String,
    hidden: Vec<(String, String)>,
}

impl Form {
    fn find(html: &str) -> Option<Self> {
        let form = &html[html.find("<form")?..];
        let form = &form[..form.find("</form>")?];
        let hidden = form
            .split("<input")
            .skip(1)
            .filter(|input| attribute(input, "type").as_deref() == Some("hidden"))
            .filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?)))
            .collect();
        Some(Self {
            action: attribute(form, "action")?,
            hidden,
        })
    }
}

/// Reads an attribute of the tag that `tag` starts with.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let tag = &tag[..tag.find('>')?];
    let from = tag.find(&format!("{name}=\""))? + name.len() + 2;
    let value = &tag[from..];
    let value = &value[..value.find('"')?];
    Some(
        value
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_with_its_hidden_fields() {
        let html = r#"<p>x</p><form method="post" action="/a?b&amp;c"><input type="hidden" name="page" value="1&quot;2"><button name="decision" value="allow">A</button></form>"#;
        let form = Form::find(html).unwrap();
        assert_eq!(form.action, "/a?b&c");
        assert_eq!(form.hidden, [("page".to_owned(), "1\"2".to_owned())]);
    }

    #[test]
    fn a_page_without_a_form_is_no_form() {
        assert_eq!(Form::find("<h1>Error</h1>"), None);
        assert_eq!(Form::find("<form action=\"/a\""), None);
    }
}
