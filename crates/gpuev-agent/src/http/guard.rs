//! Who may ask: the right host, no page of a stranger, and the token where there is one.
//!
//! A browser that visits a stranger's page can be made to ask this server, too. It then says the page's origin,
//! or, where the stranger's name was made to resolve to this machine (DNS rebinding), the stranger's host. Both
//! are refused before anything else is looked at.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use gpuev::{Error, ErrorKind, Result};
use subtle::ConstantTimeEq;

use super::answer::refused;
use crate::config::HttpSettings;

/// Anybody may ask these, by any name: they tell nothing but that the agent works.
pub(super) const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// A shorter one can be guessed.
const SHORTEST_TOKEN: usize = 16;
const LONGEST_TOKEN: u64 = 4096;

/// Says who may ask.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Vec<u8>>,
    hosts: Vec<String>,
    origins: Vec<String>,
    secure: bool,
}

impl Guard {
    pub(super) fn new(settings: &HttpSettings, address: SocketAddr) -> Result<Self> {
        let token = match settings.token_file.as_os_str().is_empty() {
            true => None,
            false => Some(read_token(&settings.token_file)?),
        };
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
        if !address.ip().is_unspecified() {
            hosts.push(host_of(address));
        }
        hosts.extend(settings.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()));
        let origins = settings.allowed_origins.iter().map(|o| o.to_ascii_lowercase()).collect();
        let secure = !settings.tls_cert.as_os_str().is_empty();
        Ok(Self { token, hosts, origins, secure })
    }

    /// It listens at `address`: that is the port that hosts are asked by.
    pub(super) fn at(mut self, address: SocketAddr) -> Self {
        let port = address.port();
        let with_port: Vec<_> = self.hosts.iter().map(|host| format!("{host}:{port}")).collect();
        let scheme = if self.secure { "https" } else { "http" };
        let own = self.hosts.iter().chain(&with_port).map(|host| format!("{scheme}://{host}"));
        self.origins.extend(own.collect::<Vec<_>>());
        self.hosts.extend(with_port);
        self
    }

    /// Whether a browser's request for a page of this origin may be answered; those of programs have none.
    fn allows_origin(&self, headers: &HeaderMap) -> bool {
        match only(headers, &header::ORIGIN) {
            Ok(None) => headers
                .get("sec-fetch-site")
                .is_none_or(|site| ["same-origin", "none"].iter().any(|ok| site == ok)),
            Ok(Some(origin)) => self.origins.contains(&origin),
            Err(()) => false,
        }
    }

    fn allows_host(&self, headers: &HeaderMap) -> bool {
        matches!(only(headers, &header::HOST), Ok(Some(host)) if self.hosts.contains(&host))
    }

    /// Compared in a time that does not tell how much of it was right.
    fn allows_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|value| value.strip_prefix(b"Bearer "));
        given.is_some_and(|given| given.ct_eq(token).into())
    }
}

/// The one value of a header, in lower case; an error where there are several, or one that is no text.
fn only(headers: &HeaderMap, name: &HeaderName) -> std::result::Result<Option<String>, ()> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    value.to_str().map(|text| Some(text.to_ascii_lowercase())).map_err(|_| ())
}

fn host_of(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

fn read_token(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut token = Vec::new();
    let wrong = |error| Error::io(format!("http.token_file: read {}", file.display()), error);
    let opened = std::fs::File::open(file).map_err(wrong)?;
    opened.take(LONGEST_TOKEN).read_to_end(&mut token).map_err(wrong)?;
    let token = token.trim_ascii().to_vec();
    if token.len() < SHORTEST_TOKEN {
        let what = format!("http.token_file: {} has a token that can be guessed", file.display());
        return Err(Error::new(ErrorKind::InvalidInput, what)
            .with_hint("openssl rand -hex 32 makes a good one"));
    }
    Ok(token)
}

/// Lets a request through to its answer, or refuses it.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let headers = request.headers();
    if !guard.allows_host(headers) {
        return refused(
            StatusCode::MISDIRECTED_REQUEST,
            "this host is not known here: http.allowed_hosts",
        );
    }
    if !guard.allows_origin(headers) {
        return refused(
            StatusCode::FORBIDDEN,
            "pages of that origin may not ask: http.allowed_origins",
        );
    }
    let origin = headers.get(header::ORIGIN).cloned();
    let mut response = if request.method() == Method::OPTIONS && origin.is_some() {
        preflight()
    } else if guard.allows_token(headers) {
        next.run(request).await
    } else {
        let mut response =
            refused(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer …");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What a browser asks before it lets a page send the token.
fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
    let allowed = HeaderValue::from_static("authorization, last-event-id");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    response
}
