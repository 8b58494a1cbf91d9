//! A machine of its own for each test, and `pilotlight` run on it as a person would.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pilotlight_testkit::Canaries;
use serde_json::Value;
use tempfile::TempDir;

/// An empty home folder; it goes with the test.
pub(crate) struct Home {
    folder: TempDir,
    said: Said,
}

/// Everything any process of a home printed, for the leak check.
type Said = Arc<Mutex<String>>;

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("home")).expect("a home folder");
        Self {
            folder,
            said: Said::default(),
        }
    }

    /// Where the store, the locks, the key file and all else of `pilotlight` lie.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("pilotlight")
    }

    /// A file beside the home, for the test's own use.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an executable of one shell script; `$1` is the URL when it is used as a browser.
    pub(crate) fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.beside(name);
        let text = format!("#!/bin/bash\nexport PATH='{}'\n{body}\n", search_path());
        fs::write(&path, text).expect("the script is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("and executable");
        path
    }

    /// Prepares a run of `pilotlight` with nothing of the test's own environment.
    pub(crate) fn pilotlight<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        let run = Run {
            program: env!("CARGO_BIN_EXE_pilotlight").into(),
            args: args.into_iter().map(|arg| arg.as_ref().into()).collect(),
            env: Vec::new(),
            limit: Duration::from_secs(60),
            said: Some(Arc::clone(&self.said)),
        };
        run.env("HOME", self.folder.path().join("home"))
            .env("PILOTLIGHT_HOME", self.data())
            .env("PATH", search_path())
            .env("LANG", "C.UTF-8")
    }

    /// Runs `pilotlight` and waits for its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Outcome {
        self.pilotlight(args).run()
    }

    /// The one session of this home, as `status --json` shows it.
    pub(crate) fn session(&self) -> Value {
        let status = self.run(["status", "--json"]).ok().json();
        let sessions = status["sessions"].as_array().expect("sessions").clone();
        assert_eq!(sessions.len(), 1, "one session: {status}");
        sessions.into_iter().next().expect("one")
    }

    /// The history of the one session of this home whose event is `name`.
    pub(crate) fn events(&self, target: &str, name: &str) -> Vec<Value> {
        let why = self.run(["why", target, "--json"]).ok().json();
        let events = why["events"].as_array().expect("events");
        events
            .iter()
            .filter(|event| event["event"] == name)
            .cloned()
            .collect()
    }

    /// Every file under [`Self::data`], with its bytes.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut folders = vec![self.data()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() => {
                        files.push((entry.path(), fs::read(entry.path()).unwrap_or_default()));
                    }
                    _ => {}
                }
            }
        }
        files.sort();
        files
    }

    /// The store: what `paths` calls so is for people, a file says itself what it is.
    pub(crate) fn stores(&self) -> Vec<PathBuf> {
        let files = self.files().into_iter();
        let stores = files.filter(|(_, bytes)| bytes.starts_with(b"SQLite format 3\0"));
        stores.map(|(path, _)| path).collect()
    }

    /// The key files.
    pub(crate) fn keys(&self) -> Vec<PathBuf> {
        let is_key = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains("key") && !name.ends_with(".lock")
        };
        let paths = self.files().into_iter().map(|(path, _)| path);
        paths.filter(is_key).collect()
    }

    /// Asserts that no secret was printed by any run so far, nor lies readable in any file (T-09, T-33).
    pub(crate) fn assert_no_leak(&self, secrets: &[String]) {
        let mut canaries = Canaries::new();
        for (number, secret) in secrets.iter().enumerate() {
            canaries.add(format!("secret {number}"), secret);
        }
        assert!(!canaries.is_empty(), "there is something to look for");
        let said = self.said.lock().expect("not poisoned");
        canaries.assert_absent(said.as_bytes(), "what was printed");
        for (path, bytes) in self.files() {
            canaries.assert_absent(bytes, &path.display().to_string());
        }
    }
}

/// A prepared run of `pilotlight`.
pub(crate) struct Run {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    limit: Duration,
    said: Option<Said>,
}

impl Run {
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().into()));
        self
    }

    pub(crate) fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(OsString::from));
        self
    }

    /// Runs another program, which gets the same arguments, in its place.
    pub(crate) fn through(mut self, program: &Path) -> Self {
        self.program = program.into();
        self
    }

    /// How long it may run before the test fails.
    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The output holds a secret because it was asked for: the leak check leaves it out.
    pub(crate) fn reveals(mut self) -> Self {
        self.said = None;
        self
    }

    pub(crate) fn run(self) -> Outcome {
        self.start().wait()
    }

    pub(crate) fn start(self) -> Running {
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pilotlight starts");
        Running {
            stdout: Stream::of(child.stdout.take().expect("piped"), self.said.clone()),
            stderr: Stream::of(child.stderr.take().expect("piped"), self.said),
            line: format!("{:?}", self.args),
            child,
            started: Instant::now(),
            limit: self.limit,
        }
    }
}

/// A run that has not ended yet; it is killed when the test lets go of it.
pub(crate) struct Running {
    line: String,
    child: Child,
    stdout: Stream,
    stderr: Stream,
    started: Instant,
    limit: Duration,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far, on either stream.
    pub(crate) fn said(&self) -> String {
        self.stdout.so_far() + &self.stderr.so_far()
    }

    /// SIGKILL; false when it had already ended.
    pub(crate) fn kill(&mut self) -> bool {
        let ended = self.child.try_wait().expect("our child").is_some();
        if !ended {
            self.child.kill().expect("our child can be killed");
        }
        !ended
    }

    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it still runs");
    }

    pub(crate) fn wait(mut self) -> Outcome {
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status.code();
            }
            let (line, limit) = (&self.line, self.limit);
            let (out, err) = (self.stdout.so_far(), self.stderr.so_far());
            let late = self.started.elapsed() > limit;
            assert!(!late, "{line} still runs after {limit:?}\n{out}\n{err}");
            thread::sleep(Duration::from_millis(5));
        };
        Outcome {
            code,
            took: self.started.elapsed(),
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
            line: self.line.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a pipe gave so far.
struct Stream {
    text: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Stream {
    fn of(pipe: impl Read + Send + 'static, said: Option<Said>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let copy = Arc::clone(&text);
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let line = line.unwrap_or_else(|error| format!("<unreadable: {error}>")) + "\n";
                copy.lock().expect("not poisoned").push_str(&line);
                if let Some(said) = &said {
                    said.lock().expect("not poisoned").push_str(&line);
                }
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn so_far(&self) -> String {
        self.text.lock().expect("not poisoned").clone()
    }

    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        self.so_far()
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    line: String,
    /// The exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Outcome {
    /// Asserts exit 0.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}: {self:#?}", self.line);
        self
    }

    /// The last line of stdout, which must be JSON of version 1.
    pub(crate) fn json(&self) -> Value {
        let last = self.stdout.lines().last();
        let value: Value = last
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or_else(|| panic!("the last line is not JSON: {self:#?}"));
        assert_eq!(value["version"], 1, "{value}");
        value
    }

    /// Asserts a failure of this exit code and error code, and answers the error.
    pub(crate) fn refused(&self, exit: i32, code: &str) -> Value {
        let error = self
            .stderr
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|value| value["error"].is_object())
            .unwrap_or_else(|| panic!("no error as JSON on stderr: {self:#?}"));
        assert_eq!(error["version"], 1, "{error}");
        let error = error["error"].clone();
        assert_eq!(
            (error["code"].as_str(), self.code),
            (Some(code), Some(exit)),
            "{self:#?}"
        );
        error
    }
}

/// Waits until `look` finds something; `what` says what for when it does not.
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < limit,
            "waited {limit:?} in vain: {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// The seconds that a field in RFC 3339 names.
pub(crate) fn instant(value: &Value) -> f64 {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("no instant: {value}"));
    let instant: jiff::Timestamp = text
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    instant.as_millisecond() as f64 / 1000.0
}

pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The text of a file that may not be there yet.
pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn search_path() -> String {
    std::env::var("PATH").expect("PATH is set")
}
