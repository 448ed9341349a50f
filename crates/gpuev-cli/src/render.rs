//! How things look: tables, event lines, colours.

pub(crate) mod line;
pub(crate) mod table;
