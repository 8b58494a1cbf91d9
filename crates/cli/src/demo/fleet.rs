//! The three processes: started, listened to, killed, replaced.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};

use super::World;
use crate::failure::Failure;

/// The processes, and what they have said so far.
pub(crate) struct Fleet {
    program: PathBuf,
    home: PathBuf,
    url: String,
    members: Vec<Member>,
    said: mpsc::UnboundedReceiver<News>,
    say: mpsc::UnboundedSender<News>,
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) slowest: Duration,
    pub(super) killed: u64,
    started: u64,
}

/// One process.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) last_ms: u64,
    pub(super) gone: bool,
    child: Child,
    /// While this is open, the process works.
    tie: Option<ChildStdin>,
}

/// Something that a process said.
#[derive(Debug)]
pub(crate) struct News {
    pid: u32,
    pub(super) what: Said,
}

#[derive(Debug)]
pub(super) enum Said {
    /// A call has ended.
    Called { code: Option<String>, ms: u64 },
    /// A line on stderr: nothing is expected there.
    Complained(String),
    /// It will say no more.
    Silent,
}

#[derive(Deserialize)]
struct Line {
    code: Option<String>,
    ms: u64,
}

impl Fleet {
    /// Starts the three.
    pub(crate) fn start(world: &World) -> Result<Self, Failure> {
        let (say, said) = mpsc::unbounded_channel();
        let mut fleet = Self {
            program: std::env::current_exe().map_err(|error| unstarted(&error))?,
            home: world.home().to_owned(),
            url: world.url().to_owned(),
            members: Vec::new(),
            said,
            say,
            calls: 0,
            failed: 0,
            slowest: Duration::ZERO,
            killed: 0,
            started: 0,
        };
        for _ in 0..SIZE {
            fleet.add()?;
        }
        Ok(fleet)
    }

    fn add(&mut self) -> Result<(), Failure> {
        self.started += 1;
        let mut command = Command::new(&self.program);
        command.args(["--json", "demo-worker", "--url", &self.url]);
        // Nothing of the person's own settings reaches the demo.
        command.env_clear().env("PILOTLIGHT_HOME", &self.home);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| unstarted(&error))?;
        let pid = child.id().unwrap_or_default();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            let say = self.say.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let what = match serde_json::from_str(&line) {
                        Ok(Line { code, ms }) => Said::Called { code, ms },
                        Err(_) => Said::Complained(line),
                    };
                    drop(say.send(News { pid, what }));
                }
                drop(say.send(News {
                    pid,
                    what: Said::Silent,
                }));
            });
            let say = self.say.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    drop(say.send(News {
                        pid,
                        what: Said::Complained(line),
                    }));
                }
            });
        }
        let name = format!("process {}", self.started);
        self.members.push(Member {
            name,
            pid,
            calls: 0,
            failed: 0,
            last_ms: 0,
            gone: false,
            tie: child.stdin.take(),
            child,
        });
        Ok(())
    }

    /// Waits for the next thing that a process says.
    pub(crate) async fn next(&mut self) -> News {
        match self.said.recv().await {
            Some(news) => {
                self.note(&news);
                news
            }
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    fn note(&mut self, news: &News) {
        let member = self
            .members
            .iter_mut()
            .find(|member| member.pid == news.pid);
        match &news.what {
            Said::Called { code, ms } => {
                let failed = u64::from(code.is_some());
                self.calls += 1;
                self.failed += failed;
                self.slowest = self.slowest.max(Duration::from_millis(*ms));
                if let Some(member) = member {
                    member.calls += 1;
                    member.failed += failed;
                    member.last_ms = *ms;
                }
            }
            Said::Complained(_) => {}
            Said::Silent => {
                if let Some(member) = member {
                    member.gone = true;
                }
            }
        }
    }

    /// Kills a process with SIGKILL, if it is one of ours, and starts another in its place; answers its name.
    pub(super) async fn kill(&mut self, pid: u32) -> Result<Option<String>, Failure> {
        let Some(member) = self
            .members
            .iter_mut()
            .find(|member| member.pid == pid && !member.gone)
        else {
            return Ok(None);
        };
        // On Unix this is SIGKILL: the process can do nothing more.
        if member.child.kill().await.is_err() {
            return Ok(None);
        }
        member.gone = true;
        let name = member.name.clone();
        self.killed += 1;
        self.add()?;
        Ok(Some(name))
    }

    /// The processes, those that are gone too.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Lets every process finish its call and end.
    pub(crate) async fn stop(&mut self, mut heard: impl FnMut(News)) {
        for member in &mut self.members {
            member.tie = None;
        }
        let ended = async {
            while self.members.iter().any(|member| !member.gone) {
                let news = self.next().await;
                heard(news);
            }
        };
        // Whoever has not ended by then is killed with this value.
        drop(tokio::time::timeout(LONGEST_END, ended).await);
    }
}

fn unstarted(error: &std::io::Error) -> Failure {
    Failure::connection(
        format!("a process of the demo cannot be started: {error}"),
        Vec::new(),
    )
}

const SIZE: usize = 3;
const LONGEST_END: Duration = Duration::from_secs(15);
