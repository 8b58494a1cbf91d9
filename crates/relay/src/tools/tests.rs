use proptest::prelude::*;

use super::*;

fn list(tools: &str) -> Message {
    let text = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"x\":1.0,\"tools\" : {tools}, \"ttlMs\":5}}}}"
    );
    Message::read(Bytes::from(text)).unwrap()
}

fn tool(name: &str, properties: &str) -> String {
    format!(
        r#"{{ "name":"{name}","z":1.0,"inputSchema":{{"type":"object","properties":{properties}}}}}"#
    )
}

/// TR-06: what a tool wants is remembered, nested arguments too, and forgotten when a whole list no longer says it.
#[test]
fn wishes_are_remembered_until_a_list_lacks_them() {
    let mut tools = Tools::default();
    let wants = tool(
        "a",
        r#"{"r":{"type":"string","x-mcp-header":"Region"},"o":{"type":"object","properties":
           {"n":{"type":"integer","x-mcp-header":"N"}}},"d":{"default":{"x-mcp-header":""}}}"#,
    );
    let listed = tools.list(&list(&format!("[{wants},{}]", tool("b", "{}"))), true, true);
    assert!(listed.hidden.is_empty());
    let found: Vec<_> = tools
        .mirrors("a")
        .iter()
        .map(|mirror| (mirror.header.as_str(), mirror.path.join(".")))
        .collect();
    assert_eq!(
        found,
        [
            ("mcp-param-n", "o.n".to_owned()),
            ("mcp-param-region", "r".to_owned())
        ]
    );
    assert!(tools.mirrors("b").is_empty());
    let page = list("[]").edit().result("nextCursor", "\"2\"").finish();
    let _ = tools.list(&Message::read(page).unwrap(), true, true);
    assert_eq!(tools.mirrors("a").len(), 2, "a page is no whole list");
    let _ = tools.list(&list("[]"), false, true);
    assert!(tools.mirrors("a").is_empty());
}

/// TR-08: a tool that marks its arguments wrongly is hidden, with the reason; the others stay as they were, byte for byte.
#[test]
fn tools_with_wrong_marks_are_hidden_and_no_others() {
    let string = |mark: &str| format!(r#"{{"p":{{"type":"string","x-mcp-header":{mark}}}}}"#);
    let typed = |kind: &str| format!(r#"{{"p":{{"type":{kind},"x-mcp-header":"P"}}}}"#);
    let inner = r#"{"type":"object","properties":{"q":{"type":"string","x-mcp-header":"Q"}}}"#;
    let type_ = || Invalid::Type("P".to_owned());
    for (properties, why) in [
        (string("\"\""), Invalid::Empty),
        (string("7"), Invalid::Empty),
        (string("\"a b\""), Invalid::NotAToken("a b".to_owned())),
        (string("\"a\\r\\nb\""), Invalid::NotAToken("a\r\nb".to_owned())),
        (string("\"é\""), Invalid::NotAToken("é".to_owned())),
        (typed("\"number\""), type_()),
        (typed("\"object\""), type_()),
        (typed("[\"string\",\"null\"]"), type_()),
        (typed("null"), type_()),
        (
            r#"{"p":{"type":"string","x-mcp-header":"A"},"q":{"type":"string","x-mcp-header":"a"}}"#.to_owned(),
            Invalid::Duplicate("a".to_owned()),
        ),
        (format!(r#"{{"p":{{"type":"array","items":{inner}}}}}"#), Invalid::Unreachable),
        (format!(r#"{{"p":{{"anyOf":[{{}},{inner}]}}}}"#), Invalid::Unreachable),
        (format!(r#"{{"p":{{"$defs":{{"x":{inner}}}}}}}"#), Invalid::Unreachable),
        (format!(r#"{{"p":{{"x-mcp-h\u0065ader":"P","type":"number","d":{inner}}}}}"#), type_()),
    ] {
        let (good, last) = (tool("good", "{ }"), tool("last", &string("\"L\"")));
        let mut tools = Tools::default();
        let listed = tools.list(&list(&format!("[ {good} ,{}, {last}]", tool("bad", &properties))), true, true);
        assert_eq!(listed.hidden, [Hidden { name: "bad".to_owned(), why: why.into() }], "{properties}");
        assert_eq!(listed.raw, list(&format!("[{good},{last}]")).raw());
        assert_eq!(tools.mirrors("last").len(), 1);
        let old = Tools::default().list(&list(&format!("[{}]", tool("bad", &properties))), true, false);
        assert!(old.hidden.is_empty(), "nobody sends headers to an old server");
    }
    let root = r#"[{"name":"bad","inputSchema":{"x-mcp-header":"R"}}]"#;
    assert_eq!(
        Tools::default().list(&list(root), true, true).hidden.len(),
        1
    );
    let deep = format!(
        "{{\"p\":{}7{}}}",
        "{\"properties\":".repeat(200),
        "}".repeat(200)
    );
    let hidden = |schema: &str| {
        Tools::default()
            .list(&list(&format!("[{}]", tool("t", schema))), true, true)
            .hidden
            .len()
    };
    assert_eq!(hidden(&deep), 0, "nothing is marked");
    assert_eq!(
        hidden(&deep.replace('7', r#"{"x-mcp-header":"P"}"#)),
        1,
        "nobody knows what is marked"
    );
}

/// TR-06, T-14: a list of any size is remembered up to a bound.
#[test]
fn what_is_remembered_is_bounded() {
    let all: Vec<_> = (0..5000)
        .map(|n| {
            tool(
                &format!("t{n}"),
                r#"{"p":{"type":"string","x-mcp-header":"P"}}"#,
            )
        })
        .collect();
    let mut tools = Tools::default();
    let _ = tools.list(&list(&format!("[{}]", all.join(","))), true, true);
    assert_eq!((tools.mirrors.len(), tools.count), (MAX_TOOLS, MAX_TOOLS));
    let _ = tools.list(&list(&format!("[{}]", all[4500..].join(","))), true, true);
    assert_eq!(
        (
            tools.mirrors.len(),
            tools.count,
            tools.mirrors("t4999").len()
        ),
        (500, 500, 1)
    );
}

/// TR-06: `--ignore-tool` hides what its patterns say, in lists of either era, and says so of calls.
#[test]
fn ignored_tools_are_hidden_in_both_eras() {
    let patterns = [
        "delete*".to_owned(),
        "*_ADMIN".to_owned(),
        "a*b*c".to_owned(),
        "exact".to_owned(),
    ];
    let mut tools = Tools::new(&patterns);
    for (name, ignored) in [
        ("delete", true),
        ("Delete_All", true),
        ("undelete", false),
        ("x_admin", true),
        ("aXbXc", true),
        ("abbc", true),
        ("acb", false),
        ("exact", true),
        ("exactly", false),
    ] {
        assert_eq!(tools.ignored(name), ignored, "{name}");
    }
    for stateless in [true, false] {
        let listed = tools.list(
            &list(&format!(
                "[{},{}]",
                tool("deleteX", "{}"),
                tool("keep", "{}")
            )),
            true,
            stateless,
        );
        assert_eq!(listed.raw, list(&format!("[{}]", tool("keep", "{}"))).raw());
        assert_eq!(
            listed.hidden,
            [Hidden {
                name: "deleteX".to_owned(),
                why: Why::Ignored
            }]
        );
    }
    let none = list("7");
    assert_eq!(tools.list(&none, true, true).raw, none.raw());
}

proptest! {
    /// TR-06: patterns match as a slow reader of them matches.
    #[test]
    fn patterns_match_as_a_slow_reader_matches(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
        fn slow(pattern: &[u8], name: &[u8]) -> bool {
            match pattern.split_first() {
                None => name.is_empty(),
                Some((b'*', rest)) => (0..=name.len()).any(|at| slow(rest, &name[at..])),
                Some((char, rest)) => name.first() == Some(char) && slow(rest, &name[1..]),
            }
        }
        prop_assert_eq!(matches(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()));
    }
}
