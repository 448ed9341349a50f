//! One module a command: its arguments and what it does.

pub(crate) mod agent;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod keeper;
pub(crate) mod list;
pub(crate) mod operate;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod rules;
pub(crate) mod sim;
pub(crate) mod watch;
pub(crate) mod yielding;
