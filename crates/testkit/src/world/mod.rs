//! The world: processes, a store, an issuer, a server, a network and people, in virtual time and from one seed.
//!
//! ```text
//!   requests ─> Memory ─> Refresh, Login, Logout      the product's own decisions (core)
//!                              │ Step        ▲ Answer
//!                              ▼             │
//!          store · lease · network · issuer · person   the world's, with faults
//!                              │
//!                            Judge                      invariants, and the class of each loss
//! ```
//!
//! It interprets the same [`Step`](pilotlight_core::flow::Step)s as the client's driver does, one event at a time, and
//! knows what no program can: which call the issuer acted on, and which answer is still on its way. The same seed gives the
//! same run, to the last event.

mod acts;
mod event;
mod exchanges;
mod faults;
mod issuer;
mod judge;
mod lessons;
mod locks;
mod network;
mod pace;
mod past;
mod people;
mod plan;
mod process;
mod random;
mod report;
mod store;
mod trace;
mod variant;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use pilotlight_core::{
    attempt::{Attempt, ProcessId},
    credential::{Account, Binding, BindingKey, CredentialKey, Version},
    flow::{Act, Answer},
    freshness::Policy,
    issuer::Issuer as IssuerId,
    memory::Want,
    notes::IssuerNotes,
    resource::Resource,
    scope::Scopes,
    time::{BootId, Mono, Now, Stamp, Wall},
};

pub use plan::{Faults, Grace, Kind, Level, Setup};
pub use report::{Broken, Loss, LossClass, Report, Totals};
pub use variant::Variant;

use acts::AnyFlow;
use event::{Event, Scheduled};
use faults::Ambush;
use issuer::Issuer;
use judge::Judge;
use network::{Call, CallId, Outage};
use plan::Plan;
use process::{Cell, Request};
use random::Random;
use store::Store;
use trace::Trace;

/// Simulates one seed.
#[must_use]
pub fn simulate(setup: &Setup, seed: u64) -> Report {
    World::new(setup, seed, false).run()
}

/// Simulates one seed and keeps a log to read.
#[must_use]
pub fn replay(setup: &Setup, seed: u64) -> Report {
    World::new(setup, seed, true).run()
}

/// Switches fault kinds off one by one, as long as the seed still shows a fault; what is left is needed.
#[must_use]
pub fn shrink(setup: &Setup, seed: u64) -> Faults {
    let (mut setup, whole) = (*setup, simulate(setup, seed));
    let mut needed = whole.faults;
    for kind in whole.faults.iter() {
        let before = setup.without;
        setup.without = before.and(kind);
        let report = simulate(&setup, seed);
        if report.failed_us() {
            needed = report.faults;
        } else {
            setup.without = before;
        }
    }
    needed
}

/// The machine that the processes share.
#[derive(Debug, Default)]
struct Machine {
    boot: u64,
    booted_at: u64,
    /// How far its wall clock is off, in milliseconds.
    wall_offset: i64,
}

/// A process: a program that keeps sessions.
#[derive(Debug, Default)]
struct Process {
    alive: bool,
    epoch: u32,
    paused: bool,
    paused_at: u64,
    deferred: Vec<Event>,
    /// How far its own wall clock is off from the machine's.
    skew: i64,
    cells: Vec<Cell>,
}

/// A server that people log in to.
#[derive(Debug)]
struct Target {
    resource: Resource,
    key: CredentialKey,
    binding: Binding,
    /// The login under way: one at a time.
    login: Option<usize>,
    /// Whether a person is on the way.
    person_called: bool,
    /// Whether a person has logged out on purpose.
    logged_out: bool,
    /// When a logout last reached the store.
    buried_at: Option<u64>,
    scopes: Option<Scopes>,
    /// Whether the server wants more scopes than were asked for.
    wants_more: bool,
}

/// A lock, by the login it is for; the last one is the registration lock.
#[derive(Debug, Default)]
struct LockState {
    fence: u64,
    holder: Option<(usize, u32, usize)>,
    waiting: Vec<(usize, u32)>,
}

/// A flow under way in a process.
#[derive(Debug)]
struct Run {
    process: usize,
    epoch: u32,
    login: usize,
    flow: Option<AnyFlow>,
    step: u32,
    act: Option<Act>,
    answer: Option<Answer>,
    want: Want,
    began_at: u64,
    /// What it last noted about the call it is making.
    attempt: Option<(Version, Attempt, bool)>,
    /// What its process held as it began, and when that was received.
    held: Option<(Version, Option<Stamp>)>,
    /// How the store was as it noted that.
    noted_while: store::Health,
    /// When that was.
    noted_at: u64,
    /// What it read about the issuer last.
    notes: IssuerNotes,
    /// Whether it has found the issuer back, and makes the one call that this allows.
    early: bool,
    /// How many token calls it has set out with, since it last decided to call.
    calls: u64,
    /// Whether it has noted an attempt since its last call: whoever looks again then decides anew.
    attempts: bool,
}

/// One run. See the [module](self).
struct World {
    setup: Setup,
    plan: Plan,
    random: Random,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    machine: Machine,
    processes: Vec<Process>,
    targets: Vec<Target>,
    locks: Vec<LockState>,
    runs: Vec<Option<Box<Run>>>,
    requests: Vec<Request>,
    calls: Vec<Call>,
    store: Store,
    issuer: Issuer,
    outage: Option<Outage>,
    ambushes: Vec<Ambush>,
    /// Until when the store is slow.
    stalled_until: u64,
    /// Until when the server refuses everything.
    server_refuses_until: u64,
    hostile_metadata: bool,
    /// Whether faults are over.
    quiet: bool,
    stamps: u64,
    judge: Judge,
    trace: Trace,
    report: Report,
}

const START_WALL: u64 = 1_800_000_000_000;
const START_MONO: u64 = 1_000_000;
const ISSUER: &str = "https://as.example";
/// Until when nothing goes wrong: everybody has logged in by then.
const CALM: u64 = 60_000;
/// After the faults: so long until every session must work again.
const HEALED: u64 = 1_200_000;

impl World {
    fn new(setup: &Setup, seed: u64, logging: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(setup, &mut random);
        let targets: Vec<Target> = (0..plan.logins).map(Target::new).collect();
        let has = |kind| plan.has(kind);
        let issuer = Issuer {
            grace: u64::try_from(setup.grace.0.as_millis()).unwrap_or(u64::MAX),
            lifetime: plan.lifetime,
            rotates: !has(Kind::NoRotation),
            omits: if has(Kind::OmittedRefreshToken) {
                0.5
            } else {
                0.0
            },
            states_lifetime: !has(Kind::NoLifetime),
            names_reuse: random.chance(0.3),
            caches: has(Kind::CachedToken),
            client: 0,
            families: Vec::new(),
            refreshes: 0,
        };
        let skew = |random: &mut Random| {
            let off = random.between(1_000, 900_000) as i64;
            let signed = if random.chance(0.5) { off } else { -off };
            if has(Kind::Skew) && random.chance(0.5) {
                signed
            } else {
                0
            }
        };
        let processes = (0..plan.processes)
            .map(|_| Process {
                skew: skew(&mut random),
                ..Process::default()
            })
            .collect();
        let store = Store {
            rows: vec![store::Row::default(); plan.logins],
            history: has(Kind::RollBack).then(VecDeque::new),
            ..Store::default()
        };
        Self {
            setup: *setup,
            locks: (0..=plan.logins).map(|_| LockState::default()).collect(),
            judge: Judge::new(plan.logins),
            trace: Trace::new(logging),
            report: Report {
                seed,
                faults: plan.faults,
                ..Report::default()
            },
            plan,
            random,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            machine: Machine::default(),
            processes,
            targets,
            runs: Vec::new(),
            requests: Vec::new(),
            calls: Vec::new(),
            store,
            issuer,
            outage: None,
            ambushes: Vec::new(),
            stalled_until: 0,
            server_refuses_until: 0,
            hostile_metadata: false,
            quiet: false,
            stamps: 0,
        }
    }

    fn run(mut self) -> Report {
        self.begin();
        let end = self.plan.length + HEALED;
        while let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() {
            if at > end {
                break;
            }
            (self.now, self.store.now) = (at, at);
            self.report.events += 1;
            self.happen(event);
            if self.report.events > MOST_EVENTS {
                self.broken("I-17", || "it never ends".into());
                break;
            }
        }
        self.now = end;
        self.finish();
        let (trace, log) = self.trace.finish();
        let refreshes = self.calls.iter().filter(|call| call.presents.is_some());
        self.report.calls_at = refreshes.map(|call| call.sent_at).collect();
        self.report.refreshes = self.issuer.refreshes;
        Report {
            trace,
            log,
            ..self.report
        }
    }

    fn begin(&mut self) {
        self.schedule_faults();
        for process in 0..self.processes.len() {
            let at = if process == 0 {
                0
            } else {
                self.random.between(5_000, CALM)
            };
            self.at(at, Event::Start { process });
        }
        for login in 0..self.targets.len() {
            self.at(
                1 + login as u64,
                Event::Person {
                    login,
                    what: people::What::Login,
                },
            );
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Scheduled {
            at,
            order: self.order,
            event,
        }));
    }

    fn after(&mut self, span: u64, event: Event) {
        self.at(self.now + span, event);
    }

    /// Which process an event is for, and which of its lives.
    fn owner(&self, event: Event) -> Option<(usize, u32)> {
        let of_run = |run: usize| {
            let run = self.runs[run].as_ref();
            run.map(|run| (run.process, run.epoch))
        };
        match event {
            Event::Request { process, epoch, .. }
            | Event::Look { process, epoch, .. }
            | Event::LookForAbandoned { process, epoch, .. }
            | Event::Save { process, epoch, .. } => Some((process, epoch)),
            Event::Arrive { request } | Event::GiveUp { request, .. } => {
                let request = &self.requests[request];
                Some((request.process, request.epoch))
            }
            Event::Perform { run, .. }
            | Event::Begin { run, .. }
            | Event::Answer { run, .. }
            | Event::StillLocked { run, .. } => of_run(run),
            Event::Reply { call } | Event::Fail { call } => {
                let call = &self.calls[call];
                Some((call.process, call.epoch))
            }
            _ => None,
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some((process, epoch)) = self.owner(event) {
            let process = &mut self.processes[process];
            if !process.alive || process.epoch != epoch {
                return;
            }
            if process.paused {
                process.deferred.push(event);
                return;
            }
        }
        match event {
            Event::Start { process } => self.start(process),
            Event::Request {
                process,
                epoch,
                login,
            } => self.request(process, epoch, login),
            Event::Arrive { request } => self.arrive(request),
            Event::GiveUp { request, wait } => self.give_up(request, wait),
            Event::Perform { run, step } => self.perform(run, step),
            Event::Begin { run, step } => self.begin_late(run, step),
            Event::Answer { run, step } => self.answer(run, step),
            Event::StillLocked { run, step } => self.still_locked(run, step),
            Event::LeaseEnds { lock, fence } => self.lease_ends(lock, fence),
            Event::AtIssuer { call } | Event::Again { call } => self.at_issuer(call),
            Event::Reply { call } => self.reply(call),
            Event::Fail { call } => self.fail_call(call),
            Event::Look { process, login, .. } => self.look(process, login),
            Event::AttemptStands { login } => self.watch_attempt(login),
            Event::LookForAbandoned { process, login, .. } => {
                self.look_for_abandoned(process, login);
            }
            Event::Save { process, login, .. } => self.save(process, login),
            Event::Resume { process } => self.resume(process),
            Event::Person { login, what } => self.person(login, what),
            Event::Fault(timed) => self.fault(timed),
        }
    }

    /// The time as a process tells it.
    fn clock(&mut self, process: usize) -> Now {
        let wall = (START_WALL + self.now) as i64
            + self.machine.wall_offset
            + self.processes[process].skew;
        let mut boot = [0; 16];
        self.stamps += 1;
        // A boot that no other stamp shares leaves nothing but the wall clock to go by.
        let local = self.setup.variant == Some(Variant::LocalWallClock);
        let number = if local {
            u64::MAX - self.stamps
        } else {
            self.machine.boot
        };
        boot[..8].copy_from_slice(&number.to_be_bytes());
        Stamp {
            wall: Wall(wall.max(0) as u64),
            mono: Mono(START_MONO + self.now - self.machine.booted_at),
            boot: BootId(boot),
        }
    }

    /// When an instant of a process's clock comes.
    fn when(&self, mono: Mono) -> u64 {
        mono.0.saturating_sub(START_MONO) + self.machine.booted_at
    }

    /// When a stamp was taken, as far as clocks can tell.
    fn instant(&self, stamp: Stamp) -> u64 {
        if stamp.boot.0.starts_with(&self.machine.boot.to_be_bytes()) {
            self.when(stamp.mono)
        } else {
            stamp.wall.0.saturating_sub(START_WALL)
        }
    }

    fn is(&self, variant: Variant) -> bool {
        self.setup.variant == Some(variant)
    }

    /// How the programs of this run repeat calls.
    fn policy(&self) -> Policy {
        let mut policy = self.setup.policy;
        if self.is(Variant::NeverRepeats) {
            policy.repeat_limit = Duration::ZERO;
        }
        policy
    }

    fn process_id(&self, process: usize) -> ProcessId {
        ProcessId {
            pid: process as u32 + 1,
            nonce: self.processes[process].epoch.into(),
        }
    }

    fn broken(&mut self, id: &'static str, what: impl FnOnce() -> String) {
        let what = what();
        self.trace.say(self.now, || format!("BROKEN {id}: {what}"));
        self.report.broken.push(Broken {
            id,
            at: self.now,
            what,
        });
    }
}

impl Target {
    fn new(number: usize) -> Self {
        let text = format!("https://mcp-{number}.example");
        let resource = Resource::parse(&text).expect("a plain URL");
        let issuer = IssuerId::parse(ISSUER).expect("a plain URL");
        let key = CredentialKey {
            tenant: String::new(),
            resource: resource.clone(),
            issuer,
            account: Account::default(),
        };
        let binding = Binding {
            key: BindingKey::new(resource.clone(), Account::default()),
            name: format!("mcp-{number}"),
            credential: None,
            created_at: Wall(START_WALL),
            exception: None,
            without_resource_at: None,
            former: Vec::new(),
        };
        Self {
            resource,
            key,
            binding,
            login: None,
            person_called: false,
            logged_out: false,
            buried_at: None,
            scopes: None,
            wants_more: false,
        }
    }
}

const MOST_EVENTS: u64 = 2_000_000;
/// How long a caller waits for a refresh when its token is of no use.
const CALLER_WAIT: u64 = 30_000;
/// How long a refresh waits for another process's.
const LOCK_WAIT: u64 = 75_000;

/// A span of virtual time, in milliseconds.
fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
