use super::*;
use bytes::Bytes;
use proptest::prelude::*;

fn read(raw: &str) -> Message {
    Message::read(Bytes::copy_from_slice(raw.as_bytes())).unwrap()
}

fn mirror(header: &'static str, path: &[&str]) -> Mirror {
    Mirror {
        header: HeaderName::from_static(header),
        path: path.iter().map(|step| (*step).into()).collect(),
    }
}

/// TR-07: the examples of the specification, and what headers cannot hold.
#[test]
fn values_are_encoded_as_the_specification_says() {
    for (value, header) in [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("", "=?base64??="),
        ("a\tb", "=?base64?YQli?="),
        ("=?base64?half", "=?base64?half"),
        ("=?BASE64?x?=", "=?BASE64?x?="),
    ] {
        assert_eq!(encode(value), header);
        assert_eq!(
            decode(&HeaderValue::from_str(header).unwrap()).unwrap(),
            value
        );
    }
    assert_eq!(decode(&HeaderValue::from_static("=?base64?***?=")), None);
    assert_eq!(
        decode(&HeaderValue::from_static("=?base64?/w==?=")),
        None,
        "not UTF-8"
    );
}

/// TR-03, TR-05, TR-06: what a call says in its headers.
#[test]
fn a_call_says_its_method_name_and_arguments() {
    let message = read(
        r#"{"id":1,"method":"tools/call","params":{"name":"caf\u00e9","arguments":{
           "region":"us\u002dwest1","limit":4.2e1,"dry":true,"none":null,"half":1.5,
           "big":9007199254740993,"deep":{"er":-7},"list":[1]}}}"#,
    );
    let mirrors = [
        mirror("mcp-param-region", &["region"]),
        mirror("mcp-param-limit", &["limit"]),
        mirror("mcp-param-dry", &["dry"]),
        mirror("mcp-param-none", &["none"]),
        mirror("mcp-param-absent", &["absent"]),
        mirror("mcp-param-half", &["half"]),
        mirror("mcp-param-big", &["big"]),
        mirror("mcp-param-deep", &["deep", "er"]),
        mirror("mcp-param-list", &["list"]),
    ];
    let headers = of(&message, "2026-07-28", &mirrors).unwrap();
    let said: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(
        said,
        [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "=?base64?Y2Fmw6k=?="),
            ("mcp-param-region", "us-west1"),
            ("mcp-param-limit", "42"),
            ("mcp-param-dry", "true"),
            ("mcp-param-half", "1.5"),
            ("mcp-param-deep", "-7"),
        ]
    );
}

/// TR-05: a resource's name is its URI; a method without a name has no such header; an unspeakable method is not sent.
#[test]
fn only_named_methods_have_a_name() {
    let said = |raw| of(&read(raw), "2026-07-28", &[]).map(|headers| headers.len());
    assert_eq!(
        said(r#"{"id":1,"method":"resources/read","params":{"uri":"file:///a"}}"#),
        Ok(3)
    );
    assert_eq!(
        said(r#"{"id":1,"method":"tools/list","params":{"name":"x"}}"#),
        Ok(2)
    );
    assert_eq!(
        said(r#"{"id":1,"method":"a\r\nX-Evil: 1"}"#),
        Err(Mismatch::Method)
    );
    assert_eq!(said(r#"{"id":1,"method":"\ud800"}"#), Err(Mismatch::Method));
}

/// TR-03, TR-05, TR-06: a server that checks refuses what is missing, twice there, or different.
#[test]
fn headers_that_do_not_say_what_the_message_says_are_found() {
    let message = read(
        r#"{"id":1,"method":"tools/call","params":{"name":"a","arguments":{"n":42.0},
           "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
    );
    let mirrors = [mirror("mcp-param-n", &["n"])];
    let good: HeaderMap = of(&message, "2026-07-28", &mirrors)
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(check(&good, &message, &mirrors), Ok(()));
    for name in [
        MCP_PROTOCOL_VERSION,
        MCP_METHOD,
        MCP_NAME,
        mirrors[0].header.clone(),
    ] {
        let mut bad = good.clone();
        bad.remove(&name);
        assert_eq!(
            check(&bad, &message, &mirrors),
            Err(Mismatch::Missing(name.clone()))
        );
        bad.insert(&name, HeaderValue::from_static("other"));
        assert_eq!(
            check(&bad, &message, &mirrors),
            Err(Mismatch::Differs(name.clone()))
        );
        let mut twice = good.clone();
        twice.append(&name, good[&name].clone());
        assert_eq!(
            check(&twice, &message, &mirrors),
            Err(Mismatch::Differs(name))
        );
    }
    let other = read(r#"{"id":1,"method":"ping"}"#);
    let mut unasked: HeaderMap = of(&other, "x", &[]).unwrap().into_iter().collect();
    unasked.remove(MCP_PROTOCOL_VERSION);
    unasked.insert(MCP_NAME, HeaderValue::from_static("a"));
    assert_eq!(
        check(&unasked, &other, &[]),
        Err(Mismatch::Differs(MCP_NAME))
    );
}

proptest! {
    /// TR-07: what goes into a header comes out of it, whatever it is.
    #[test]
    fn whatever_goes_into_a_header_comes_out(value in any::<String>()) {
        let header = HeaderValue::from_str(&encode(&value)).unwrap();
        prop_assert_eq!(decode(&header).unwrap(), value);
    }

    /// TR-03, TR-05, TR-06: what the bridge writes, a strict server accepts.
    #[test]
    fn what_is_written_is_accepted(
        name in any::<String>(), text in any::<String>(), number in any::<i64>(), flag in any::<bool>()
    ) {
        let raw = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
            "name": name, "arguments": {"t": text, "n": number, "f": flag}}});
        let mirrors = [
            mirror("mcp-param-t", &["t"]), mirror("mcp-param-n", &["n"]), mirror("mcp-param-f", &["f"]),
        ];
        let message = read(&raw.to_string());
        let headers: HeaderMap = of(&message, "2026-07-28", &mirrors).unwrap().into_iter().collect();
        prop_assert_eq!(check(&headers, &message, &mirrors), Ok(()));
    }
}
