//! Logins without a person, as containers and pipelines make them: from `config.toml` or flags, in an empty home.

mod misconfigured;
mod moved;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilotlight_testkit::authorization_server::{
    Asked, ClientAuthentication, Platform, ProofRules, StaticClient,
};
use pilotlight_testkit::serve::{Bound, Loopback};
use pilotlight_testkit::{AuthorizationServer, AuthorizationServerConfig, Lab, LabConfig};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::support::{Home, Outcome, Run, read};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const SECRET: &str = "cs-canary:%/ 1";
const IDP_SECRET: &str = "idp-canary-1";
/// The private half of `Platform::new(9)`.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ\n-----END PRIVATE KEY-----\n";

/// An issuer where services get tokens, an identity provider, and an empty home with a `config.toml`.
struct Services {
    home: Home,
    lab: Lab,
    provider: Arc<Mutex<AuthorizationServer>>,
    provider_url: String,
    provider_runs: Option<Loopback>,
    runtime: Runtime,
}

impl Services {
    fn new(change: impl FnOnce(&mut LabConfig)) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = |id: &str, secret: Option<&str>| StaticClient {
            client_id: id.into(),
            client_secret: secret.map(Into::into),
            redirect_uris: Vec::new(),
        };
        let config = LabConfig::default().with(|lab| {
            let issuer = &mut lab.authorization_server;
            issuer.registration = false;
            issuer.grant_types = vec!["client_credentials".into(), JWT_BEARER.into()];
            issuer.token_endpoint_auth_methods = vec![
                ClientAuthentication::Basic,
                ClientAuthentication::None,
                ClientAuthentication::PrivateKeyJwt,
            ];
            issuer.clients = vec![
                client("service", Some(SECRET)),
                client("keyed", None),
                client("job", None),
            ];
            let keys = &mut issuer.client_keys;
            keys.insert("keyed".into(), Platform::new(9).public());
            issuer.believes = vec![Platform::new(7).public()];
            change(lab);
        });
        let clock = config.clock.clone();
        let lab = runtime.block_on(Lab::start(config)).unwrap();
        let bound = runtime.block_on(Bound::new(0)).unwrap();
        let provider_url = bound.origin();
        let config = AuthorizationServerConfig::default().with(|idp| {
            idp.grant_types = vec![TOKEN_EXCHANGE.into()];
            idp.vouches = Some(Platform::new(7));
            idp.clients = vec![client("at-idp", Some(IDP_SECRET))];
        });
        let server = AuthorizationServer::new(provider_url.clone(), config);
        let provider = Arc::new(Mutex::new(server));
        let serving = runtime.enter();
        let provider_runs = Some(bound.serve(Arc::clone(&provider), clock));
        drop(serving);
        let home = Home::new();
        fs::create_dir_all(home.data()).unwrap();
        Self {
            home,
            lab,
            provider,
            provider_url,
            provider_runs,
            runtime,
        }
    }

    /// Puts a file that only we can read beside `config.toml`, in one step.
    fn put(&self, name: &str, text: &str) {
        let (new, path) = (self.home.beside("new"), self.home.data().join(name));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    /// Writes the configuration of the one server, `tracker`.
    fn configure(&self, keys: &str) {
        let (url, issuer) = (self.lab.resource_url(), self.lab.issuer());
        self.put(
            "config.toml",
            &format!("[servers.tracker]\nurl = \"{url}\"\nissuer = \"{issuer}\"\n{keys}\n"),
        );
    }

    /// A service with a secret, configured.
    fn service(&self) {
        self.put("secret", &format!("{SECRET}\n"));
        self.configure("grant = \"client_credentials\"\nclient_id = \"service\"\nclient_secret = \"file:secret\"");
    }

    /// A workload, configured, with this token.
    fn workload(&self, token: &str) {
        self.put("token", token);
        self.configure(
            "grant = \"workload\"\nclient_id = \"job\"\nworkload_token = \"file:token\"",
        );
    }

    /// A person of an enterprise, configured.
    fn enterprise(&self, identity: &str) {
        self.put("secret", SECRET);
        self.put("idp-secret", IDP_SECRET);
        self.put("identity", identity);
        let idp = &self.provider_url;
        self.configure(&format!(
            "client_id = \"service\"\nclient_secret = \"file:secret\"\nidp_issuer = \"{idp}\"\nidp_token_endpoint = \"{idp}/token\"\nidp_client_id = \"at-idp\"\nidp_client_secret = \"file:idp-secret\"\nsubject_token = \"file:identity\"",
        ));
    }

    /// A workload's token for this issuer, which ends in so many seconds of the issuer's clock.
    fn job(&self, ends_in: i64) -> String {
        self.job_for(self.lab.issuer(), ends_in)
    }

    fn job_for(&self, audience: &str, ends_in: i64) -> String {
        let end = (self.lab.clock().now_ms() / 1000).checked_add_signed(ends_in);
        let claims = json!({ "sub": "job", "aud": audience, "exp": end.unwrap() });
        Platform::new(7).token(&claims)
    }

    fn asked(&self) -> Vec<Asked> {
        self.lab.with_issuer(|issuer| issuer.asked().to_vec())
    }

    fn run(&self, args: &[&str]) -> Run {
        self.home.pilotlight(args).env("CI", "true")
    }

    fn call(&self) -> Run {
        self.run(&["call", "tracker", "whoami", "--json"])
    }

    fn fails(&self, exit: i32, code: &str) -> serde_json::Value {
        self.call().run().refused(exit, code)
    }

    /// The token, whole: the leak check does not see it.
    fn token(&self, more: &[&str]) -> Outcome {
        self.run(&["token", "tracker"]).with(more).reveals().run()
    }

    /// What every test ends with: nothing that was shown is to be found in what was printed or stored.
    fn assert_no_leak(&self, more: &[&str]) {
        let mut secrets = self
            .lab
            .with_issuer(|issuer| issuer.issued_secrets().to_vec());
        secrets.extend([SECRET, IDP_SECRET].map(str::to_owned));
        secrets.extend(more.iter().map(|secret| (*secret).to_owned()));
        // They lie where they were put; that is not our doing.
        for name in ["secret", "idp-secret", "identity", "token", "key.pem"] {
            let _ = fs::remove_file(self.home.data().join(name));
        }
        self.home.assert_no_leak(&secrets);
    }
}

fn text<'a>(value: &'a serde_json::Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// EXT-01, EXT-10, I-9: in an empty home with a `config.toml`, eight commands at once need no `login`: one of them makes the
/// grant, all of them get through. `status`, `list` and `why` say which grant it is, and the secret is nowhere.
#[test]
fn commands_make_the_first_grant_themselves_and_once() {
    let services = Services::new(|_| {});
    services.service();
    let running: Vec<_> = (0..8).map(|_| services.call().start()).collect();
    for process in running {
        process.wait().ok();
    }
    let asked = services.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].grant_type, "client_credentials");
    assert_eq!(
        asked[0].resource.as_deref(),
        Some(services.lab.resource_url())
    );
    services.run(&["tools", "tracker"]).run().ok();
    let told = services.token(&["--json"]).ok().json();
    assert_eq!(told["token_type"], "Bearer");
    assert_eq!(services.asked().len(), 1, "all by the same login");

    let session = services.home.session();
    let shown = (
        text(&session, "name"),
        text(&session, "state"),
        text(&session, "grant"),
    );
    assert_eq!(shown, ("tracker", "ok", "client_credentials"));
    let list = services.run(&["list"]).run().ok();
    assert!(
        list.stdout.contains("client_credentials"),
        "{}",
        list.stdout
    );
    let why = services.run(&["why", "tracker"]).run().ok();
    assert!(
        why.stdout
            .contains("the grant client_credentials is made again"),
        "{}",
        why.stdout
    );
    let why = services.run(&["why", "tracker", "--json"]).run().ok();
    assert_eq!(why.json()["grant"], "client_credentials");
    services.assert_no_leak(&[]);
}

/// EXT-10: after its end the next process makes the grant again, and so it does after a logout: the configuration stands.
#[test]
fn a_grant_is_made_again_after_the_end_and_after_a_logout() {
    let services = Services::new(|_| {});
    services.service();
    services.call().run().ok();
    services.lab.clock().advance(Duration::from_secs(3700));
    services.call().run().ok();
    // The issuer says the token is over; the machine's own clock does not know yet.
    assert_eq!(services.asked().len(), 2);
    services.run(&["refresh", "tracker", "--force"]).run().ok();
    assert_eq!(services.asked().len(), 3);
    services.run(&["logout", "tracker"]).run().ok();
    services.call().run().ok();
    assert_eq!(services.asked().len(), 4);
    assert!(services.asked().iter().all(|asked| asked.granted));
    services.assert_no_leak(&[]);
}

/// EXT-10, EXT-11, AUTH-34: the same from flags alone, with a key: `login` asks nobody, and later processes sign with the key
/// where it lies, wherever they stand.
#[test]
fn a_login_by_flags_signs_with_the_key_where_it_lies() {
    let services = Services::new(|_| {});
    let keys = services.home.beside("keys");
    fs::create_dir(&keys).unwrap();
    let key = keys.join("service.pem");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let reference = format!("file:{}", key.display());
    let url = services.lab.resource_url().to_owned();
    let login = services.run(&[
        "login",
        &url,
        "--name",
        "tracker",
        "--grant",
        "client_credentials",
        "--client-id",
        "keyed",
        "--client-key",
        &reference,
        "--client-key-algorithm",
        "EdDSA",
        "--client-key-id",
        "k1",
        "--json",
    ]);
    let told = login.run().ok().json();
    assert_eq!(told["login"]["grant"], "client_credentials");
    services.call().run().ok();
    services.run(&["refresh", "tracker", "--force"]).run().ok();
    assert!(services.asked().iter().all(|asked| asked.granted));
    assert_eq!(services.asked().len(), 2, "a replay would be refused");
    services.assert_no_leak(&["MC4CAQAwBQYDK2VwBCIEIAkJ"]);
}

/// EXT-40: a pod's token is read at each renewal, from a link that the platform moves; a pipeline's comes from a variable.
#[test]
fn a_workload_shows_the_token_of_the_day() {
    let services = Services::new(|_| {});
    services.workload(&services.job(600));
    services.call().run().ok();
    let second = services.job(1200);
    services.put("second", &second);
    let link = services.home.data().join("token");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(Path::new("second"), &link).unwrap();
    services.run(&["refresh", "tracker", "--force"]).run().ok();
    let shown: Vec<_> = services
        .asked()
        .into_iter()
        .map(|asked| asked.shown)
        .collect();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[1], Some(pilotlight_testkit::fingerprint(&second)));

    services.configure("workload_token = \"env:ID_TOKEN\"\nclient_id = \"job\"");
    services.run(&["logout", "tracker"]).run().ok();
    services.fails(2, "config.value");
    let third = services.job(1800);
    services.call().env("ID_TOKEN", &third).run().ok();
    assert_eq!(services.home.session()["grant"], "workload");
    fs::remove_file(services.home.data().join("second")).unwrap();
    services.assert_no_leak(&[&second, &third]);
}

/// EXT-01, EXT-20, EXT-21: the identity goes to the provider, what it says to the issuer, and neither sees the other's.
#[test]
fn an_enterprise_vouches() {
    let services = Services::new(|_| {});
    let end = services.lab.clock().now_ms() / 1000 + 9000;
    let identity = Platform::new(7).token(&json!({ "sub": "alice", "aud": "at-idp", "exp": end }));
    services.enterprise(&identity);
    services.call().run().ok();
    let at_idp = services.provider.lock().unwrap().asked().to_vec();
    let shown = |asked: &[Asked]| {
        asked
            .iter()
            .map(|one| one.shown.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown(&at_idp),
        [Some(pilotlight_testkit::fingerprint(&identity))]
    );
    assert!(at_idp[0].granted && services.asked()[0].granted);
    assert_ne!(shown(&services.asked()), shown(&at_idp));
    assert_eq!(services.home.session()["grant"], "enterprise");
    services.assert_no_leak(&[&identity]);
}

/// EXT-30, EXT-32: where tokens are bound to a key, two headers are made for one request and no other: the server takes them
/// once. Without the request they are for, there is nothing that could be printed.
#[test]
fn headers_of_a_bound_token_are_for_one_request() {
    let services = Services::new(|lab| {
        lab.authorization_server.dpop = Some(ProofRules::default());
        lab.mcp_server.challenges_dpop = true;
    });
    services.service();
    let url = services.lab.resource_url();
    let headers = |more: &[&str]| services.token(&[&["--format", "headers"], more].concat());
    let refused = headers(&["--json"]).refused(2, "config.proof_needed");
    let hint = format!("pilotlight token tracker --format headers --for {url}");
    assert_eq!(text(&refused, "hint"), hint);
    let made = headers(&["--for", url, "--method", "POST"]).ok();
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    assert!(text(&made, "Authorization").starts_with("DPoP "), "{made}");
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let mut all = http::HeaderMap::new();
    for (name, value) in [
        ("authorization", text(&made, "Authorization")),
        ("dpop", text(&made, "DPoP")),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/list"),
    ] {
        all.insert(name, value.parse().unwrap());
    }
    let send = || {
        let sent =
            pilotlight_testkit::fetch::exchange(http::Method::POST, url, all.clone(), list.into());
        services.runtime.block_on(sent).unwrap().status
    };
    assert_eq!((send().as_u16(), send().as_u16()), (200, 401), "once");

    let elsewhere = headers(&["--for", "http://127.0.0.1:1/mcp", "--json"]);
    elsewhere.refused(2, "config.url");
    services
        .token(&["--for", url, "--format", "bare", "--json"])
        .refused(2, "config.value");
    let bare = services.token(&[]).ok();
    assert!(
        bare.stderr.contains("bound to a key (DPoP)"),
        "{}",
        bare.stderr
    );
    services.assert_no_leak(&[]);
}
