//! What one run is made of: who takes part, and what goes wrong, drawn from the seed.

use std::time::Duration;

use super::{ms, random::Random, variant::Variant};

/// For how long the issuer repeats its answer to a spent refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grace(pub Duration);

impl Grace {
    /// It always does.
    pub const UNLIMITED: Self = Self(Duration::MAX);

    /// The graces that a full run goes through.
    pub const ALL: [Self; 5] = [
        Self(Duration::ZERO),
        Self(Duration::from_secs(5)),
        Self(Duration::from_secs(30)),
        Self(Duration::from_secs(60)),
        Self::UNLIMITED,
    ];
}

impl std::fmt::Display for Grace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::UNLIMITED {
            f.write_str("unlimited")
        } else {
            write!(f, "{} s", self.0.as_secs())
        }
    }
}

/// How much goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing does.
    Calm,
    /// The fixed, harsh mixture whose losses are published: one login, tokens of five minutes, faults of the network, of
    /// processes, of clocks and of the disk at the rates that `rates` gives.
    Harsh,
    /// Each seed switches a random subset of all faults on, at rates of its own.
    Swarm,
}

/// What is to be simulated.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// The issuer's grace.
    pub grace: Grace,
    /// How many processes; drawn from 1 to 8 where it is `None`.
    pub processes: Option<usize>,
    /// How much goes wrong.
    pub level: Level,
    /// Faults that are switched on, whatever level and seed say.
    pub with: Faults,
    /// Faults that are switched off, whatever the seed says.
    pub without: Faults,
    /// A known-bad program in place of the real one.
    pub variant: Option<Variant>,
    /// How the real one repeats calls, for comparing policies.
    pub policy: pilotlight_core::freshness::Policy,
    /// How many logins there are; drawn where it is `None`.
    pub logins: Option<usize>,
    /// How long access tokens live; drawn where it is `None`.
    pub lifetime: Option<Duration>,
    /// The mean time between two requests of one process for one login; drawn where it is `None`.
    pub pace: Option<Duration>,
    /// For how long things go wrong (default: two hours).
    pub length: Duration,
}

impl Setup {
    /// Simulates this grace and level with the product's own policy.
    #[must_use]
    pub fn new(grace: Grace, level: Level) -> Self {
        Self {
            grace,
            processes: None,
            level,
            with: Faults::default(),
            without: Faults::default(),
            variant: None,
            policy: pilotlight_core::freshness::Policy::default(),
            logins: None,
            lifetime: None,
            pace: None,
            length: Duration::from_secs(7200),
        }
    }
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One kind of thing that goes wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name),* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

faults! {
    /// A token request fails before a connection stands.
    RequestLost,
    /// A connection takes up to ten seconds to stand.
    SlowConnect,
    /// The connection breaks before the issuer has read the request.
    Broken,
    /// The issuer acts, and its answer is lost.
    AnswerLost,
    /// The issuer answers 500, 502 or 503, without having done anything.
    ServerError,
    /// A gateway answers 504 although the issuer acted.
    GatewayTimeout,
    /// The answer takes up to 55 s on a connection that lives.
    Slow,
    /// The path goes dead and heals later: a black hole, nothing comes back.
    DeadPath,
    /// A request reaches the issuer after its sender gave it up.
    LateArrival,
    /// A middlebox sends a request twice.
    Duplicate,
    /// The machine moves to another network: what was in flight is never answered.
    Roaming,
    /// The token endpoint is down for minutes.
    Outage,
    /// The issuer says `invalid_grant` of a grant that is good.
    FalseRefusal,
    /// The issuer acts, and its 200 cannot be read.
    UnreadableAnswer,
    /// A captive portal answers 200 with a page of its own.
    CaptivePortal,
    /// A process is killed between any two steps, and starts again.
    Crash,
    /// A process is stopped for up to 90 s, or the machine sleeps.
    Pause,
    /// The wall clock jumps.
    ClockJump,
    /// A process has a wall clock of its own.
    Skew,
    /// The machine restarts.
    Reboot,
    /// The store refuses writes: the disk is full. The spool slots are preallocated.
    DiskFull,
    /// Store and spool refuse writes.
    DiskBroken,
    /// The store takes 15 s.
    StoreStall,
    /// The store writes, and says that it did not.
    StoreLostAnswer,
    /// The store loses what was written last (a fail-over, a restored copy).
    RollBack,
    /// The issuer restarts and has forgotten its last rotations.
    IssuerRestart,
    /// The issuer revokes a grant.
    Revocation,
    /// The issuer forgets this client.
    RegistrationForgotten,
    /// The server refuses a good token, now and then.
    ServerRefuses,
    /// The server refuses every token for a while, fresh ones too.
    ServerRefusesAll,
    /// The issuer ends access tokens before their time.
    EarlyEnd,
    /// The issuer leaves the refresh token out of some answers, keeping the old one.
    OmittedRefreshToken,
    /// The issuer does not rotate.
    NoRotation,
    /// The issuer does not say how long its tokens live.
    NoLifetime,
    /// The issuer gives out the same access token until shortly before its end.
    CachedToken,
    /// Tokens live for seconds, or for an hour.
    OddLifetime,
    /// The issuer's metadata comes to name a stranger's token endpoint.
    HostileMetadata,
    /// A person logs in again at a bad moment.
    Login,
    /// A person logs out at a bad moment.
    Logout,
    /// The server wants more scopes: a person steps up.
    StepUp,
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = text.to_ascii_lowercase().replace(['-', '_'], "");
        Self::ALL
            .iter()
            .copied()
            .find(|kind| format!("{kind:?}").to_ascii_lowercase() == wanted)
            .ok_or_else(|| format!("no such fault: {text}"))
    }
}

/// A set of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults(u64);

impl Faults {
    /// All of these.
    #[must_use]
    pub fn of(kinds: &[Kind]) -> Self {
        Self(kinds.iter().fold(0, |set, kind| set | 1 << *kind as u8))
    }

    /// Whether it holds this one.
    #[must_use]
    pub fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Both together.
    #[must_use]
    pub fn and(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// The faults in the set.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL
            .iter()
            .copied()
            .filter(move |kind| self.has(*kind))
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What the seed decided. Probabilities are per token call, counts per run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) faults: Faults,
    pub(super) processes: usize,
    pub(super) logins: usize,
    /// The access token's life, in milliseconds.
    pub(super) lifetime: u64,
    /// The mean time between two requests of one process for one login, in milliseconds.
    pub(super) pace: u64,
    /// Whether the server asks the issuer about each token, or believes its signature.
    pub(super) introspects: bool,
    /// Multiplies the probabilities of the network's faults.
    pub(super) harm: f64,
    /// How many of each timed fault.
    pub(super) times: u32,
    /// For how long faults are drawn, in milliseconds.
    pub(super) length: u64,
}

impl Plan {
    pub(super) fn draw(setup: &Setup, random: &mut Random) -> Self {
        let mut faults = match setup.level {
            Level::Calm => Faults::default(),
            Level::Harsh => Faults::of(&HARSH),
            Level::Swarm => {
                let share = random.f64().mul_add(0.4, 0.1);
                let drawn: Vec<Kind> = Kind::ALL
                    .iter()
                    .copied()
                    .filter(|_| random.chance(share))
                    .collect();
                Faults::of(&drawn)
            }
        };
        // Drawn before anything is switched off, so that a seed stays the same run without it.
        let processes = random.between(1, 8) as usize;
        let logins = random.between(1, 3) as usize;
        let lifetime = [20, 60, 120, 300, 300, 900, 3600][random.below(7) as usize];
        let pace = random.between(20_000, 120_000);
        let (introspects, harm) = (random.chance(0.5), random.f64().mul_add(2.0, 0.3));
        let times = random.between(1, 4) as u32;
        faults = Faults(faults.0 | setup.with.0).without(setup.without);
        let fixed = setup.level != Level::Swarm;
        Self {
            lifetime: match setup.lifetime {
                Some(lifetime) => ms(lifetime),
                None if faults.has(Kind::OddLifetime) => lifetime * 1000,
                None => 300_000,
            },
            processes: setup
                .processes
                .unwrap_or(if fixed { processes.max(2) } else { processes }),
            logins: setup.logins.unwrap_or(if fixed { 1 } else { logins }),
            pace: setup.pace.map_or(if fixed { 30_000 } else { pace }, ms),
            introspects: !fixed && introspects,
            harm: if fixed { 1.0 } else { harm },
            times,
            length: ms(setup.length),
            faults,
        }
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.faults.has(kind)
    }
}

/// The faults of [`Level::Harsh`].
const HARSH: [Kind; 9] = [
    Kind::RequestLost,
    Kind::AnswerLost,
    Kind::ServerError,
    Kind::Slow,
    Kind::Crash,
    Kind::Pause,
    Kind::ClockJump,
    Kind::Outage,
    Kind::DiskFull,
];
