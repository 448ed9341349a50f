//! What happened.

/// A stretch of time in which events may have been lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {}
