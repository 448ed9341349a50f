//! Which machine Python looks at: this one, unless a simulated one was put in its place.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use gpuev::Machine;
use gpuev::keeper::KeeperSource;
use pyo3::prelude::*;

use crate::error::raise;
use crate::gpu::Gpu;

static CURRENT: Mutex<Option<Machine>> = Mutex::new(None);

/// Where keepers are had that open this machine's event files; without one, this process opens them.
static KEEPER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The machine to look at now.
pub(crate) fn current() -> Machine {
    let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    current.clone().unwrap_or_else(this_machine)
}

/// With keepers of its own each time: the child of a fork finds none of its parent's.
fn this_machine() -> Machine {
    let keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(path) = &*keeper else { return Machine::host() };
    let is_socket = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    Machine::host().with_event_source(if is_socket {
        KeeperSource::at_socket(path)
    } else {
        KeeperSource::of_program(path, &["keeper"])
    })
}

/// Has a keeper open the event files of this machine from now on; this process again for `None`.
#[pyfunction]
#[pyo3(signature = (keeper))]
pub(crate) fn use_keeper(keeper: Option<PathBuf>) {
    *KEEPER.lock().unwrap_or_else(PoisonError::into_inner) = keeper;
}

/// Looks at `machine` from now on; gives the one before.
pub(crate) fn replace(machine: Option<Machine>) -> Option<Machine> {
    std::mem::replace(&mut CURRENT.lock().unwrap_or_else(PoisonError::into_inner), machine)
}

/// Looks at the machine whose `/sys`, `/proc` and `/dev` are below `root`; at this one for `None`.
#[pyfunction]
#[pyo3(signature = (root))]
pub(crate) fn set_machine_root(root: Option<PathBuf>) {
    replace(root.map(Machine::at));
}

/// The GPUs that `selector` names: an index, a PCI address or a unique id, the latter two with or without
/// `/partition`.
#[pyfunction]
pub(crate) fn select_gpus(py: Python<'_>, selector: &str) -> PyResult<Vec<Gpu>> {
    let machine = current();
    let inventory = py.detach(|| machine.inventory()).map_err(|error| raise(py, &error))?;
    let chosen = inventory.select(selector).map_err(|error| raise(py, &error))?;
    Ok(chosen.into_iter().map(|gpu| Gpu::new(&machine, gpu.clone())).collect())
}

/// The GPUs of the machine, in order of PCI address and partition.
#[pyfunction]
pub(crate) fn list_gpus(py: Python<'_>) -> PyResult<Vec<Gpu>> {
    let machine = current();
    let gpus = py.detach(|| machine.gpus()).map_err(|error| raise(py, &error))?;
    Ok(gpus.into_iter().map(|gpu| Gpu::new(&machine, gpu)).collect())
}
