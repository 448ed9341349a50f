//! What an operator should know about a sink.

use std::fmt;
use std::sync::Arc;

/// What an operator should know about a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// It does not take messages any more; they wait.
    Failing {
        /// Why.
        error: String,
    },
    /// It takes them again.
    Recovered {
        /// How often it failed.
        failures: u64,
    },
    /// It answered this message with an error; the message is tried again, and those behind it go on.
    SetAside {
        /// Which message.
        id: Arc<str>,
        /// Why.
        error: String,
    },
    /// It will never take this message.
    DeadLetter {
        /// Which message.
        id: Arc<str>,
        /// Why.
        error: String,
    },
    /// It took a message, and some of those who should have got it did not.
    Missed {
        /// Who, and why.
        error: String,
    },
    /// Its queue is full: messages are lost from here on.
    Full,
    /// What it does from time to time, beside messages, does not work.
    UpkeepFailing {
        /// Why.
        error: String,
    },
    /// It works again.
    UpkeepRecovered,
    /// What waits cannot be kept on disk: it is delivered from memory, and a restart loses it.
    NotKept {
        /// Why.
        error: String,
    },
    /// It is kept again.
    KeptAgain,
    /// What an earlier version left was taken over.
    TakenOver {
        /// How many messages.
        messages: u64,
        /// Records that could not be read.
        damaged: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing { error } => write!(f, "does not take messages, they wait: {error}"),
            Self::Recovered { failures } => {
                write!(f, "takes messages again after {failures} tries")
            }
            Self::SetAside { id, error } => {
                write!(f, "does not take message {id}, the others go on: {error}")
            }
            Self::DeadLetter { id, error } => write!(f, "gives message {id} up: {error}"),
            Self::Missed { error } => write!(f, "delivers to some only: {error}"),
            Self::Full => f.write_str("its queue is full, messages are lost"),
            Self::UpkeepFailing { error } => write!(f, "takes messages, but: {error}"),
            Self::UpkeepRecovered => f.write_str("is well again beside its messages, too"),
            Self::NotKept { error } => {
                write!(f, "cannot keep on disk what waits, a restart would lose it: {error}")
            }
            Self::KeptAgain => f.write_str("keeps on disk again what waits"),
            Self::TakenOver { messages, damaged: 0 } => {
                write!(f, "has {messages} messages that an earlier version left")
            }
            Self::TakenOver { messages, damaged } => {
                write!(
                    f,
                    "has {messages} messages that an earlier version left; {damaged} were damaged"
                )
            }
        }
    }
}

/// Who is told: gets the sink's name and what there is to know. Called by the sink's threads.
pub type Report = Arc<dyn Fn(&str, &Notice) + Send + Sync>;
