//! The endpoint that a server of 2024-11-05 names for its messages: the token goes there too, so it is looked at first.

use std::sync::Arc;

use pilotlight::{
    Error, Sessions,
    clock::SystemClock,
    core::{credential::Account, resource::Resource},
    store::MemoryStore,
};

/// AUTH-82, TR-52: an endpoint that the token may not go to is the server's fault, with the reason; one beside its URL is taken.
#[tokio::test]
async fn an_endpoint_is_taken_only_within_the_servers_origin() {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let sessions = Sessions::builder(store).open().unwrap();
    let url = Resource::parse("https://mcp.example/sse").unwrap();
    let session = sessions.open(&url, &Account::default()).await.unwrap();
    let long = format!("https://mcp.example/{}", "m".repeat(70_000));
    let origin = "it is of another origin than the server";
    let user = "there is a user name or a password in it";
    for (endpoint, why) in [
        ("https://evil.example/messages", Some(origin)),
        ("http://mcp.example/messages", Some(origin)),
        ("https://mcp.example:8443/messages", Some(origin)),
        ("data:text/plain,x", Some(origin)),
        ("https://somebody@mcp.example/messages", Some(user)),
        ("https://:secret@mcp.example/messages", Some(user)),
        (long.as_str(), Some("it is no URL that can be requested")),
        ("https://mcp.example/messages?session=1", None),
    ] {
        let want = why.map(|why| Error::MetadataInvalid {
            document: "HTTP+SSE stream",
            field: "endpoint",
            why,
        });
        let taken = session.at(&endpoint.parse().unwrap());
        assert_eq!(taken.err(), want, "{:.60}", endpoint);
    }
}
