//! Where a server sends a request on to (T-23): followed within its own origin only, with method and body kept.

use http::{Method, Response, StatusCode, header::LOCATION};
use pilotlight::{Body, Session};
use pilotlight_core::resource::clean;
use url::Url;

use crate::refusal::Fault;

/// Where a message goes, and the session that may put the token on it there.
pub(crate) type Target = (Session, http::Uri);

/// The way of one request.
#[derive(Debug, Default)]
pub(crate) struct Way {
    at: Option<Target>,
    followed: u32,
}

impl Way {
    /// Where it has been led to; nothing at its beginning.
    pub(crate) fn at(&self) -> Option<Target> {
        self.at.clone()
    }

    /// Notes where an answer leads, and tells whether the request is to be sent there. A POST that would become a GET, as the
    /// older statuses are read, is not sent anywhere.
    pub(crate) fn leads_on(
        &mut self,
        session: &Session,
        method: &Method,
        from: &http::Uri,
        answer: &Response<Body>,
    ) -> Result<bool, Fault> {
        let follows = match answer.status() {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
                *method == Method::GET
            }
            _ => false,
        };
        let named = answer.headers().get(LOCATION);
        let named = named.and_then(|location| location.to_str().ok());
        let Some(named) = named.filter(|_| follows) else {
            return Ok(false);
        };
        let url = Url::parse(&from.to_string()).and_then(|from| from.join(named));
        let Ok(mut url) = url else {
            return Err(Fault::Redirected("what is no URL".to_owned()));
        };
        url.set_fragment(None);
        let elsewhere = || Fault::Redirected(clean(&url.origin().ascii_serialization()));
        if self.followed == MOST {
            return Err(elsewhere());
        }
        // The token goes to nobody but the origin that it is for.
        let session = session.at(&url).map_err(|_| elsewhere())?;
        let uri = url.as_str().parse().map_err(|_| elsewhere())?;
        self.followed += 1;
        self.at = Some((session, uri));
        Ok(true)
    }
}

const MOST: u32 = 3;
