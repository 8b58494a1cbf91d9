//! Known-bad programs, kept for ever: each does one thing wrong that a real client once did. The world must catch them all.

/// One way to be wrong. The simulated process differs from the real one in this and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Load, post, save; no lease, no second look, no note, and a failure deletes the login.
    Naive,
    /// The lease ends after ten seconds although the call goes on.
    ShortLease,
    /// Who waited twelve seconds for the lease refreshes without it.
    UnlockedFallback,
    /// The lease is taken, and the store is not read again.
    NoReread,
    /// Any failure of a refresh deletes the login.
    ClearOnError,
    /// The age of a token is judged by each process's own wall clock.
    LocalWallClock,
    /// A commit replaces whatever is there.
    UnconditionalPut,
    /// What the store refuses is kept nowhere else.
    NoSpool,
    /// What the spool holds is never looked at.
    SpoolNotReread,
    /// No attempt is noted before a call.
    NoAttemptNote,
    /// A refresh that comes after a login overwrites it.
    LoginLoses,
    /// The token endpoint is discovered anew at each refresh.
    DiscoveryAtRefresh,
    /// When a token was received is forgotten as it is saved.
    ReceivedTimeNotSaved,
    /// When a token was received is stored, and not taken from the store at start.
    ReceivedTimeNotSeeded,
    /// A refresh token that a response omits is dropped.
    OmittedTokenDropped,
    /// A 401 in flight is the end of the request.
    NoRetryOn401,
    /// Each start refreshes.
    RefreshAtConnect,
    /// No call whose answer was lost is ever repeated.
    NeverRepeats,
}

impl Variant {
    /// Every one.
    pub const ALL: [Self; 18] = [
        Self::Naive,
        Self::ShortLease,
        Self::UnlockedFallback,
        Self::NoReread,
        Self::ClearOnError,
        Self::LocalWallClock,
        Self::UnconditionalPut,
        Self::NoSpool,
        Self::SpoolNotReread,
        Self::NoAttemptNote,
        Self::LoginLoses,
        Self::DiscoveryAtRefresh,
        Self::ReceivedTimeNotSaved,
        Self::ReceivedTimeNotSeeded,
        Self::OmittedTokenDropped,
        Self::NoRetryOn401,
        Self::RefreshAtConnect,
        Self::NeverRepeats,
    ];
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, letter) in format!("{self:?}").chars().enumerate() {
            if letter.is_uppercase() && i > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|variant| variant.to_string() == text)
            .ok_or_else(|| format!("no such variant: {text}"))
    }
}
