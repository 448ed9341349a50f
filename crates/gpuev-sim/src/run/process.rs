//! Which processes on the machine are KFD processes: those that opened `/dev/kfd`, each with the
//! GPUs that were there when it did so first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io;

use crate::client::Client;
use crate::kfd::KfdProcess;
use crate::machine::SimMachine;

/// A process as KFD tells it from others, by its memory: whoever executes another program is
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Program {
    pid: u32,
    /// Since boot, in ticks.
    started: u64,
    /// Where its arguments are, which is elsewhere in each program. 0 if that may not be known.
    arguments: u64,
}

impl Program {
    /// The program that the process `pid` runs.
    ///
    /// # Errors
    /// `/proc/PID/stat` cannot be read.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name may hold anything, but what follows the last parenthesis does not.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let field = |number: usize| {
            let text = after.split_ascii_whitespace().nth(number - 3);
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        Ok(Program { pid, started: field(22), arguments: field(48) })
    }

    fn lives(&self) -> bool {
        Program::of(self.pid).is_ok_and(|now| now == *self)
    }
}

/// All KFD processes.
#[derive(Default)]
pub(super) struct Processes(RefCell<HashMap<Program, KfdProcess>>);

impl Processes {
    /// The KFD process that this program is, if it is one.
    pub(super) fn get(&self, program: Program) -> Option<KfdProcess> {
        self.0.borrow().get(&program).cloned()
    }

    /// Has a program open `/dev/kfd`.
    ///
    /// # Errors
    /// As [`SimMachine::open_kfd`].
    pub(super) fn open(
        &self,
        machine: &SimMachine,
        program: Program,
        client: &Client,
    ) -> io::Result<KfdProcess> {
        if let Some(process) = self.get(program) {
            process.open_again(client)?;
            return Ok(process);
        }
        let process = machine.open_kfd(client)?;
        let mut known = self.0.borrow_mut();
        known.retain(|program, _| program.lives());
        known.insert(program, process.clone());
        Ok(process)
    }
}
