//! The HTTP API: what happens and what happened, for pages, programs and other machines.
//!
//! It listens on loopback unless it has TLS and a token. Everything that a client can make it hold is bounded:
//! connections, live streams, headers, answers under way and the time that each may take. It only tells; nothing
//! can be changed through it.

mod answer;
mod api;
mod connection;
mod guard;
mod stream;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use gpuev::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::agent::Shared;
use crate::config::HttpSettings;
use guard::Guard;
use tls::Tls;

/// Questions to the history that are answered at a time: each may hold a megabyte until its answer is sent.
const ANSWERS: usize = 8;

/// The document that says what can be asked.
pub const OPENAPI: &str = include_str!("http/openapi.json");

/// The server, in a thread of its own.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// What requests are answered from.
#[derive(Debug, Clone)]
struct Site {
    agent: Arc<Shared>,
    answers: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl HttpServer {
    /// Whether it could listen as `settings` say, as far as that can be told without doing so.
    ///
    /// # Errors
    /// As [`start`](Self::start), but for the address being taken.
    pub fn check(settings: &HttpSettings) -> Result<()> {
        if settings.listen.is_empty() {
            return Ok(());
        }
        Guard::new(settings, checked_address(settings)?)?;
        Tls::load(settings)?;
        Ok(())
    }

    /// Listens as `settings` say. `None` where they say not to.
    ///
    /// # Errors
    /// Where it would listen beyond loopback without TLS and a token, a file is missing, or the address is taken.
    pub fn start(settings: &HttpSettings, agent: &Arc<Shared>) -> Result<Option<Self>> {
        if settings.listen.is_empty() {
            return Ok(None);
        }
        let address = checked_address(settings)?;
        let guard = Guard::new(settings, address)?;
        let tls = Tls::load(settings)?;
        let what = || format!("listen on {address}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .thread_name("gpuev-http")
            .build()
            .map_err(|error| Error::io(what(), error))?;
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(|error| {
            Error::io(what(), error).with_hint("http.listen names another address, or none: \"\"")
        })?;
        let address = listener.local_addr().map_err(|error| Error::io(what(), error))?;
        let streams = usize::try_from(settings.max_streams).unwrap_or(usize::MAX);
        let site = Site {
            agent: Arc::clone(agent),
            answers: Arc::new(Semaphore::new(ANSWERS)),
            streams: Arc::new(Semaphore::new(streams.min(Semaphore::MAX_PERMITS))),
        };
        let router = router(site, Arc::new(guard.at(address)));
        let (stop, stopped) = watch::channel(false);
        let clients = usize::try_from(settings.max_clients).unwrap_or(usize::MAX);
        let serving = connection::serve(listener, tls, router, clients, stopped);
        let thread = std::thread::Builder::new()
            .name("gpuev-http".to_owned())
            .spawn(move || {
                runtime.block_on(serving);
                // A question to a slow disk does not hold the end up.
                runtime.shutdown_background();
            })
            .map_err(|error| Error::io("start the thread of the HTTP API", error))?;
        Ok(Some(Self { address, stop, thread }))
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets everybody go.
    pub fn stop(self) {
        let _ended_already = self.stop.send(true);
        let _panicked = self.thread.join();
    }
}

fn router(site: Site, guard: Arc<Guard>) -> Router {
    Router::new()
        .route("/api/v1/events", get(api::events))
        .route("/api/v1/spans", get(api::spans))
        .route("/api/v1/alerts", get(api::alerts))
        .route("/api/v1/gpus", get(api::gpus))
        .route("/api/v1/health", get(api::health))
        .route("/api/v1/stream", get(stream::stream))
        .route("/api/v1/openapi.json", get(api::openapi))
        .route("/metrics", get(api::metrics))
        .route(guard::PROBES[0], get(api::live))
        .route(guard::PROBES[1], get(api::ready))
        .fallback(answer::nothing_here)
        .method_not_allowed_fallback(answer::only_get)
        .with_state(site)
        .layer(from_fn_with_state(guard, guard::check))
}

/// The address, if listening on it exposes nobody.
fn checked_address(settings: &HttpSettings) -> Result<SocketAddr> {
    let listen = &settings.listen;
    let address: SocketAddr = listen.parse().map_err(|_| {
        let what = format!("http.listen: {listen:?} is no address with a port");
        Error::new(ErrorKind::InvalidInput, what)
            .with_hint("write it as 127.0.0.1:9470 or [::1]:9470")
    })?;
    let protected =
        !settings.tls_cert.as_os_str().is_empty() && !settings.token_file.as_os_str().is_empty();
    if !address.ip().is_loopback() && !protected {
        let what = format!("http.listen: {address} can be reached by other machines");
        return Err(Error::new(ErrorKind::InvalidInput, what)
            .with_hint("that needs http.tls_cert, http.tls_key and http.token_file"));
    }
    Ok(address)
}
