//! Whether the documented API has been initialised, and how often.

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// One more `amdsmi_init`.
#[pyfunction]
pub(crate) fn initialize() {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// One `amdsmi_shut_down`. `None` where there was no `amdsmi_init` for it, else whether it was the last.
#[pyfunction]
pub(crate) fn shut_down() -> Option<bool> {
    let less = |count: usize| count.checked_sub(1);
    COUNT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok().map(|before| before == 1)
}

/// Whether there were more of the first than of the second.
#[pyfunction]
pub(crate) fn is_initialized() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}
