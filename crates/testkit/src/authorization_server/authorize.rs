//! The authorization endpoint: from a request to a code, with or without a person (RFC 6749 section 4.1).

use http::{Method, StatusCode};

use super::config::{Approval, SendIss};
use super::{AuthorizationServer, Code};
use crate::exchange::{Fields, Request, Response, append_query};

/// What an authorization request says on top.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Insists {
    pub(super) consent: bool,
    pub(super) offline: bool,
}

/// An authorization request that passed its checks and may wait for a person.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    client_id: String,
    redirect_uri: String,
    redirect_uri_named: bool,
    code_challenge: String,
    scopes: Vec<String>,
    resource: Option<String>,
    insists: Insists,
    state: Option<String>,
    asked_at_ms: u64,
}

impl AuthorizationServer {
    pub(super) fn authorize(&mut self, now_ms: u64, request: &Request) -> Response {
        self.stats.authorize += 1;
        let fields = match request.method {
            Method::GET => Fields::parse(request.query().as_bytes()),
            Method::POST => Fields::parse(&request.body),
            _ => return Response::empty(StatusCode::METHOD_NOT_ALLOWED),
        };
        // Until client and redirect URI are known to belong together, nothing may be redirected anywhere.
        let Some(client_id) = fields.get("client_id") else {
            return refusal("The client_id is missing.");
        };
        let Some(client) = self.client(client_id) else {
            return refusal(
                "The client is not known here. It may have been registered elsewhere, or forgotten.",
            );
        };
        let redirect_uri = match (fields.get("redirect_uri"), &client.redirect_uris[..]) {
            (Some(uri), _) if client.may_redirect_to(uri, self.config.exact_redirect_port) => {
                uri.to_owned()
            }
            (None, [only]) => only.clone(),
            _ => return refusal("The redirect_uri is not registered for this client."),
        };

        let state = fields.get("state").map(Into::into);
        match self.checked(now_ms, &fields, client_id, &redirect_uri, state) {
            Err((error, description)) => {
                let state = fields.get("state");
                self.redirect_error(&redirect_uri, state, error, description)
            }
            Ok(pending) => match self.config.approval {
                Approval::Automatic => self.approve(now_ms, &pending),
                Approval::Denied => self.deny(&pending),
                Approval::Page => {
                    let page_id = self.mint("page-");
                    let page = consent_page(&self.issuer, &page_id, &client.name, &pending);
                    self.pending.insert(page_id, pending);
                    Response::html(StatusCode::OK, page).no_store()
                }
            },
        }
    }

    /// Takes the answer a person gave on the consent page.
    pub(super) fn decide(&mut self, now_ms: u64, request: &Request) -> Response {
        let fields = Fields::parse(&request.body);
        let pending = fields
            .get("page")
            .and_then(|page_id| self.pending.remove(page_id))
            .filter(|pending| now_ms.saturating_sub(pending.asked_at_ms) < PAGE_TTL_MS);
        match (pending, fields.get("decision")) {
            (Some(pending), Some("allow")) => self.approve(now_ms, &pending),
            (Some(pending), _) => self.deny(&pending),
            (None, _) => {
                refusal("This page was answered already, or is too old. Start the login again.")
            }
        }
    }

    fn checked(
        &self,
        now_ms: u64,
        fields: &Fields,
        client_id: &str,
        redirect_uri: &str,
        state: Option<String>,
    ) -> Result<Pending, (&'static str, &'static str)> {
        if fields.repeated.is_some() {
            return Err(("invalid_request", "a parameter was sent twice"));
        }
        if fields.get("response_type") != Some("code") {
            return Err(("unsupported_response_type", "response_type must be code"));
        }
        if fields.get("code_challenge_method") != Some("S256") {
            return Err(("invalid_request", "code_challenge_method must be S256"));
        }
        let Some(code_challenge) = fields.get("code_challenge") else {
            return Err(("invalid_request", "code_challenge is missing"));
        };
        let resource = fields.get("resource");
        self.check_resource(resource)?;
        let scopes = self.scopes_asked(fields)?;
        if self.config.refuses_offline_access && scopes.iter().any(|one| one == "offline_access") {
            return Err(("invalid_scope", "offline_access is not given here"));
        }
        let insists = Insists {
            consent: fields.get("prompt") == Some("consent"),
            offline: fields.get("access_type") == Some("offline"),
        };
        if self.config.refuses_insisting && (insists.consent || insists.offline) {
            return Err(("invalid_request", "a parameter is not known here"));
        }
        Ok(Pending {
            client_id: client_id.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            redirect_uri_named: fields.get("redirect_uri").is_some(),
            code_challenge: code_challenge.to_owned(),
            scopes,
            resource: resource.map(Into::into),
            insists,
            state,
            asked_at_ms: now_ms,
        })
    }

    /// The scopes of a request that a person is to allow.
    pub(super) fn scopes_asked(
        &self,
        fields: &Fields,
    ) -> Result<Vec<String>, (&'static str, &'static str)> {
        let Some(scope) = fields.get("scope") else {
            return Ok(self.config.default_scopes.clone());
        };
        let known: Vec<String> = scope
            .split_ascii_whitespace()
            .filter(|scope| self.knows_scope(scope))
            .map(Into::into)
            .collect();
        if known.is_empty() {
            return Err(("invalid_scope", "none of the scopes is known"));
        }
        Ok(known)
    }

    /// Checks a resource indicator (RFC 8707 section 2).
    pub(super) fn check_resource(
        &self,
        resource: Option<&str>,
    ) -> Result<(), (&'static str, &'static str)> {
        let Some(resource) = resource else {
            return match self.config.require_resource {
                true => Err(("invalid_target", "the resource parameter is missing")),
                false => Ok(()),
            };
        };
        if url::Url::parse(resource).is_err() || resource.contains('#') {
            return Err((
                "invalid_target",
                "the resource is not an absolute URI without fragment",
            ));
        }
        match &self.config.allowed_resources {
            Some(allowed) if !allowed.iter().any(|one| one == resource) => {
                Err(("invalid_target", "no tokens are issued for this resource"))
            }
            _ => Ok(()),
        }
    }

    fn knows_scope(&self, scope: &str) -> bool {
        scope == "offline_access" || self.config.scopes_supported.iter().any(|s| s == scope)
    }

    fn approve(&mut self, now_ms: u64, pending: &Pending) -> Response {
        let code = self.mint("code-");
        self.codes.insert(
            code.clone(),
            Code {
                client_id: pending.client_id.clone(),
                redirect_uri: pending.redirect_uri.clone(),
                redirect_uri_named: pending.redirect_uri_named,
                code_challenge: pending.code_challenge.clone(),
                scopes: pending.scopes.clone(),
                resource: pending.resource.clone(),
                insists: pending.insists,
                expires_at_ms: now_ms + super::millis(self.config.code_ttl),
                family: None,
            },
        );
        self.redirect_back(
            &pending.redirect_uri,
            pending.state.as_deref(),
            &[("code", &code)],
        )
    }

    fn deny(&self, pending: &Pending) -> Response {
        self.redirect_error(
            &pending.redirect_uri,
            pending.state.as_deref(),
            "access_denied",
            "the person refused",
        )
    }

    fn redirect_error(
        &self,
        redirect_uri: &str,
        state: Option<&str>,
        error: &str,
        description: &str,
    ) -> Response {
        let fields = [("error", error), ("error_description", description)];
        self.redirect_back(redirect_uri, state, &fields)
    }

    fn redirect_back(
        &self,
        redirect_uri: &str,
        state: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Response {
        let mut fields = fields.to_vec();
        if let Some(state) = state {
            fields.push(("state", state));
        }
        match &self.config.send_iss {
            SendIss::No => {}
            SendIss::Issuer => fields.push(("iss", &self.issuer)),
            SendIss::Other(text) => fields.push(("iss", text)),
        }
        Response::redirect(&append_query(redirect_uri, &fields)).no_store()
    }
}

/// How long a consent page can be answered.
const PAGE_TTL_MS: u64 = 10 * 60 * 1000;

fn refusal(reason: &str) -> Response {
    let body = format!("<h1>This login cannot go on</h1><p>{}</p>", escape(reason));
    Response::html(StatusCode::BAD_REQUEST, page("Login refused", &body)).no_store()
}

fn consent_page(issuer: &str, page_id: &str, client_name: &str, pending: &Pending) -> String {
    let scopes: String = pending
        .scopes
        .iter()
        .map(|scope| format!("<li><code>{}</code></li>", escape(scope)))
        .collect();
    let resource = pending.resource.as_deref().unwrap_or("any server");
    let body = format!(
        r#"<h1>Allow access?</h1>
<p><strong>{client}</strong> wants to use <strong>{resource}</strong> in your name:</p>
<ul>{scopes}</ul>
<form method="post" action="{issuer}/authorize/decision">
<input type="hidden" name="page" value="{page_id}">
<button class="allow" name="decision" value="allow" autofocus>Allow</button>
<button name="decision" value="deny">Deny</button>
</form>
<p class="small">You will be sent back to <code>{redirect}</code>. This is a test server: there is no password.</p>"#,
        client = escape(client_name),
        resource = escape(resource),
        issuer = escape(issuer),
        page_id = escape(page_id),
        redirect = escape(&pending.redirect_uri),
    );
    page("Allow access?", &body)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
<title>{title}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body>\n</html>\n"
    )
}

const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{margin:0;display:grid;place-items:center;min-height:100vh}\
main{max-width:32rem;padding:2rem}\
code,strong{overflow-wrap:anywhere}\
button{font:inherit;padding:.6rem 1.6rem;margin-right:.6rem;border-radius:.5rem;border:1px solid GrayText;cursor:pointer}\
.allow{background:#0b57d0;color:#fff;border-color:#0b57d0}\
.small{font-size:.85rem;opacity:.75}";

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
