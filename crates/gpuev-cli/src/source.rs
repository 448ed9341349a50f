//! What `--source` means.

use gpuev::Machine;

use crate::args::{SourceArgs, no_such};
use crate::exit::Failure;

/// A machine to work on, and what must live as long as it does.
pub(crate) struct Source {
    pub machine: Machine,
}

impl Source {
    /// Opens what `--source` names.
    pub(crate) fn open(args: &SourceArgs) -> Result<Self, Failure> {
        match args.source.split_once(':').unwrap_or((&args.source, "")) {
            ("host", "") => Ok(Self { machine: Machine::host() }),
            (kind, _) => Err(Failure::Usage(format!(
                "--source {}: {}",
                args.source,
                no_such("source", kind, &["host", "sim", "file"])
            ))),
        }
    }
}
