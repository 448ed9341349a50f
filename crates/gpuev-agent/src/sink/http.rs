//! HTTP as all sinks speak it: one request, a limit on everything, no redirect, TLS verified.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderMap, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Error};

use super::Failure;
use super::base64::base64;
use super::secret::Secret;
use crate::quantity::Period;

/// Where distributions keep the certificates that they trust; the first that is there counts.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// What is read of an answer that is not the expected one.
const ANSWER_LIMIT: u64 = 4096;
/// What of it is told.
const TOLD: usize = 200;

/// How a server is reached: keys of every sink that speaks HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// How long a whole request may take.
    pub timeout: Period,
    /// Certificates (PEM) that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The file with a token for `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
    /// The user for `Authorization: Basic`, with `password_file`.
    pub user: Option<String>,
    /// The file with his password.
    pub password_file: Option<PathBuf>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            timeout: Period::from_secs(10),
            ca_file: None,
            token_file: None,
            user: None,
            password_file: None,
        }
    }
}

/// A client for one server.
pub(super) struct Client {
    agent: Agent,
    settings: HttpSettings,
}

/// What a server said.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    /// The beginning of the body.
    pub(super) body: String,
}

impl Client {
    /// # Errors
    /// A file of certificates cannot be used, or a secret is not there.
    pub(super) fn new(settings: &HttpSettings) -> Result<Self, String> {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&certificates(settings.ca_file.as_deref())?))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(settings.timeout.0))
            .user_agent(concat!("gpuev/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let client = Self { agent, settings: settings.clone() };
        client.authorization().map(|_| client)
    }

    /// The value of `Authorization`. Read each time: secrets are changed while the agent runs.
    fn authorization(&self) -> Result<Option<String>, String> {
        let HttpSettings { token_file, user, password_file, .. } = &self.settings;
        match (token_file, user, password_file) {
            (None, None, None) => Ok(None),
            (Some(file), None, None) => Ok(Some(format!("Bearer {}", Secret::read(file)?.text()))),
            (None, Some(user), Some(file)) => {
                let secret = Secret::read(file)?;
                Ok(Some(format!(
                    "Basic {}",
                    base64(format!("{user}:{}", secret.text()).as_bytes())
                )))
            }
            _ => Err("give either `token_file`, or `user` and `password_file`".to_owned()),
        }
    }

    /// Sends `body` and sorts the answer: taken, later, never.
    ///
    /// # Errors
    /// It was not taken.
    pub(super) fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, Failure> {
        let mut request = self.agent.post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(value) = self.authorization().map_err(Failure::unreachable)? {
            request = request.header("Authorization", value);
        }
        let mut answer = request.send(body).map_err(|error| unreachable_server(url, &error))?;
        let body = answer.body_mut().with_config().limit(ANSWER_LIMIT).lossy_utf8(true);
        // A longer or broken body is none: its beginning is only told to people.
        let body = body.read_to_string().unwrap_or_default();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let answer = Answer { status, headers, body };
        if (200..300).contains(&answer.status) { Ok(answer) } else { Err(answer.failure(url)) }
    }
}

impl Answer {
    /// What is said of a status that is no success. Refused is what this message will always get. What concerns all
    /// messages (who asks, whether the server is well) stops them; all else concerns this one until others show.
    fn failure(&self, url: &str) -> Failure {
        let told: String = self.body.chars().filter(|c| !c.is_control()).take(TOLD).collect();
        let error = format!("{} answers {} {told}", place(url), self.status);
        let after = self.retry_after();
        match self.status {
            400 | 406 | 411 | 413..=415 | 422 | 431 | 501 => Failure::Refused(error),
            300..400 => Failure::unreachable(format!(
                "{error}; redirects are not followed: give its address"
            )),
            401 | 407 => Failure::unreachable(format!("{error}; see the sink's secrets")),
            429 | 503 => Failure::Unreachable { error, after },
            403 => Failure::failed(format!("{error}; see the sink's secrets")),
            _ => Failure::Failed { error, after },
        }
    }

    /// `Retry-After` in seconds. A date is not understood: few servers send one.
    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

fn unreachable_server(url: &str, error: &Error) -> Failure {
    Failure::unreachable(format!("{}: {error}", place(url)))
}

/// Scheme, host and port: the path of a webhook is a secret.
fn place(url: &str) -> String {
    let uri: Option<Uri> = url.parse().ok();
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?, uri.port())));
    match parts {
        Some((scheme, host, Some(port))) => format!("{scheme}://{host}:{port}"),
        Some((scheme, host, None)) => format!("{scheme}://{host}"),
        None => "the server".to_owned(),
    }
}

/// Refuses what cannot be the address of a server.
///
/// # Errors
/// It cannot; the address itself is not told, it may be a secret.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let uri: Option<Uri> = url.parse().ok();
    let sound = uri.is_some_and(|uri| {
        uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
    });
    sound.then_some(()).ok_or_else(|| "its address must begin with http:// or https://".to_owned())
}

fn certificates(file: Option<&Path>) -> Result<Vec<Certificate<'static>>, String> {
    let found = trusted(file)?;
    Ok(found.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
}

/// The certificates of `file`, or those that the system trusts, as DER. None where the system has none: plain
/// HTTP needs none, and TLS then says that the issuer is not known.
///
/// # Errors
/// `file` cannot be read or holds no certificate.
pub(super) fn trusted(file: Option<&Path>) -> Result<Vec<Vec<u8>>, String> {
    let system = || BUNDLES.iter().map(Path::new).find(|path| path.exists());
    let Some(path) = file.or_else(system) else { return Ok(Vec::new()) };
    let told = |error: &dyn Display| format!("certificates {}: {error}", path.display());
    let pem = fs::read(path).map_err(|error| told(&error))?;
    let certificates: Vec<Vec<u8>> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(found)) => Some(found.der().to_vec()),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(told(&"there is none in it; it must be PEM"));
    }
    Ok(certificates)
}
