//! The log: what our own crates tell, to stderr with `-v` or to the file of `PILOTLIGHT_LOG`.
//!
//! Only what `pilotlight` itself writes passes: other crates' lines may hold whole messages, and those hold tokens.

mod kept;

use std::{
    fmt::{self, Write as _},
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use pilotlight::clock::{Clock as _, SystemClock};
use pilotlight_core::{Error, resource::clean};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{
    config::{Origin, Setting, Settings, bad_value},
    report,
    report::words,
};
use kept::Kept;

/// Starts the log, where one is wanted.
///
/// # Errors
/// `config.value` where the file cannot be written.
pub(crate) fn start(file: Option<&Path>, verbose: u8) -> Result<(), Error> {
    let on_stderr = wanted(verbose);
    let file = file
        .map(|path| {
            open(path)
                .map(Sink::File)
                .map_err(|error| bad_value(format!("log {}", path.display()), error.to_string()))
        })
        .transpose()?;
    begin(file, on_stderr);
    Ok(())
}

/// Starts the log of a program whose stderr nobody keeps: where no place is named, a file of its own that holds the newest
/// (T-33). The settings then name it.
///
/// # Errors
/// `config.value` where the named file cannot be written.
pub(crate) fn keep(settings: &mut Settings, name: &str, verbose: u8) -> Result<(), Error> {
    if let Some(log) = &settings.log {
        return start(Some(&log.value), verbose);
    }
    let path = settings.log_folder()?.join(format!("{name}.log"));
    match Kept::open(&path) {
        Ok(kept) => {
            begin(Some(Sink::Kept(kept)), wanted(verbose));
            settings.log = Some(Setting {
                value: path,
                from: Origin::Default,
            });
            Ok(())
        }
        // A bridge works without its log.
        Err(_) => start(None, verbose),
    }
}

fn wanted(verbose: u8) -> Option<Level> {
    match verbose {
        0 => None,
        1 => Some(Level::INFO),
        2 => Some(Level::DEBUG),
        _ => Some(Level::TRACE),
    }
}

fn begin(file: Option<Sink>, on_stderr: Option<Level>) {
    if file.is_some() || on_stderr.is_some() {
        let log = Log {
            on_stderr,
            file: file.map(Mutex::new),
            spans: AtomicU64::new(1),
        };
        // Set once, here.
        drop(tracing::subscriber::set_global_default(log));
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Where lines go.
enum Sink {
    File(File),
    Kept(Kept),
}

struct Log {
    on_stderr: Option<Level>,
    file: Option<Mutex<Sink>>,
    spans: AtomicU64,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let wanted = self.on_stderr.max(self.file.as_ref().map(|_| Level::DEBUG));
        metadata.target().starts_with("pilotlight")
            && wanted.is_some_and(|wanted| *metadata.level() <= wanted)
    }

    fn event(&self, event: &Event<'_>) {
        let level = *event.metadata().level();
        let now = words::rfc3339(SystemClock.now().wall);
        let mut line = format!("{now} {level:5} {}:", event.metadata().target());
        event.record(&mut Fields(&mut line));
        line.push('\n');
        if self.on_stderr.is_some_and(|wanted| level <= wanted) {
            report::log_line(&line);
        }
        if let Some(file) = &self.file
            && level <= Level::DEBUG
        {
            let mut file = file
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // A log that cannot be written is no reason to stop.
            drop(match &mut *file {
                Sink::File(file) => file.write_all(line.as_bytes()),
                Sink::Kept(kept) => kept.write(line.as_bytes()),
            });
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed).max(1))
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Writes the fields of an event, fit for a terminal.
struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: &str) {
        let value = clean(value);
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value}"),
            name => write!(self.0, " {name}={value}"),
        };
    }
}
