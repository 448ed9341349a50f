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
    /// Of `agent`, whose event files `keeper` opens. Without a keeper the agent opens them, and stays a KFD
    /// process although they are closed.
    #[must_use]
    pub fn of(agent: &Arc<Shared>, keeper: Option<KeeperSource>) -> Self {
        Self { agent: Arc::clone(agent), keeper }
    }
}

impl Grip for Hold {
    fn let_go(&self) -> Result<()> {
        self.agent.let_go();
        self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.let_go(KEEPER_MAY_TAKE))
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
