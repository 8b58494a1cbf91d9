use clap::Parser as _;

use super::*;
use crate::{
    args::{Cli, Command, Login},
    config::file::parse,
};

fn server(keys: &str) -> Result<Grant, Error> {
    let text = format!("[servers.x]\nurl = \"https://x.example/mcp\"\n{keys}");
    let file = parse(&text, "config.toml", Some(Path::new("/etc/pilotlight")))?;
    Ok(file.servers[0].grant.clone())
}

fn refused(keys: &str) -> String {
    let grant = server(keys).and_then(|grant| grant.unattended());
    grant.unwrap_err().to_string()
}

fn flags(args: &[&str]) -> Login {
    let all = [&["pilotlight", "login", "x"], args].concat();
    match Cli::try_parse_from(all).unwrap().command {
        Command::Login(login) => *login,
        other => panic!("{other:?}"),
    }
}

const ENTERPRISE: &str = r#"
    idp_issuer = "https://idp.example"
    idp_token_endpoint = "https://idp.example/token"
    idp_client_id = "at-idp"
    idp_client_secret = "env:IDP_SECRET"
    subject_token = "file:/run/id-token"
"#;

/// EXT-10, EXT-20, EXT-40: each grant is read, named or told by its keys; a path counts from the folder of the file, since
/// whoever renews the login stands elsewhere.
#[test]
fn each_grant_is_read() {
    let service = server("grant = \"client_credentials\"\nclient_key = \"file:key.pem\"\nclient_key_algorithm = \"ES256\"\nclient_key_id = \"k1\"").unwrap();
    assert_eq!(
        service.unattended(),
        Ok(Some(Unattended::ClientCredentials))
    );
    let key = service.key().unwrap();
    assert_eq!(key.reference.to_string(), "file:/etc/pilotlight/key.pem");
    assert_eq!(key.algorithm, Some(JwsAlgorithm::Es256));
    assert_eq!(key.key_id.as_deref(), Some("k1"));

    for named in ["", "grant = \"workload\"\n"] {
        let job = server(&format!("{named}workload_token = \"file:/run/token\"")).unwrap();
        let token = SecretRef::file("/run/token").unwrap();
        assert_eq!(job.unattended(), Ok(Some(Unattended::Workload { token })));
    }

    let Ok(Some(Unattended::Enterprise(idp))) = server(ENTERPRISE).unwrap().unattended() else {
        panic!("the enterprise's grant")
    };
    assert_eq!(idp.issuer.as_str(), "https://idp.example");
    assert_eq!(idp.client.authentication, ClientAuthentication::Basic);
    assert_eq!(idp.client.secret, None, "read at each use");
    assert_eq!(idp.subject_type, ID_TOKEN);
    let saml = server(&format!("{ENTERPRISE}subject_token_type = \"saml2\"")).unwrap();
    assert_eq!(saml.subject_token_type, Some(SAML2));

    assert_eq!(server("client_id = \"a\"").unwrap().unattended(), Ok(None));
}

/// T-28: what is missing, or one too many, is named; what may be a secret is not repeated.
#[test]
fn what_cannot_be_is_named() {
    for (keys, said) in [
        (
            "grant = \"password\"",
            "grant: write client_credentials, workload or enterprise",
        ),
        (
            "grant = \"workload\"",
            "workload_token: grant = \"workload\" needs it (--workload-token)",
        ),
        (
            "subject_token = \"file:/x\"",
            "idp_client_id: grant = \"enterprise\" needs it (--idp-client-id)",
        ),
        (
            "grant = \"client_credentials\"\nworkload_token = \"file:/x\"",
            "workload_token: only grant = \"workload\" takes one",
        ),
        (
            "grant = \"workload\"\nworkload_token = \"file:/x\"\nidp_client_id = \"a\"",
            "only grant = \"enterprise\"",
        ),
        (
            "client_key_algorithm = \"HS256\"",
            "write ES256, RS256 or EdDSA",
        ),
        (
            "idp_issuer = \"http://idp.example\"",
            "it is no issuer identifier",
        ),
        ("subject_token_type = \"jwt\"", "write id_token or saml2"),
        (
            "work_load_token = \"file:/x\"",
            "the nearest is workload_token",
        ),
        ("grant = 3", "it must be a text"),
    ] {
        let told = refused(keys);
        assert!(told.contains(said), "{keys}: {told}");
    }
    for key in [
        "client_key",
        "workload_token",
        "idp_client_secret",
        "subject_token",
        "client_secret",
    ] {
        for secret in [
            "hunter2canary",
            "canary:x",
            "fd:canary",
            "-----BEGIN canary",
        ] {
            let told = refused(&format!("{key} = \"{secret}\""));
            assert!(told.contains(key) && told.contains("file:PATH"), "{told}");
            assert!(!told.contains("canary"), "{told}");
        }
    }
}

/// A flag counts for more than the file, key by key; a key that is another's algorithm is not its own.
#[test]
fn flags_outrank_the_file() {
    let file = server(
        "grant = \"client_credentials\"\nclient_key = \"file:/old\"\nclient_key_id = \"old\"",
    )
    .unwrap();
    let login = flags(&["--client-key", "env:KEY"]);
    let both = login.grant.settings().unwrap().or(file.clone());
    let key = both.key().unwrap();
    assert_eq!((key.reference.scheme(), key.key_id), ("env", None));
    assert_eq!(both.unattended(), Ok(Some(Unattended::ClientCredentials)));
    assert_eq!(
        GrantFlags::default().settings().unwrap().or(file.clone()),
        file
    );

    let login = flags(&["--workload-token", "hunter2canary"]);
    let told = login.grant.settings().unwrap_err().to_string();
    assert!(
        told.starts_with("--workload-token") && !told.contains("canary"),
        "{told}"
    );
    let relative = flags(&["--workload-token", "file:token"]);
    let token = relative.grant.settings().unwrap().workload_token.unwrap();
    assert!(Path::new(token.rest()).is_absolute());
}

/// The guide's settings are settings, and its commands are commands.
#[test]
fn the_guide_shows_what_works() {
    let guide = include_str!("../../../../../docs/guides/unattended.md");
    let blocks = |kind: &str| -> Vec<String> {
        let opening = format!("```{kind}\n");
        let parts = guide.split(&opening).skip(1);
        parts
            .map(|part| part.split("```").next().unwrap_or_default().to_owned())
            .collect()
    };
    let settings = blocks("toml");
    assert!(settings.len() >= 4);
    for text in settings {
        let file = parse(&text, "guide", Some(Path::new("/etc/pilotlight"))).unwrap();
        for server in file.servers {
            let grant = server.grant.unattended();
            assert!(matches!(grant, Ok(Some(_))), "{text}: {grant:?}");
            assert!(server.client_id.is_some(), "{text}");
        }
    }
    let mut commands = 0;
    for text in blocks("sh") {
        let text = text.replace("\\\n", " ");
        for line in text.lines().filter(|line| line.starts_with("pilotlight ")) {
            let words = line.split(" #").next().unwrap_or_default();
            let words = words.split_whitespace();
            let parsed = Cli::try_parse_from(words).map(|cli| cli.command);
            let command = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
            if let Command::Login(login) = command {
                login.grant.settings().unwrap().unattended().unwrap();
            }
            commands += 1;
        }
    }
    assert!(commands >= 4, "{commands}");
}
