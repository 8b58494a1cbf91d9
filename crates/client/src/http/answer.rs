//! Reads an answer, with its limit.

use http::HeaderMap;
use pilotlight_core::{
    error::NetworkFault,
    exchange::{BODY_LIMIT, Fault, Reply},
    time::Now,
};
use zeroize::Zeroizing;

use super::classify::Ended;

/// Reads an answer whole, up to the limit (T-14).
pub(super) async fn read(mut response: reqwest::Response, sent_at: Now) -> Result<Reply, Ended> {
    let too_large = || Ended::after(Fault::Network(NetworkFault::TooLarge));
    let announced = response
        .content_length()
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or(0);
    if announced > BODY_LIMIT {
        return Err(too_large());
    }
    let status = response.status().as_u16();
    let headers: HeaderMap = std::mem::take(response.headers_mut());
    let mut body = Zeroizing::new(Vec::with_capacity(announced.max(4096)));
    while let Some(chunk) = response.chunk().await.map_err(Ended::reading)? {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(too_large());
        }
        append(&mut body, &chunk);
    }
    Ok(Reply {
        status,
        headers,
        body,
        sent_at,
    })
}

/// Appends without ever leaving an unwiped copy behind, as a growing vector would.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = body.len() + chunk.len();
    if needed > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * body.capacity())));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}
