//! People of an enterprise, whom its identity provider vouches for.

use pilotlight_testkit::serve::Loopback;

use super::*;

/// An identity provider on a socket of its own.
struct Idp {
    issuer: String,
    provider: Arc<Mutex<AuthorizationServer>>,
    _running: Loopback,
}

impl Idp {
    async fn new(services: &Services) -> Self {
        let bound = Bound::new(0).await.unwrap();
        let issuer = bound.origin();
        let config = AuthorizationServerConfig::default().with(|idp| {
            idp.grant_types = vec![TOKEN_EXCHANGE.into()];
            idp.vouches = Some(Platform::new(7));
            idp.clients = vec![StaticClient {
                client_id: "at-idp".into(),
                client_secret: None,
                redirect_uris: Vec::new(),
            }];
        });
        let provider = Arc::new(Mutex::new(AuthorizationServer::new(issuer.clone(), config)));
        let clock = services.world.lab.clock().clone();
        Self {
            issuer,
            _running: bound.serve(provider.clone(), clock),
            provider,
        }
    }

    /// Alice, as this platform knows her.
    fn identity(&self, services: &Services, platform: u8) -> String {
        Platform::new(platform).token(&json!({
            "sub": "alice", "aud": "at-idp", "exp": services.now() + 100_000,
        }))
    }

    /// A login as the person whose identity lies in the file.
    fn request(&self, services: &Services, identity: &str) -> LoginRequest {
        let mut client = Client::brought("service".into());
        client.secret_ref = Some(services.put("secret", SECRET));
        let grant = Unattended::Enterprise(Box::new(IdentityProvider::new(
            Issuer::parse(&self.issuer).unwrap(),
            format!("{}/token", self.issuer).parse().unwrap(),
            Client::brought("at-idp".into()),
            services.put("identity", identity),
        )));
        services.request(client, Some(grant))
    }

    fn asked(&self) -> Vec<Asked> {
        self.provider.lock().unwrap().asked().to_vec()
    }

    fn stands(&self, fault: Option<Fault>) {
        let mut provider = self.provider.lock().unwrap();
        provider.set_standing_fault(Endpoint::Token, fault);
    }
}

fn shown(asked: &[Asked]) -> Vec<String> {
    asked.iter().filter_map(|one| one.shown.clone()).collect()
}

/// EXT-20, EXT-21: a person of an enterprise: the identity goes to the identity provider, its assertion to the issuer. With the
/// provider down the token that works is served; afterwards the identity is exchanged once more.
#[tokio::test(flavor = "multi_thread")]
async fn an_enterprise_vouches_for_its_people() {
    let services = Services::new(trusting).await;
    let world = &services.world;
    let idp = Idp::new(&services).await;
    let identity = idp.identity(&services, 7);
    let process = services.process();
    let session = login(&process, idp.request(&services, &identity), world).await;
    served(&session, world).await;
    assert_eq!(shown(&idp.asked()), [fingerprint(&identity)]);
    assert_eq!(
        idp.asked()[0].resource.as_deref(),
        Some(world.lab.resource_url())
    );
    assert_ne!(
        shown(&services.asked()),
        shown(&idp.asked()),
        "the issuer never sees the identity"
    );

    idp.stands(Some(Fault::Status {
        status: 503,
        retry_after: None,
        body: None,
    }));
    world.advance(Duration::from_secs(57 * 60));
    process.ticked().await;
    for _ in 0..5 {
        served(&session, world).await;
        process.idle().await;
    }
    assert_eq!(services.asked().len(), 1);
    idp.stands(None);
    world.advance(MINUTE);
    process.ticked().await;
    renewed(&services, &process, &session, 2).await;
    assert_eq!(idp.asked().iter().filter(|asked| asked.granted).count(), 2);
}

/// EXT-41: an identity that its provider has refused at a login is shown to it by no other, in whichever process; the error says
/// that it has to be replaced, and another one is shown. Where it was the issuer that refused what the provider had made of it,
/// nothing is said against the identity.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_identity_is_not_shown_again() {
    let services = Services::new(trusting).await;
    let idp = Idp::new(&services).await;
    let stranger = idp.identity(&services, 8);
    let mut codes = Vec::new();
    for _ in 0..2 {
        let process = services.process();
        let request = idp.request(&services, &stranger);
        codes.push(process.sessions.login(request).await.unwrap_err().code());
    }
    assert_eq!(codes, ["denied.by_issuer", "config.assertion"]);
    assert_eq!(shown(&idp.asked()), [fingerprint(&stranger)]);

    let believe = |platform| {
        services.world.lab.with_issuer(|issuer| {
            issuer.config_mut().believes = vec![Platform::new(platform).public()];
        });
    };
    believe(8);
    let alice = idp.identity(&services, 7);
    let process = services.process();
    for _ in 0..2 {
        let request = idp.request(&services, &alice);
        let error = process.sessions.login(request).await.unwrap_err();
        assert_eq!(error.code(), "denied.by_issuer");
    }
    believe(7);
    let request = idp.request(&services, &alice);
    let session = login(&process, request, &services.world).await;
    served(&session, &services.world).await;
}
