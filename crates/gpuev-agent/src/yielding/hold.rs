//! What an agent holds of the driver.

use std::sync::Arc;
use std::time::Duration;

use gpuev::{Error, ErrorKind, Result};

use super::Grip;
use crate::agent::Shared;
use gpuev::keeper::KeeperSource;

/// A keeper that needs longer to end is told of as a failure.
const KEEPER_MAY_TAKE: Duration = Duration::from_secs(2);

/// An agent's event files, and the keeper that opened them.
#[derive(Debug)]
pub struct Hold {
    agent: Arc<Shared>,
    keeper: Option<KeeperSource>,
}

impl Hold {
    /// Of `agent`, whose event files `keeper` opens. Only the agent of a simulated machine has none.
    #[must_use]
    pub fn of(agent: &Arc<Shared>, keeper: Option<KeeperSource>) -> Self {
        Self { agent: Arc::clone(agent), keeper }
    }
}

impl Grip for Hold {
    fn let_go(&self) -> Result<()> {
        self.agent.let_go();
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.let_go(KEEPER_MAY_TAKE)?;
        // What was just being opened is closed, too.
        self.agent.settle();
        Ok(())
    }

    fn take_back(&self) -> Result<usize> {
        if let Some(keeper) = &self.keeper {
            keeper.take_back();
        }
        self.agent.take_back()?;
        let status = self.agent.status();
        match status.unreadable.first() {
            None => Ok(status.gpus.len()),
            Some((gpu, why)) => {
                Err(Error::new(ErrorKind::Io, format!("GPU {}: {why}", gpu.id.bdf)))
            }
        }
    }
}
