use super::*;

fn settings(flags: &Global, variables: &[(&str, &str)]) -> Result<Settings, Error> {
    Settings::resolve(flags, Environment::made_up(variables))
}

fn shown(setting: &Setting<PathBuf>) -> (String, Origin) {
    (setting.value.display().to_string(), setting.from)
}

#[test]
fn places_follow_xdg_and_the_key_lies_apart_from_the_data() {
    let set = settings(
        &Global::default(),
        &[
            ("HOME", "/home/a"),
            ("XDG_DATA_HOME", "/data"),
            ("XDG_STATE_HOME", "relative"),
        ],
    )
    .unwrap();
    assert_eq!(
        shown(&set.config_file),
        (
            "/home/a/.config/pilotlight/config.toml".into(),
            Origin::Default
        )
    );
    assert_eq!(
        shown(&set.store),
        ("/data/pilotlight".into(), Origin::Variable("XDG_DATA_HOME"))
    );
    assert_eq!(
        shown(&set.key_file),
        (
            "/home/a/.local/state/pilotlight/store.key".into(),
            Origin::Default
        )
    );
}

#[test]
fn one_variable_moves_everything() {
    let set = settings(
        &Global::default(),
        &[
            ("HOME", "/home/a"),
            ("PILOTLIGHT_HOME", "/p"),
            ("XDG_DATA_HOME", "/data"),
        ],
    )
    .unwrap();
    let home = Origin::Variable("PILOTLIGHT_HOME");
    assert_eq!(shown(&set.config_file), ("/p/config.toml".into(), home));
    assert_eq!(shown(&set.store), ("/p/data".into(), home));
    assert_eq!(shown(&set.key_file), ("/p/state/store.key".into(), home));
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(
        &file,
        "store = \"from-file\"\naccount = \"f\"\nno_interactive = false\n",
    )
    .unwrap();
    let config = file.display().to_string();
    let base = [
        ("HOME", "/h"),
        ("PILOTLIGHT_CONFIG", config.as_str()),
        ("CI", "true"),
    ];

    let set = settings(&Global::default(), &base).unwrap();
    assert_eq!(
        shown(&set.store),
        (
            folder.path().join("from-file").display().to_string(),
            Origin::File
        )
    );
    assert_eq!(
        set.no_interactive,
        Setting {
            value: false,
            from: Origin::File
        },
        "the file outranks CI"
    );

    let with = [
        base.as_slice(),
        &[("PILOTLIGHT_STORE", "/env"), ("PILOTLIGHT_ACCOUNT", "e")],
    ]
    .concat();
    let set = settings(&Global::default(), &with).unwrap();
    assert_eq!(
        shown(&set.store),
        ("/env".into(), Origin::Variable("PILOTLIGHT_STORE"))
    );
    assert_eq!(set.account.unwrap().value.as_str(), "e");

    let flags = Global {
        store: Some("/flag".into()),
        account: Some("g".into()),
        ..Global::default()
    };
    let set = settings(&flags, &with).unwrap();
    assert_eq!(shown(&set.store), ("/flag".into(), Origin::Flag("--store")));
    assert_eq!(set.account.unwrap().value.as_str(), "g");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let flags = Global {
        config: Some("/does/not/exist.toml".into()),
        ..Global::default()
    };
    assert_eq!(
        settings(&flags, &[("HOME", "/h")]).unwrap_err().code(),
        "config.value"
    );
    assert!(settings(&Global::default(), &[("HOME", "/h")]).is_ok());
}

#[test]
fn ci_implies_no_interactive() {
    let of = |value| {
        settings(&Global::default(), &[("HOME", "/h"), ("CI", value)])
            .unwrap()
            .no_interactive
            .value
    };
    assert!(of("true") && of("1"));
    assert!(!of("") && !of("false"));
}

#[test]
fn without_a_home_the_error_says_what_to_set() {
    let error = settings(&Global::default(), &[]).unwrap_err();
    assert!(error.to_string().contains("PILOTLIGHT_HOME"), "{error}");
}

/// T-41: the upper-case name can be set by a web request through CGI, so it is not believed.
#[test]
fn proxies_are_read_as_others_read_them() {
    let proxy = |variables: &[(&str, &str)]| {
        let all = [&[("HOME", "/h")], variables].concat();
        settings(&Global::default(), &all).unwrap().proxy.value
    };
    assert_eq!(proxy(&[("HTTP_PROXY", "http://evil.example")]), Proxy::None);
    let Proxy::Explicit {
        https,
        http,
        no_proxy,
    } = proxy(&[("HTTPS_PROXY", "proxy.corp:3128"), ("NO_PROXY", ".corp")])
    else {
        panic!("a proxy")
    };
    assert_eq!(
        (https.unwrap().as_str(), http, no_proxy.as_str()),
        ("http://proxy.corp:3128/", None, ".corp")
    );
}
