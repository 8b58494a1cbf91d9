//! mcp-remote 0.15.1, as far as it was seen to act on files and issuer.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::SystemTime,
};

use pilotlight::{core::credential::Credential, mcp_remote::Files};
use pilotlight_testkit::Lab;
use serde_json::{Value, json};

pub(super) const HASH: &str = "41de1428c5b082cf5ea630e2db10fddd";

/// The other program.
pub(super) struct Rival {
    base: PathBuf,
    client: String,
    token_endpoint: String,
}

impl Rival {
    /// Writes a login as mcp-remote does, with members that we know nothing of.
    pub(super) fn new(base: &Path, made: &Credential) -> Self {
        let rival = Self {
            base: base.to_owned(),
            client: made.client.id.clone(),
            token_endpoint: made.pins.token_endpoint.to_string(),
        };
        fs::create_dir_all(base.join("mcp-remote-v1")).unwrap();
        let life = made.lifetime.unwrap().span();
        let tokens = json!({
            "access_token": made.access_token.expose(),
            "token_type": "Bearer",
            "expires_in": life.as_secs(),
            "refresh_token": made.refresh_token.as_ref().unwrap().expose(),
            "scope": made.scopes_granted.to_string(),
            "expires_at": now_ms() + life.as_millis() as u64,
            "requested_scope": "asked",
            "later": {"kept": [1.0]},
        });
        rival.put("tokens.json", &tokens);
        let client = json!({
            "client_id": made.client.id,
            "client_name": "MCP CLI Proxy",
            "redirect_uris": ["http://localhost:20197/oauth/callback"],
            "token_endpoint_auth_method": "none",
        });
        rival.put("client_info.json", &client);
        rival
    }

    pub(super) fn files(&self) -> Files {
        Files::new(&self.base, HASH).unwrap()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.base
            .join("mcp-remote-v1")
            .join(format!("{HASH}_{name}"))
    }

    pub(super) fn put(&self, name: &str, value: &Value) {
        let (path, text) = (
            self.path(name),
            serde_json::to_string_pretty(value).unwrap(),
        );
        let other = path.with_extension("tmp");
        fs::write(&other, text).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&other, path).unwrap();
    }

    pub(super) fn read(&self, name: &str) -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(self.path(name)).ok()?).ok()
    }

    pub(super) fn tokens(&self) -> Value {
        self.read("tokens.json").expect("tokens")
    }

    pub(super) fn access(&self) -> String {
        self.tokens()["access_token"].as_str().unwrap().to_owned()
    }

    pub(super) fn is_private(&self) {
        let mode = fs::metadata(self.path("tokens.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// Puts the files where an older version had them: no times, no names of its own.
    pub(super) fn make_old(&self, version: &str) {
        let mut tokens = self.tokens();
        for name in ["expires_at", "requested_scope", "later"] {
            tokens.as_object_mut().unwrap().remove(name);
        }
        self.put("tokens.json", &tokens);
        fs::rename(
            self.base.join("mcp-remote-v1"),
            self.base.join(format!("mcp-remote-{version}")),
        )
        .unwrap();
    }

    /// Leaves a marker as a process of that id does, so many seconds ago.
    pub(super) fn mark(&self, pid: u32, seconds_ago: u64, nonce: &str) {
        self.put(
            "refresh_in_progress.json",
            &json!({"pid": pid, "nonce": nonce, "at": now_ms() - seconds_ago * 1000}),
        );
    }

    /// Takes the marker, unless it is there.
    pub(super) fn try_mark(&self, pid: u32) -> bool {
        let path = self.path("refresh_in_progress.json");
        let marker = json!({"pid": pid, "nonce": "theirs", "at": now_ms()});
        let other = path.with_extension("theirs");
        fs::write(&other, marker.to_string()).unwrap();
        let made = fs::hard_link(&other, &path).is_ok();
        fs::remove_file(&other).unwrap();
        made
    }

    pub(super) fn unmark(&self) {
        fs::remove_file(self.path("refresh_in_progress.json")).unwrap();
    }

    pub(super) fn is_marked(&self) -> bool {
        self.path("refresh_in_progress.json").exists()
    }

    /// Refreshes as it does: the marker, the tokens as they are then, the issuer, the file, the marker. The new access token;
    /// `None` where the issuer refused, and the tokens are then deleted.
    pub(super) async fn refresh(&self, lab: &Lab) -> Option<String> {
        assert!(!self.is_marked(), "nobody else is at it");
        self.mark(std::process::id(), 0, "rival");
        let done = self.spend(lab).await;
        self.unmark();
        done
    }

    /// The same without the marker, as after a 401.
    pub(super) async fn spend(&self, lab: &Lab) -> Option<String> {
        let mut tokens = self.tokens();
        let resource = lab.resource_url();
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
            ("client_id", &self.client),
            ("resource", resource),
        ];
        let form = form.map(|(name, value)| (name.to_owned(), value.to_owned()));
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let answer = client
            .post(&self.token_endpoint)
            .form(&form)
            .send()
            .await
            .unwrap();
        if !answer.status().is_success() {
            fs::remove_file(self.path("tokens.json")).unwrap();
            return None;
        }
        let new: Value = answer.json().await.unwrap();
        let old = tokens.as_object_mut().unwrap();
        for (name, value) in new.as_object().unwrap() {
            old.insert(name.clone(), value.clone());
        }
        let life = new["expires_in"].as_u64().unwrap() * 1000;
        old.insert("expires_at".into(), (now_ms() + life).into());
        self.put("tokens.json", &tokens);
        Some(self.access())
    }
}

/// A process that lives until it is dropped.
pub(super) struct Alive(Child);

impl Alive {
    pub(super) fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The id of a process that has ended.
pub(super) fn dead() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[allow(
    clippy::disallowed_methods,
    reason = "the other program reads the clock as it likes"
)]
pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}
