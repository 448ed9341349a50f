//! The row of a session: written when it begins, with each commit, and when it ends.

use std::time::Instant;

use gpuev::Filter;
use gpuev::time::Anchor;

use super::Writer;
use crate::filter_text::FilterText;
use crate::process::ProcessNumbers;
use crate::retention::Ages;
use crate::session::Session;

/// The last number of an item and of a process that the file has ever given.
const LAST: &str = "SELECT max(
        coalesce((SELECT max(id) FROM event), 0), coalesce((SELECT max(id) FROM gap), 0),
        coalesce((SELECT max(id) FROM note), 0), coalesce((SELECT max(last_item) FROM batch), 0),
        coalesce((SELECT max(last_item) FROM session), 0),
        coalesce((SELECT max(first_item) FROM session), 1) - 1),
    coalesce((SELECT max(id) FROM process), 0)";

impl Writer {
    pub(super) fn begin_session(&mut self, session: &Session) -> rusqlite::Result<()> {
        let (last_item, last_process): (i64, i64) =
            self.connection.query_row(LAST, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        self.first_item = last_item.saturating_add(1);
        self.next_item = self.first_item;
        self.processes = ProcessNumbers::after(last_process);
        self.gpus.clear();
        self.lists_gpus = self.is_live && !session.gpus.is_empty();
        self.is_filtered = session.filter != Filter::new();
        self.seen = None;
        self.imported_alive = session.alive.filter(|_| !self.is_live);
        self.ages = Ages::before(&self.connection, session)?;
        self.begin()?;
        let gpus = session.gpus.iter().map(|(gpu, _)| *gpu);
        let filter = FilterText::of(&session.filter, gpus).map(|filter| filter.to_json());
        let alive = self.is_live.then_some(session.started);
        self.connection.prepare_cached(
            "INSERT INTO session (first_item, item_base, uid, host, boot_id, kernel, recorder, scope, filter,
             started_boot_ns, started_unix_ns, alive_boot_ns, alive_unix_ns, closed)
             VALUES (?1, ?1 - 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0)",
        )?.execute((
            self.next_item,
            session.uid.to_string(),
            &session.host,
            &session.boot_id,
            &session.kernel,
            &session.recorder,
            &session.scope,
            filter,
            session.started.boot_ns.cast_signed(),
            session.started.unix_ns,
            alive.map(|at| at.boot_ns.cast_signed()),
            alive.map(|at| at.unix_ns),
        ))?;
        self.session = self.connection.last_insert_rowid();
        for (gpu, name) in &session.gpus {
            let since = session.came_later.iter().find(|(later, _)| later == gpu);
            self.add_gpu(*gpu, name.as_deref(), since.map(|(_, since)| *since))?;
        }
        self.connection.execute_batch("COMMIT")
    }

    /// The session is alive, and has given so many numbers. A part of each transaction.
    pub(super) fn mark_alive(&mut self) -> rusqlite::Result<()> {
        self.marked = Instant::now();
        let alive = self.is_live.then(Anchor::now);
        let update =
            "UPDATE session SET last_item = ?1, alive_boot_ns = coalesce(?2, alive_boot_ns),
            alive_unix_ns = coalesce(?3, alive_unix_ns) WHERE id = ?4";
        self.connection.prepare_cached(update)?.execute((
            self.next_item - 1,
            alive.map(|at| at.boot_ns.cast_signed()),
            alive.map(|at| at.unix_ns),
            self.session,
        ))?;
        Ok(())
    }

    /// The session is over, and its recorder says so. One of which nobody knows when it ended was alive at its last
    /// item.
    pub(super) fn close_session(&mut self, ended: Option<Anchor>) -> rusqlite::Result<()> {
        let alive = ended.or(self.imported_alive).or(self.seen);
        let update = "UPDATE session SET ended_boot_ns = ?1, ended_unix_ns = ?2,
            alive_boot_ns = ?3, alive_unix_ns = ?4, last_item = ?5, closed = 1 WHERE id = ?6";
        self.connection.prepare_cached(update)?.execute((
            ended.map(|at| at.boot_ns.cast_signed()),
            ended.map(|at| at.unix_ns),
            alive.map(|at| at.boot_ns.cast_signed()),
            alive.map(|at| at.unix_ns),
            self.next_item - 1,
            self.session,
        ))?;
        Ok(())
    }
}
