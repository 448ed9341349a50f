//! GPUs and processes of a history by the numbers that its events name them with.

use std::collections::HashMap;

use gpuev::{Comm, GpuId, Record};
use rusqlite::{Connection, OptionalExtension};

use crate::value::{GPU_COLUMNS, bytes, gpu};

/// So many processes are remembered.
const REMEMBERED: usize = 65_536;

/// A GPU and the session that it is of.
pub(crate) type GpuOfSession = (GpuId, i64);

/// A process as events name it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NamedProcess {
    pub(crate) pid: Option<u32>,
    pub(crate) name: Comm,
}

impl NamedProcess {
    /// The process of the thread that `record` names. Before events had a `tid`, that was written in the place of the
    /// process, without a name.
    pub(crate) fn of_thread(&self, record: &Record<'_>) -> Option<u32> {
        let tid = gpuev::tid_of(record)?;
        self.pid.filter(|pid| *pid != tid || self.name != Comm::NONE)
    }
}

/// What was looked up so far. The latest of each kind is kept at hand: neighbours are of one, as a rule.
#[derive(Debug, Default)]
pub(crate) struct Named {
    gpus: HashMap<i64, GpuOfSession>,
    gpu: Option<(i64, GpuOfSession)>,
    processes: HashMap<i64, NamedProcess>,
    process: Option<(i64, NamedProcess)>,
}

impl Named {
    /// The GPU with that number.
    pub(crate) fn gpu(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> rusqlite::Result<GpuOfSession> {
        if let Some((last, found)) = self.gpu
            && last == number
        {
            return Ok(found);
        }
        let found = match self.gpus.get(&number) {
            Some(found) => *found,
            None => self.look_up_gpu(connection, number)?,
        };
        self.gpu = Some((number, found));
        Ok(found)
    }

    fn look_up_gpu(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> rusqlite::Result<GpuOfSession> {
        let select = format!("SELECT session, {GPU_COLUMNS} FROM gpu WHERE id = ?1");
        let found = connection
            .prepare_cached(&select)?
            .query_row([number], |row| Ok((gpu(row, 1)?, row.get(0)?)))?;
        self.gpus.insert(number, found);
        Ok(found)
    }

    /// The process with that number; nothing is known of it where that is 0.
    pub(crate) fn process(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> rusqlite::Result<NamedProcess> {
        if number == 0 {
            return Ok(NamedProcess::default());
        }
        if let Some((last, found)) = self.process
            && last == number
        {
            return Ok(found);
        }
        let found = match self.processes.get(&number) {
            Some(found) => *found,
            None => self.look_up_process(connection, number)?,
        };
        self.process = Some((number, found));
        Ok(found)
    }

    fn look_up_process(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> rusqlite::Result<NamedProcess> {
        let found = connection
            .prepare_cached("SELECT pid, name FROM process WHERE id = ?1")?
            .query_row([number], |row| {
                Ok(NamedProcess { pid: row.get(0)?, name: Comm::new(bytes(row.get_ref(1)?)) })
            })
            .optional()?
            .unwrap_or_default();
        if self.processes.len() >= REMEMBERED {
            self.processes.clear();
        }
        self.processes.insert(number, found);
        Ok(found)
    }
}
