//! Mail over SMTP, with TLS.
//!
//! A connection for each mail: alerts are rare, and a connection that is kept breaks when it is needed. Bodies are
//! Base64, so that nothing in them can be taken for SMTP. All mails about one alert are one thread.

mod mail;
mod session;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::message::Message;
use super::outbox::OutboxSettings;
use super::people::{MOST, as_one};
use super::secret::Secret;
use super::settings::{Context, SinkSettings};
use super::{Failure, Filter, Order, Sink};
use crate::quantity::Period;
use session::{Server, Trouble};

/// `[sinks.smtp.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpSettings {
    /// The mail server's name.
    pub host: String,
    /// Its port. Unset: 587 with STARTTLS, 465 with TLS from the start, 25 without.
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: Tls,
    /// Certificates (PEM) that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The user, with `password_file`. Unset: none is named.
    pub user: Option<String>,
    /// The file with his password.
    pub password_file: Option<PathBuf>,
    /// The sender's address.
    pub from: String,
    /// Who gets the mail.
    pub to: Vec<String>,
    /// How long the server may take for each answer.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// What is sent. Unset: alerts that should wake somebody.
    #[serde(default)]
    pub send: Filter,
    /// How messages wait. They are kept on disk, too, unless `queue.spool` says otherwise.
    #[serde(default)]
    pub queue: OutboxSettings,
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// It begins in the clear and must go over to TLS before anything is told.
    #[default]
    Starttls,
    /// TLS from the start.
    Implicit,
    /// Not at all: only to this machine.
    None,
}

const fn timeout() -> Period {
    Period::from_secs(30)
}

impl SinkSettings for SmtpSettings {
    const KIND: &'static str = "smtp";
    const PROMISES: bool = true;

    fn defaults() -> Filter {
        Filter::of_alerts()
    }

    fn send(&self) -> &Filter {
        &self.send
    }

    fn queue(&self) -> &OutboxSettings {
        &self.queue
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Sink>, String> {
        if self.to.is_empty() {
            return Err("`to` is empty: who should get the mail?".to_owned());
        }
        self.to.iter().chain([&self.from]).try_for_each(|address| mail::check_address(address))?;
        let local = matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        if self.tls == Tls::None && !local {
            return Err("`tls = \"none\"` is for this machine's own server only".to_owned());
        }
        self.password()?;
        let server = Server::new(self, &context.host)?;
        let (settings, host) = (self.clone(), context.host.clone());
        Ok(Box::new(Smtp { settings, server, host, misses: Vec::new() }))
    }
}

impl SmtpSettings {
    /// User and password. Read each time: they are changed while the agent runs.
    fn password(&self) -> Result<Option<(String, Secret)>, String> {
        match (&self.user, &self.password_file) {
            (None, None) => Ok(None),
            (Some(user), Some(file)) => Ok(Some((user.clone(), Secret::read(file)?))),
            _ => Err("give both `user` and `password_file`, or none".to_owned()),
        }
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            Tls::Starttls => 587,
            Tls::Implicit => 465,
            Tls::None => 25,
        })
    }
}

struct Smtp {
    settings: SmtpSettings,
    server: Server,
    host: String,
    /// Addresses that the last mails did not reach, and why.
    misses: Vec<String>,
}

impl Smtp {
    fn mail(&mut self, message: &Message) -> Result<(), Trouble> {
        let SmtpSettings { from, to, .. } = &self.settings;
        let record: Value = serde_json::from_str(&message.json).unwrap_or_default();
        let text = mail::text(message, &record, &self.host, from, to);
        let login = self.settings.password().map_err(Trouble::Later)?;
        let mut session = self.server.connect()?;
        if let Some((user, password)) = &login {
            session.login(user, password.text())?;
        }
        self.misses.extend(session.send(from, to, &text)?);
        Ok(())
    }
}

impl Sink for Smtp {
    fn order(&self) -> Order {
        Order::People
    }

    fn batch(&self) -> usize {
        MOST
    }

    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure> {
        if let Some(message) = &as_one(batch) {
            let sent = self.mail(message);
            let SmtpSettings { host, .. } = &self.settings;
            let port = self.settings.port();
            let told = |error: &str| format!("mail server {host}:{port}: {error}");
            sent.map_err(|trouble| match trouble {
                Trouble::Later(error) => Failure::unreachable(told(&error)),
                Trouble::Failed(error) => Failure::failed(told(&error)),
                Trouble::Refused(error) => Failure::Refused(told(&error)),
            })?;
        }
        Ok(0)
    }

    fn take_misses(&mut self) -> Vec<String> {
        std::mem::take(&mut self.misses)
    }
}
