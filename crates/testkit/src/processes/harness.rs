//! A process of the harness, from the outside: started, listened to, sent signals, waited for.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::JoinHandle,
};

use super::{
    fail_point::FailPoint,
    said::{Line, Said},
    testimony::{Exit, Testimony, lock},
};

/// The program to start: a binary, and what comes before the harness's own arguments.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    first: Vec<OsString>,
}

impl Program {
    /// The binary `harness`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            first: Vec::new(),
        }
    }

    /// A binary that is the harness when this is its first argument.
    #[must_use]
    pub fn with_first(mut self, argument: impl Into<OsString>) -> Self {
        self.first.push(argument.into());
        self
    }
}

/// How to start a process.
#[derive(Debug, Clone)]
pub struct Start {
    program: Program,
    arguments: Vec<OsString>,
    environment: BTreeMap<String, String>,
    role: String,
}

impl std::fmt::Display for Start {
    /// What was armed, and the command.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.environment {
            write!(f, "{name}={value} ")?;
        }
        f.write_str(&self.role)
    }
}

impl Start {
    /// Starts `command` on the store in `home`, for the server at `url`.
    #[must_use]
    pub fn new(program: &Program, command: &str, home: &Path, url: &str) -> Self {
        let mut start = Self {
            program: program.clone(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            role: command.to_owned(),
        };
        for argument in [
            command.as_ref(),
            "--home".as_ref(),
            home.as_os_str(),
            "--url".as_ref(),
            url.as_ref(),
        ] {
            start.arguments.push(argument.to_owned());
        }
        start
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Arms fail points.
    #[must_use]
    pub fn fail(self, points: &[FailPoint]) -> Self {
        let list: Vec<String> = points.iter().map(FailPoint::to_string).collect();
        if list.is_empty() {
            self
        } else {
            self.env("PL_FAIL", list.join(","))
        }
    }

    /// Sets the process's wall clock off by so many milliseconds.
    #[must_use]
    pub fn wall_shift_ms(self, shift: i64) -> Self {
        if shift == 0 {
            self
        } else {
            self.env("PL_WALL_SHIFT_MS", shift.to_string())
        }
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Starts it. It must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The system starts no process.
    pub fn spawn(self) -> io::Result<Harness> {
        let mut command = Command::new(&self.program.path);
        command
            .args(&self.program.first)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().unwrap_or_default();
        let (news, heard) = watch::channel(0);
        let testimony = Arc::new(Testimony::new(pid, self));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let testimony = Arc::clone(&testimony);
            readers.push(tokio::spawn(async move {
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    match serde_json::from_str::<Line>(&line) {
                        Ok(line) => lock(&testimony.lines).push(line),
                        Err(_) => lock(&testimony.complaints).push_str(&line),
                    }
                    news.send_modify(|count| *count += 1);
                }
            }));
        }
        if let Some(mut stderr) = child.stderr.take() {
            let testimony = Arc::clone(&testimony);
            readers.push(tokio::spawn(async move {
                let mut buffer = [0u8; 4096];
                while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..count]);
                    lock(&testimony.complaints).push_str(&text);
                }
            }));
        }
        Ok(Harness {
            stdin: child.stdin.take(),
            child,
            testimony,
            heard,
            readers,
            listened: 0,
        })
    }
}

/// A process of the harness. It is killed when this is dropped.
#[derive(Debug)]
pub struct Harness {
    child: Child,
    stdin: Option<ChildStdin>,
    testimony: Arc<Testimony>,
    heard: watch::Receiver<u64>,
    readers: Vec<JoinHandle<()>>,
    /// How many of its lines were given to whoever waits for the next.
    listened: usize,
}

impl Harness {
    /// What is left of it for the judge.
    #[must_use]
    pub fn testimony(&self) -> &Arc<Testimony> {
        &self.testimony
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.testimony.pid
    }

    /// Sends a signal. One that has ended takes none, and that is no error.
    pub fn signal(&self, signal: Signal) {
        if self.testimony.fate().is_none()
            && let Some(pid) = self.rustix_pid()
        {
            // It may be ending this very moment.
            let _ = kill_process(pid, signal);
        }
    }

    /// Limits the size of the files that it may write, or lifts the limit: a disk that is full for this process alone.
    ///
    /// # Errors
    ///
    /// It has ended, or the system refuses.
    pub fn limit_file_size(&self, bytes: Option<u64>) -> io::Result<()> {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(self.rustix_pid(), Resource::Fsize, limit)?;
        Ok(())
    }

    /// Makes a worker that steps do one call.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub async fn step(&mut self) -> io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(b"\n").await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Whether it is stopped (SIGSTOP).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let state = stat.ok().and_then(|stat| {
            let (_, rest) = stat.rsplit_once(')')?;
            rest.trim_start().chars().next()
        });
        matches!(state, Some('T' | 't'))
    }

    /// Waits until it is stopped.
    ///
    /// # Errors
    ///
    /// It is not, in time.
    pub async fn stopped(&self, limit: Duration) -> Result<(), Late> {
        let stopped = async {
            while !self.is_stopped() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(limit, stopped).await;
        waited.map_err(|_| self.late("it to stop"))
    }

    /// Waits for the next line that fits, and passes over the others.
    ///
    /// # Errors
    ///
    /// None comes in time, or none will come any more.
    pub async fn next(
        &mut self,
        limit: Duration,
        fits: impl Fn(&Said) -> bool,
    ) -> Result<Line, Late> {
        let found = async {
            loop {
                let lines = self.testimony.lines();
                let new = lines.iter().enumerate().skip(self.listened);
                for (number, line) in new {
                    if fits(&line.said) {
                        self.listened = number + 1;
                        return Some(line.clone());
                    }
                }
                self.listened = lines.len();
                if self.heard.changed().await.is_err() {
                    // The last line may have come in between.
                    let lines = self.testimony.lines();
                    let last = lines
                        .into_iter()
                        .skip(self.listened)
                        .find(|line| fits(&line.said));
                    self.listened = usize::MAX;
                    return last;
                }
            }
        };
        let waited = tokio::time::timeout(limit, found).await;
        waited.ok().flatten().ok_or_else(|| self.late("a line"))
    }

    /// The same, but for the first `heard` lines.
    ///
    /// # Errors
    ///
    /// None comes in time, or none will come any more.
    pub async fn next_after(
        &mut self,
        heard: usize,
        limit: Duration,
        fits: impl Fn(&Said) -> bool,
    ) -> Result<Line, Late> {
        self.listened = heard;
        self.next(limit, fits).await
    }

    /// Waits for its end, and for the last it had to say.
    ///
    /// # Errors
    ///
    /// It does not end in time.
    pub async fn end(&mut self, limit: Duration) -> Result<Exit, Late> {
        if let Some(exit) = self.testimony.fate() {
            return Ok(exit);
        }
        let ended = async {
            let status = self.child.wait().await;
            for reader in self.readers.drain(..) {
                // A reader ends with the pipe.
                let _ = reader.await;
            }
            status
        };
        match tokio::time::timeout(limit, ended).await {
            Ok(Ok(status)) => {
                let exit = Exit::from(status);
                *lock(&self.testimony.fate) = Some(exit);
                Ok(exit)
            }
            _ => Err(self.late("its end")),
        }
    }

    /// Whether it has ended, without waiting.
    pub async fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_))) && self.end(SHORT).await.is_ok()
    }

    /// Asks a worker to end, by closing its standard input.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    fn rustix_pid(&self) -> Option<Pid> {
        i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
    }

    fn late(&self, what: &str) -> Late {
        Late(format!(
            "waited in vain for {what} of {}: it said {:?} {}",
            self.testimony.name(),
            self.testimony.lines().last(),
            self.testimony.complaints()
        ))
    }
}

/// Something did not happen in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late(String);

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Late {}

const SHORT: Duration = Duration::from_secs(2);
