//! Moments at which a thread may stand still, for tests to do then what the rest of the world might do.

/// Where a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Moment {
    /// The time before a read is taken, the driver is not yet asked.
    BeforeRead,
    /// The driver has answered, the time after the read is not yet taken.
    AfterRead,
    /// An event file was read for the last time and is still open.
    BeforeClose,
    /// An event file is closed, what was read from it is not yet handed out.
    AfterClose,
    /// The system is about to be asked whose number an event has.
    BeforeLookup,
}

/// # Errors
/// What a test wants the call to fail with.
#[cfg(not(test))]
#[allow(clippy::unnecessary_wraps)]
pub(crate) const fn pass(_moment: Moment) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use tests::{Standing, pass};

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use super::Moment;

    type Act = Arc<dyn Fn(Moment) -> std::io::Result<()> + Send + Sync>;

    static ACT: Mutex<Option<Act>> = Mutex::new(None);
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    /// While it lives, every thread that passes a moment does as it was told.
    pub(crate) struct Standing(#[allow(dead_code)] MutexGuard<'static, ()>);

    impl Standing {
        pub(crate) fn still(
            act: impl Fn(Moment) -> std::io::Result<()> + Send + Sync + 'static,
        ) -> Self {
            let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            *ACT.lock().unwrap() = Some(Arc::new(act));
            Self(alone)
        }
    }

    impl Drop for Standing {
        fn drop(&mut self) {
            *ACT.lock().unwrap() = None;
        }
    }

    pub(crate) fn pass(moment: Moment) -> std::io::Result<()> {
        let act = ACT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        act.map_or(Ok(()), |act| act(moment))
    }
}
