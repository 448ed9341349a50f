//! Processes of a history: each is written once and named by a number in every event.

use std::collections::HashMap;

use gpuev::process::{Attribution, Process};
use gpuev::{Comm, Life, Lives, Result};
use rusqlite::Connection;

use crate::history::History;
use crate::value::{Name, Text, bytes};

/// So many are remembered. Then all are forgotten and written anew as they come: events from there on name no
/// older row, and retention can delete those with the events that do.
const REMEMBERED: usize = 16_384;

/// So many that were just written wait to be described.
const UNDESCRIBED: usize = 256;

/// A process under one name: threads have names of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ProcessKey {
    pub(crate) pid: u32,
    pub(crate) life: Life,
    pub(crate) name: Comm,
}

/// Gives processes their numbers.
#[derive(Debug, Default)]
pub(crate) struct ProcessNumbers {
    pub(crate) lives: Lives,
    numbers: HashMap<ProcessKey, i64>,
    last: Option<(ProcessKey, i64)>,
    /// The first that events from now on may name.
    first: i64,
    undescribed: Vec<Undescribed>,
}

/// A process of which only pid and name are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Undescribed {
    pub(crate) number: i64,
    pub(crate) key: ProcessKey,
    /// When its first event was received: whoever began later is another process.
    pub(crate) seen_boot_ns: u64,
}

impl ProcessNumbers {
    /// Numbers for a file that has none above `last`.
    pub(crate) fn after(last: i64) -> Self {
        Self { first: last.saturating_add(1), ..Self::default() }
    }

    /// The first number that events from now on may name.
    pub(crate) fn first(&self) -> i64 {
        self.first
    }

    /// The number of the process, which is written where it is new.
    pub(crate) fn number(
        &mut self,
        connection: &Connection,
        session: i64,
        key: ProcessKey,
        seen_boot_ns: u64,
    ) -> rusqlite::Result<i64> {
        if let Some((last, number)) = self.last
            && last == key
        {
            return Ok(number);
        }
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => self.write(connection, session, key, seen_boot_ns)?,
        };
        self.last = Some((key, number));
        Ok(number)
    }

    fn write(
        &mut self,
        connection: &Connection,
        session: i64,
        key: ProcessKey,
        seen_boot_ns: u64,
    ) -> rusqlite::Result<i64> {
        let insert = "INSERT INTO process (session, pid, life, name) VALUES (?1, ?2, ?3, ?4)";
        let row = (session, key.pid, key.life.number, Name(key.name));
        connection.prepare_cached(insert)?.execute(row)?;
        let number = connection.last_insert_rowid();
        if self.numbers.len() >= REMEMBERED {
            self.numbers.clear();
            self.first = number;
        }
        self.numbers.insert(key, number);
        // Of two at once nobody knows which one is meant.
        if self.undescribed.len() < UNDESCRIBED && !key.life.is_shared {
            self.undescribed.push(Undescribed { number, key, seen_boot_ns });
        }
        Ok(number)
    }

    /// Those that were written since this was last asked.
    pub(crate) fn take_undescribed(&mut self) -> Vec<Undescribed> {
        std::mem::take(&mut self.undescribed)
    }
}

/// Adds what is known of a process to its row.
pub(crate) fn describe(
    connection: &Connection,
    number: i64,
    process: &Process,
) -> rusqlite::Result<()> {
    let update = "UPDATE process SET host_pid = ?2, started_boot_ns = ?3, user = ?4, command = ?5,
        cgroup = ?6, slurm_job = ?7, pod_uid = ?8, container_id = ?9, unit = ?10 WHERE id = ?1";
    let command = process.command.join(&b' ');
    let belongs = &process.attribution;
    connection.prepare_cached(update)?.execute((
        number,
        process.pid,
        process.start_boot_ns.map(u64::cast_signed),
        process.user.as_deref(),
        Some(Text(&command)).filter(|_| !command.is_empty()),
        belongs.cgroup.as_deref(),
        belongs.slurm.as_ref().map(|task| task.job.cast_signed()),
        belongs.kubernetes.as_ref().map(|pod| pod.uid.as_str()),
        belongs.container.as_ref().map(|container| container.id.as_str()),
        belongs.unit.as_deref().or(belongs.user_unit.as_deref()),
    ))?;
    Ok(())
}

impl History {
    /// The processes of a session that were described when they were first seen, each with the number by which
    /// events name it, oldest first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn processes(&self, session: i64) -> Result<Vec<(u32, Process)>> {
        self.read(|connection| {
            let select = "SELECT pid, name, host_pid, started_boot_ns, user, command, cgroup
                FROM process WHERE session = ?1 AND host_pid IS NOT NULL ORDER BY id";
            connection.prepare_cached(select)?.query_map([session], read)?.collect()
        })
    }
}

/// What a process belongs to is read from its control group, as it was when it lived.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(u32, Process)> {
    let mut process = Process::known_as(row.get(2)?, Comm::new(bytes(row.get_ref(1)?)));
    process.start_boot_ns = row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned);
    process.user = row.get(4)?;
    let command = bytes(row.get_ref(5)?);
    process.command = if command.is_empty() { Vec::new() } else { vec![command.to_owned()] };
    if let Some(cgroup) = row.get::<_, Option<String>>(6)? {
        process.attribution = Attribution::from_cgroup_file(&format!("0::{cgroup}\n"));
    }
    Ok((row.get(0)?, process))
}
