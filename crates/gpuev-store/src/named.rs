//! GPUs and processes of a history by the numbers that its events name them with.

use std::collections::HashMap;

use gpuev::{Comm, GpuId};
use rusqlite::{Connection, OptionalExtension};

use crate::value::{GPU_COLUMNS, bytes, gpu};

/// So many processes are remembered.
const REMEMBERED: usize = 65_536;

/// A GPU and the session that it is of.
pub(crate) type GpuOfSession = (GpuId, i64);

/// What was looked up so far. The latest of each kind is kept at hand: neighbours are of one, as a rule.
#[derive(Debug, Default)]
pub(crate) struct Named {
    gpus: HashMap<i64, GpuOfSession>,
    gpu: Option<(i64, GpuOfSession)>,
    processes: HashMap<i64, Comm>,
    process: Option<(i64, Comm)>,
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

    /// The name of the process with that number; none where it is 0 or nobody knew.
    pub(crate) fn process(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> rusqlite::Result<Comm> {
        if number == 0 {
            return Ok(Comm::NONE);
        }
        if let Some((last, name)) = self.process
            && last == number
        {
            return Ok(name);
        }
        let name = match self.processes.get(&number) {
            Some(name) => *name,
            None => self.look_up_process(connection, number)?,
        };
        self.process = Some((number, name));
        Ok(name)
    }

    fn look_up_process(&mut self, connection: &Connection, number: i64) -> rusqlite::Result<Comm> {
        let name = connection
            .prepare_cached("SELECT name FROM process WHERE id = ?1")?
            .query_row([number], |row| Ok(Comm::new(bytes(row.get_ref(0)?))))
            .optional()?;
        if self.processes.len() >= REMEMBERED {
            self.processes.clear();
        }
        let name = name.unwrap_or(Comm::NONE);
        self.processes.insert(number, name);
        Ok(name)
    }
}
