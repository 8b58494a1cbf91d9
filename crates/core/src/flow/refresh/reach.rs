//! While calls must pause and somebody waits: a look at whether the issuer can be reached. When it has come back, one call
//! is made before its time (F-12).

use crate::{
    error::Error,
    exchange::{Exchange, Exchanged, Leg},
    flow::{Act, Reading, Turn},
    record::{Backoff, Fact, Record},
    time::Now,
};

use super::{Outcome, Refresh, State, ending::Then};

impl Refresh {
    /// Calls pause. Who waits looks whether anything answers where the pinned issuer has its metadata.
    pub(super) fn pauses(
        self,
        fence: u64,
        reading: Reading,
        error: Error,
        looks: bool,
    ) -> Turn<Self> {
        let mut urls = self.task.key.issuer.metadata_urls().into_iter();
        let Some(url) = urls.next().filter(|_| looks) else {
            return self.stop(reading, Err(error));
        };
        let exchange = Exchange::get(Leg::Reach, url, "issuer");
        let reading = Box::new(reading);
        self.next(
            State::ExpectIssuer { fence, reading },
            Act::Send(Box::new(exchange)),
        )
    }

    /// Any answer but a 5xx shows that the issuer is there.
    pub(super) fn looked(
        mut self,
        fence: u64,
        mut reading: Reading,
        exchanged: &Exchanged,
        now: Now,
    ) -> Turn<Self> {
        let reachable = exchanged.as_ref().is_ok_and(|reply| reply.status < 500);
        let known = reading
            .record
            .as_mut()
            .and_then(|record| record.backoff.take());
        let Some((backoff, back)) = known.map(|known| known.looked(reachable, now)) else {
            return self.decide(fence, reading, true, now);
        };
        if back {
            self.early = true;
            if let Some(record) = &mut reading.record {
                record.backoff = Some(backoff);
            }
            return self.decide(fence, reading, true, now);
        }
        self.pauses_on(reading, backoff, now)
    }

    fn pauses_on(self, reading: Reading, backoff: Backoff, now: Now) -> Turn<Self> {
        let error = Error::BackingOff {
            code: backoff.code.clone(),
            retry_after: backoff.binds(now).unwrap_or_default(),
        };
        let facts = vec![Fact::Backoff(Some(backoff))];
        let mut record = reading.record.unwrap_or_default();
        record.apply(&facts);
        let Some(version) = Record::version(&record) else {
            return self.unlock(Outcome::unread(error));
        };
        let outcome = Outcome::known(record, reading.notes, Err(error));
        self.facts(outcome, version, facts, None, Then::Unlock)
    }
}
