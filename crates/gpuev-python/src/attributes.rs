//! What the driver's files say of a GPU beside its sensors.

use std::io::ErrorKind;

use gpuev::Error;
use gpuev::health::{self, BadPageStatus, MetricsField};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::error::raise;
use crate::gpu::Gpu;

/// Revolutions a minute, and percent of full drive.
#[derive(IntoPyObject)]
struct FanDict {
    speed: Option<u32>,
    max: Option<u32>,
    duty: Option<u8>,
}

/// Speeds in megatransfers a second and lane.
#[derive(IntoPyObject)]
struct PcieDict {
    speed: Option<u32>,
    width: Option<u8>,
    max_speed: Option<u32>,
    max_width: Option<u8>,
    replays: Option<u64>,
}

/// A page of VRAM that went bad.
#[derive(IntoPyObject)]
struct BadPageDict {
    page: u64,
    size: u64,
    status: &'static str,
}

/// The amdgpu driver.
#[derive(IntoPyObject)]
struct DriverDict {
    loaded: bool,
    version: Option<String>,
    kernel: Option<String>,
    wsl: bool,
}

fn look(gpu: &Gpu) -> health::Sensors<'_> {
    health::Sensors::of(&gpu.gpu)
}

/// The text of a file of the GPU's folder in sysfs. `fixed` says that it is of what never changes, which is
/// also read while the GPU sleeps.
#[pyfunction]
#[pyo3(signature = (gpu, name, fixed = false))]
pub(crate) fn gpu_attribute(py: Python<'_>, gpu: &Gpu, name: &str, fixed: bool) -> Option<String> {
    py.detach(|| if fixed { look(gpu).fixed_attribute(name) } else { look(gpu).attribute(name) })
}

/// The fan of the board.
#[pyfunction]
pub(crate) fn gpu_fan(py: Python<'_>, gpu: &Gpu) -> impl for<'py> IntoPyObject<'py> {
    let fan = py.detach(|| look(gpu).fan());
    FanDict {
        speed: fan.speed.map(|rpm| rpm.0),
        max: fan.max.map(|rpm| rpm.0),
        duty: fan.duty.map(|percent| percent.0),
    }
}

/// The PCI Express link.
#[pyfunction]
pub(crate) fn gpu_pcie(py: Python<'_>, gpu: &Gpu) -> impl for<'py> IntoPyObject<'py> {
    let link = py.detach(|| look(gpu).pcie());
    PcieDict {
        speed: link.speed.map(|speed| speed.0),
        width: link.width,
        max_speed: link.max_speed.map(|speed| speed.0),
        max_width: link.max_width,
        replays: link.replays,
    }
}

/// Pages of VRAM that went bad; None where the GPU keeps no list.
#[pyfunction]
pub(crate) fn gpu_bad_pages(
    py: Python<'_>,
    gpu: &Gpu,
) -> Option<Vec<impl for<'py> IntoPyObject<'py>>> {
    let pages = py.detach(|| look(gpu).bad_page_list())?;
    let dict = |page: &health::BadPage| BadPageDict {
        page: page.page,
        size: page.size,
        status: match page.status {
            BadPageStatus::Reserved => "reserved",
            BadPageStatus::Pending => "pending",
            BadPageStatus::Unreservable => "unreservable",
        },
    };
    Some(pages.iter().map(dict).collect::<Vec<_>>())
}

/// With how many bad pages the driver gives a GPU up; None where the driver does not say. Only root may ask.
#[pyfunction]
pub(crate) fn gpu_bad_page_threshold(py: Python<'_>, gpu: &Gpu) -> PyResult<Option<u32>> {
    let Some(card) = gpu.gpu.card else { return Ok(None) };
    let file = format!("sys/kernel/debug/dri/{card}/ras/bad_page_cnt_threshold");
    let path = gpu.machine.path(file);
    match py.detach(|| std::fs::read_to_string(&path)) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(raise(py, &Error::io(format!("read {}", path.display()), error)))
        }
        Err(_no_such_file) => Ok(None),
    }
}

/// The driver's table `gpu_metrics` by the driver's names: an int, a list, None for what has no value; also
/// `structure_size`, `format_revision`, `content_revision`, and `partitions`, a dict each.
#[pyfunction]
pub(crate) fn gpu_metrics_table<'py>(
    py: Python<'py>,
    gpu: &Gpu,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(table) = py.detach(|| look(gpu).metrics_table()) else { return Ok(None) };
    let dict = fields(py, &table.fields)?;
    dict.set_item("structure_size", table.size)?;
    dict.set_item("format_revision", table.format)?;
    dict.set_item("content_revision", table.content)?;
    let partitions = PyList::empty(py);
    for partition in &table.partitions {
        partitions.append(fields(py, partition)?)?;
    }
    dict.set_item("partitions", partitions)?;
    Ok(Some(dict))
}

fn fields<'py>(py: Python<'py>, fields: &[MetricsField]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for field in fields {
        if field.array {
            dict.set_item(field.name, &field.values)?;
        } else {
            dict.set_item(field.name, field.values.first().copied().flatten())?;
        }
    }
    Ok(dict)
}

/// What is known of the driver and the kernel of the machine that is looked at.
#[pyfunction]
pub(crate) fn driver_info(py: Python<'_>) -> impl for<'py> IntoPyObject<'py> {
    let machine = crate::machine::current();
    py.detach(|| {
        let (driver, kernel) = (machine.driver(), machine.kernel_release());
        // Windows' own graphics device; the kernel of WSL names its maker.
        let wsl = machine.path("dev/dxg").exists()
            || kernel.as_ref().is_some_and(|release| release.contains("microsoft"));
        DriverDict { loaded: driver.loaded, version: driver.version, kernel, wsl }
    })
}
