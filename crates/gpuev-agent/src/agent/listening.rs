//! The HTTP API, also where its address is taken at first.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gpuev::{ErrorKind, Result};

use super::{Shared, say};
use crate::config::HttpSettings;
use crate::http::HttpServer;

/// How long an address that cannot be had is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Listens as soon as it can.
#[derive(Debug)]
pub(super) struct Listening {
    settings: HttpSettings,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    server: Option<HttpServer>,
    retry_at: Option<Instant>,
    ended: bool,
}

impl Listening {
    /// Listens as `settings` say.
    ///
    /// # Errors
    /// They make no sense. An address that cannot be had is tried again.
    pub(super) fn start(settings: &HttpSettings, shared: &Arc<Shared>) -> Result<Arc<Self>> {
        let state = State { server: None, retry_at: None, ended: false };
        let listening = Self { settings: settings.clone(), state: Mutex::new(state) };
        listening.try_to_listen(&mut listening.lock(), shared)?;
        Ok(Arc::new(listening))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_to_listen(&self, state: &mut State, shared: &Arc<Shared>) -> Result<()> {
        let failed = state.retry_at.take().is_some();
        match HttpServer::start(&self.settings, shared) {
            Ok(server) => {
                if failed {
                    say(&format!("the HTTP API listens on {}", self.settings.listen));
                }
                state.server = server;
                shared.lacks("the HTTP API", None);
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput && !failed => return Err(error),
            Err(error) => {
                if !failed {
                    say(&format!("there is no HTTP API: {error}; trying again every 10 s"));
                }
                shared.lacks("the HTTP API", Some(error.to_string()));
                state.retry_at = Instant::now().checked_add(RETRY_AFTER);
            }
        }
        Ok(())
    }

    /// Tries again, where it is time to.
    pub(super) fn tick(&self, shared: &Arc<Shared>) {
        let mut state = self.lock();
        let is_due = state.retry_at.is_some_and(|at| at <= Instant::now());
        if is_due && !state.ended {
            let _told = self.try_to_listen(&mut state, shared);
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.lock().server.as_ref().map(HttpServer::address)
    }

    /// Lets everybody go.
    pub(super) fn stop(&self) {
        let server = {
            let mut state = self.lock();
            state.ended = true;
            state.server.take()
        };
        if let Some(server) = server {
            server.stop();
        }
    }
}
