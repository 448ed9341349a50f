//! The compiled core of the Python package `gpuev`.
//!
//! It says in Python what the library `gpuev` says, and adds nothing but what Python needs: dicts and
//! objects, exceptions, the interpreter's lock, Ctrl-C and fork.

mod attributes;
mod batch;
mod convert;
mod error;
mod event;
mod filter;
mod fork;
mod gpu;
mod health;
mod history;
mod machine;
mod neighbours;
mod pickle;
mod reader;
mod session;
mod sim;
mod span;
mod topology;
mod vendor;
mod wait;
mod watch;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::attributes::{
        driver_info, gpu_attribute, gpu_bad_page_threshold, gpu_bad_pages, gpu_fan,
        gpu_metrics_table, gpu_pcie,
    };
    #[pymodule_export]
    use crate::event::{PyEvent, PyGap, PyGpuId};
    #[pymodule_export]
    use crate::gpu::{Gpu, ProcessorHandle};
    #[pymodule_export]
    use crate::health::{Sensors, compute_processes};
    #[pymodule_export]
    use crate::history::{HistoryEntries, HistoryFile, HistoryReport, history_columns, moment};
    #[pymodule_export]
    use crate::machine::{list_gpus, select_gpus, set_machine_root, use_keeper};
    #[pymodule_export]
    use crate::pickle::{restore_event, restore_gap, restore_gpu, restore_gpu_id, restore_span};
    #[pymodule_export]
    use crate::reader::EventReader;
    #[pymodule_export]
    use crate::session::{initialize, is_initialized, shut_down};

    #[pymodule_export]
    use crate::sim::{SimMachine, machines, scenarios};
    #[pymodule_export]
    use crate::span::{Pairing, PySpan};
    #[pymodule_export]
    use crate::topology::{gpu_caches, gpu_links, gpu_memory_width, gpu_nearest_cpu, gpu_route};
    #[pymodule_export]
    use crate::vendor::{event_data, vendor_message};
    #[pymodule_export]
    use crate::watch::Stream;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::neighbours::check(module)?;
        crate::fork::register(module.py())
    }
}
