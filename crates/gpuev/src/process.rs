//! Processes: what the pids in events are called.

use crate::{Comm, Machine};

/// Names of processes by pid.
#[derive(Debug)]
pub struct NameCache {
    machine: Machine,
}

impl NameCache {
    /// For the processes of `machine`.
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        Self { machine: machine.clone() }
    }

    /// Looks the name of `pid` up now.
    #[must_use]
    pub fn look_up(&self, pid: u32) -> Option<Comm> {
        let path = self.machine.path(format!("proc/{pid}/comm"));
        let name = std::fs::read(path).ok()?;
        Some(Comm::new(name.strip_suffix(b"\n").unwrap_or(&name)))
    }

    /// The name of `pid`.
    pub fn name(&mut self, pid: u32, _now_boot_ns: u64) -> Comm {
        self.look_up(pid).unwrap_or(Comm::NONE)
    }

    /// Forgets `pid`.
    pub fn forget(&mut self, _pid: u32) {}
}
