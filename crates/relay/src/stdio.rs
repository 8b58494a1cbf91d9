//! Standard input and output without a thread between: pipes and sockets, as hosts make them, are polled; files and terminals are
//! read and written on a thread.
//!
//! Being polled is a property of the pipe, not of our end of it. So nothing is changed where standard error goes to the same
//! place, or where it is a terminal that others use.

use tokio::io::{AsyncRead, AsyncWrite};

/// Standard input, or what stands for it.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// Standard output, or what stands for it.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Opens standard input. It must be called within a tokio runtime.
#[must_use]
pub fn input() -> Input {
    #[cfg(unix)]
    if let Some(polled) = unix::input() {
        return polled;
    }
    Box::new(tokio::io::stdin())
}

/// Opens standard output. It must be called within a tokio runtime.
#[must_use]
pub fn output() -> Output {
    #[cfg(unix)]
    if let Some(polled) = unix::output() {
        return polled;
    }
    Box::new(tokio::io::stdout())
}

#[cfg(unix)]
mod unix {
    use std::{
        io,
        os::{
            fd::{AsFd, BorrowedFd, OwnedFd},
            unix::net::UnixStream,
        },
    };

    use rustix::fs::{FileType, fstat};
    use tokio::net::unix::pipe;

    use super::{Input, Output};

    pub(super) fn input() -> Option<Input> {
        let (kind, own) = private(io::stdin().as_fd())?;
        match kind {
            FileType::Fifo => Some(Box::new(pipe::Receiver::from_owned_fd(own).ok()?)),
            FileType::Socket => Some(Box::new(socket(own)?)),
            _ => None,
        }
    }

    pub(super) fn output() -> Option<Output> {
        let (kind, own) = private(io::stdout().as_fd())?;
        match kind {
            FileType::Fifo => Some(Box::new(pipe::Sender::from_owned_fd(own).ok()?)),
            FileType::Socket => Some(Box::new(socket(own)?)),
            _ => None,
        }
    }

    fn socket(own: OwnedFd) -> Option<tokio::net::UnixStream> {
        // What kind of socket it is does not matter to reading and writing.
        let socket = UnixStream::from(own);
        socket.set_nonblocking(true).ok()?;
        tokio::net::UnixStream::from_std(socket).ok()
    }

    /// What is there, unless standard error goes to the same place: that cannot wait.
    fn private(of: BorrowedFd<'_>) -> Option<(FileType, OwnedFd)> {
        let about = fstat(of).ok()?;
        let error = fstat(io::stderr().as_fd()).ok();
        let shared =
            error.is_some_and(|error| (error.st_dev, error.st_ino) == (about.st_dev, about.st_ino));
        let own = (!shared).then(|| of.try_clone_to_owned())?;
        Some((FileType::from_raw_mode(about.st_mode), own.ok()?))
    }
}
