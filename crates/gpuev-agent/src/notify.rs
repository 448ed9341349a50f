//! What systemd is told: ready, reloading, stopping, alive (sd_notify(3), `Type=notify-reload`, `WatchdogSec=`).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// Tells the service manager how the agent is, where there is one that wants to know.
#[derive(Debug)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// To whom `$NOTIFY_SOCKET` names: a path, or a name behind `@`.
    #[must_use]
    pub fn from_environment() -> Self {
        let named = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            // Who does not listen must not make the agent wait.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        });
        Self { to: named }
    }

    /// Everything is open and read.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// It ends on purpose.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Signals are still made of what happens; `status` is for people.
    pub fn alive(&self, status: &str) {
        self.send(&format!("WATCHDOG=1\nSTATUS={}", status.replace('\n', " ")));
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.to {
            // A manager that does not listen is no reason to stop.
            let _unheard = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}
