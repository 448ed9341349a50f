//! What happened, on disk: record, query, report, export.
//!
//! A history is an SQLite file (`docs/history-schema.md`) that keeps facts: the driver's line, the GPU, the
//! clocks, the sequence number, the process, the gaps. Everything else is computed from them by the code
//! that also runs live.

#![forbid(unsafe_code)]

mod boots;
mod bulk;
mod chosen;
mod entries;
pub mod export;
mod failure;
mod file_system;
mod filter_text;
mod histories;
mod history;
pub mod import;
mod intervals;
mod location;
mod lock;
mod log;
mod moment;
mod named;
mod note;
mod open;
mod packed;
mod plan;
mod process;
mod query;
mod recorded;
mod recorder;
pub mod report;
mod retention;
mod row;
mod schema;
mod session;
mod uid;
mod value;
mod writer;

pub use entries::{Entries, Entry};
pub use file_system::FileSystem;
pub use histories::Histories;
pub use history::{History, Items};
pub use location::{
    default_history, default_history_to_read, default_history_to_record, histories_in, new_history,
    state_folder,
};
pub use log::EventLog;
pub use moment::{Zone, unix_ns_in, unix_ns_of};
pub use note::{Note, NotedEvent, Notes, RecordedNote};
pub use query::Query;
pub use recorded::{NotKept, RecordedSession};
pub use recorder::{Notebook, Progress, Recorder};
pub use retention::Retention;
pub use row::{Place, Row};
pub use schema::VERSION;
pub use session::Session;
pub use uid::Uid;
pub use writer::Writer;
