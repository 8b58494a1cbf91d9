//! Scopes at a refresh: most issuers want none named (RFC 6749 section 6), some want them, and some refuse what others want.
//! One that refuses the one form is asked once in the other.

use crate::{
    attempt::Label, error::Error, flow::Turn, quirks::Quirk, record::Backoff, scope::Scopes,
    time::Now,
};

use super::{Call, Refresh};

impl Refresh {
    /// An OAuth error that is no verdict on the grant: nothing was spent. Where it is about what was asked, the issuer is asked
    /// once more, the other way, under the same rules as any other call: noted first, counted, in time.
    pub(super) fn refused_as_asked(
        self,
        mut call: Box<Call>,
        error: String,
        now: Now,
    ) -> Turn<Self> {
        if !self.may_ask_otherwise(&call, &error, now) {
            return self.back_off(*call, Error::refused(error), None, now);
        }
        call.names_scopes = !call.names_scopes;
        call.asked_otherwise = true;
        if call.attempt.label.is_some() {
            // Something may have been delivered before: what follows a repeat stays inside its window.
            call.repeat_as_labelled();
        } else {
            // Nothing that the issuer acted on has left yet: this is the first call.
            call.attempt.number += 1;
            call.attempt.first_sent_at = now;
            call.window_from = now;
        }
        call.attempt.sent_at = now;
        call.failed = Some(Error::refused(error));
        self.note(*call)
    }

    fn may_ask_otherwise(&self, call: &Call, error: &str, now: Now) -> bool {
        let about_scopes = matches!(error, "invalid_scope" | "invalid_request");
        let probes = call.attempt.label == Some(Label::ProbeSuspect);
        let spare = Backoff::spares(call.record.backoff.as_ref(), call.sent, now);
        about_scopes
            && !call.asked_otherwise
            && !probes
            && !self.early
            && spare
            && call.scopes().is_some()
    }
}

impl Call {
    /// What a refresh names that names its scopes: those granted, never more.
    pub(super) fn scopes(&self) -> Option<&Scopes> {
        Some(&self.credential.scopes_granted).filter(|scopes| !scopes.is_empty())
    }

    /// What a call has taught that worked although the one before it was refused.
    pub(super) fn otherwise(&self) -> Option<Quirk> {
        self.asked_otherwise.then_some(if self.names_scopes {
            Quirk::ScopesAtRefresh
        } else {
            Quirk::NoScopesAtRefresh
        })
    }
}
