//! The other side of the local socket: what commands ask the agent, and other programs that watch.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpuev::{Error, ErrorKind, Result};

use super::{LONGEST_ANSWER, Request, Response};

/// A connection to the agent, or another program that watches. Leases that it holds end with it.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the agent at `path`; `None` where no agent runs.
    ///
    /// # Errors
    /// Where one may not connect.
    pub fn connect(path: &Path) -> Result<Option<Self>> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Some(Self { path: path.to_owned(), stream: BufReader::new(stream) })),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::io(format!("connect to {}", path.display()), error)
                .with_hint("root and the group of the socket may; see ls -l")),
        }
    }

    /// Does not wait longer than this for an answer.
    ///
    /// # Errors
    /// For no time at all.
    pub fn answer_within(&self, patience: Duration) -> Result<()> {
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(Some(patience))
            .and_then(|()| stream.set_write_timeout(Some(patience)))
            .map_err(|error| Error::io("set a timeout", error))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the agent says against it; where it does not answer.
    pub fn ask(&mut self, request: &Request) -> Result<Response> {
        match self.exchange(request) {
            Ok(Response::Failed { error, .. }) => Err(Error::new(ErrorKind::Io, error)),
            Ok(response) => Ok(response),
            Err(error) => {
                Err(Error::io(format!("ask the program at {}", self.path.display()), error)
                    .with_hint("it may have ended; its log tells"))
            }
        }
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Vec::new();
        (&mut self.stream).take(LONGEST_ANSWER).read_until(b'\n', &mut answer)?;
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&answer)?)
    }
}
