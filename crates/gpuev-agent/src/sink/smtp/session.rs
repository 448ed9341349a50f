//! The client's side of SMTP (RFC 5321), STARTTLS (RFC 3207) and AUTH PLAIN (RFC 4616).

use std::fmt::{self, Display};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{SmtpSettings, Tls};
use crate::sink::base64::base64;
use crate::sink::http::trusted;

/// A reply has a few lines of at most 512 bytes.
const REPLY_LIMIT: usize = 16 << 10;
/// How much of it is told.
const TOLD: usize = 200;

/// Why a mail was not taken.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server cannot be reached or takes no mail.
    Later(String),
    /// The server answered, and did not take this mail; it may later.
    Failed(String),
    /// It never will be.
    Refused(String),
}

impl Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Later(why) | Self::Failed(why) | Self::Refused(why)) = self;
        f.write_str(why)
    }
}

impl Trouble {
    fn of(what: &str, error: impl Display) -> Self {
        Self::Later(format!("{what}: {error}"))
    }

    /// Before the mail itself, an answer that is an error concerns all mails.
    fn of_all(self) -> Self {
        match self {
            Self::Failed(why) => Self::Later(why),
            other => other,
        }
    }
}

/// A server and how it is reached.
pub(super) struct Server {
    host: String,
    port: u16,
    timeout: Duration,
    tls: Tls,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    hello: String,
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// A connection to it, after the greeting and over TLS where that is asked for.
pub(super) struct Session {
    wire: Box<dyn Wire>,
}

impl Server {
    /// # Errors
    /// Its name is none, or the certificates cannot be read.
    pub(super) fn new(settings: &SmtpSettings, own_name: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let found = trusted(settings.ca_file.as_deref())?;
        roots.add_parsable_certificates(found.into_iter().map(Into::into));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(settings.host.clone());
        let plain = |c: &char| c.is_ascii_alphanumeric() || "-.".contains(*c);
        let hello: String = own_name.chars().filter(plain).collect();
        Ok(Self {
            host: settings.host.clone(),
            port: settings.port(),
            timeout: settings.timeout.0,
            tls: settings.tls,
            config: Arc::new(config),
            name: name.map_err(|_| format!("{:?} is no name of a server", settings.host))?,
            hello: if hello.is_empty() { "localhost".to_owned() } else { hello },
        })
    }

    /// Connects, greets, and goes over to TLS as the settings say.
    pub(super) fn connect(&self) -> Result<Session, Trouble> {
        self.greeted().map_err(Trouble::of_all)
    }

    fn greeted(&self) -> Result<Session, Trouble> {
        let stream = self.tcp().map_err(|error| Trouble::of("cannot be reached", error))?;
        if self.tls == Tls::Implicit {
            let mut session = Session { wire: self.secured(stream)? };
            session.greet(&self.hello)?;
            return Ok(session);
        }
        let again = stream.try_clone().map_err(|error| Trouble::of("connection", error))?;
        let mut session = Session { wire: Box::new(stream) };
        session.greet(&self.hello)?;
        if self.tls == Tls::Starttls {
            session.command("STARTTLS", "STARTTLS", 2)?;
            // Replies are read byte by byte: nothing that came in the clear is left to be trusted later.
            session = Session { wire: self.secured(again)? };
            session.command("EHLO", &format!("EHLO {}", self.hello), 2)?;
        }
        Ok(session)
    }

    fn tcp(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::other("it has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(self.timeout))?;
                    stream.set_write_timeout(Some(self.timeout))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn secured(&self, stream: TcpStream) -> Result<Box<dyn Wire>, Trouble> {
        let client = ClientConnection::new(self.config.clone(), self.name.clone());
        let client = client.map_err(|error| Trouble::of("TLS", error))?;
        Ok(Box::new(StreamOwned::new(client, stream)))
    }
}

impl Session {
    fn greet(&mut self, hello: &str) -> Result<(), Trouble> {
        self.expect("greeting", 2)?;
        self.command("EHLO", &format!("EHLO {hello}"), 2)
    }

    /// Names the user. A wrong password is the operator's to mend, so it is tried again.
    pub(super) fn login(&mut self, user: &str, password: &str) -> Result<(), Trouble> {
        let secret = base64(format!("\0{user}\0{password}").as_bytes());
        self.command("AUTH", &format!("AUTH PLAIN {secret}"), 2).map_err(Trouble::of_all)
    }

    /// Sends a mail. It is taken when the server says so after its end, and not before. Refused is the mail that
    /// is refused itself; an address or a relay that is refused can be mended. Gives the addresses that were
    /// refused beside others that were taken, and why.
    pub(super) fn send(
        &mut self,
        from: &str,
        to: &[String],
        mail: &str,
    ) -> Result<Vec<String>, Trouble> {
        self.command("MAIL", &format!("MAIL FROM:<{from}>"), 2)?;
        let mut refused = Vec::new();
        for address in to {
            let answer = self.command("RCPT", &format!("RCPT TO:<{address}>"), 2);
            refused.extend(answer.err().map(|trouble| (address, trouble)));
        }
        // One bad address does not keep the others from being told.
        if refused.len() == to.len()
            && let Some((_, first)) = refused.pop()
        {
            return Err(first);
        }
        self.command("DATA", "DATA", 3)?;
        self.write(mail.as_bytes()).and_then(|()| self.write(b".\r\n"))?;
        let (code, text) = self.reply("end of the mail")?;
        match code / 100 {
            2 => {
                let _polite = self.write(b"QUIT\r\n");
                let miss = |(address, trouble)| format!("{address} does not get it: {trouble}");
                Ok(refused.into_iter().map(miss).collect())
            }
            5 => Err(Trouble::Refused(format!("refuses the mail: {code} {text}"))),
            _ if code == 421 => Err(Trouble::Later(format!("takes no mail now: {code} {text}"))),
            _ => Err(Trouble::Failed(format!("does not take the mail: {code} {text}"))),
        }
    }

    fn command(&mut self, what: &str, line: &str, class: u16) -> Result<(), Trouble> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.expect(what, class)
    }

    fn expect(&mut self, what: &str, class: u16) -> Result<(), Trouble> {
        let (code, text) = self.reply(what)?;
        match code {
            code if code / 100 == class => Ok(()),
            421 => Err(Trouble::of(what, format!("{code} {text}"))),
            _ => Err(Trouble::Failed(format!("{what}: {code} {text}"))),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let written = self.wire.write_all(bytes).and_then(|()| self.wire.flush());
        written.map_err(|error| Trouble::of("connection", error))
    }

    /// The code and the last line's text.
    fn reply(&mut self, what: &str) -> Result<(u16, String), Trouble> {
        let mut read = 0;
        loop {
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                let mut byte = [0];
                self.wire.read_exact(&mut byte).map_err(|error| Trouble::of(what, error))?;
                line.push(byte[0]);
                read += 1;
                if read > REPLY_LIMIT {
                    return Err(Trouble::of(what, "its reply does not end"));
                }
            }
            let line = String::from_utf8_lossy(&line);
            let code = line.get(..3).and_then(|digits| digits.parse().ok());
            let Some(code) = code else { return Err(Trouble::of(what, "it does not speak SMTP")) };
            if line.as_bytes().get(3) != Some(&b'-') {
                let text = line.get(4..).unwrap_or_default().trim();
                let plain = text.chars().filter(|c| !c.is_control()).take(TOLD).collect();
                return Ok((code, plain));
            }
        }
    }
}
