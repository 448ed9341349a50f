//! How a GPU is doing, as dicts. What it does not tell is `None`.

use gpuev::health::{self, ClockDomain, Hertz, Microwatts, TemperatureMetric, TemperatureSensor};
use gpuev::process::{GpuProcess, KfdProcess, KfdUse, Processes};
use pyo3::prelude::*;

use crate::error::raise;
use crate::gpu::Gpu;

/// The sensors and counters of a GPU; each method takes a new look.
#[pyclass(frozen, module = "gpuev")]
pub(crate) struct Sensors(pub(crate) Gpu);

/// Microwatts.
#[derive(IntoPyObject)]
struct PowerDict {
    average: Option<u64>,
    current: Option<u64>,
    cap: Option<u64>,
    cap_min: Option<u64>,
    cap_max: Option<u64>,
    cap_default: Option<u64>,
}

/// Millivolts.
#[derive(IntoPyObject)]
struct VoltageDict {
    gfx: Option<u32>,
    soc: Option<u32>,
    memory: Option<u32>,
}

/// Percent.
#[derive(IntoPyObject)]
struct ActivityDict {
    gfx: Option<u8>,
    memory: Option<u8>,
    media: Option<u8>,
}

/// Bytes.
#[derive(IntoPyObject)]
struct MemoryDict {
    vram_total: Option<u64>,
    vram_used: Option<u64>,
    visible_vram_total: Option<u64>,
    visible_vram_used: Option<u64>,
    gtt_total: Option<u64>,
    gtt_used: Option<u64>,
    usable_total: Option<u64>,
    usable_used: Option<u64>,
}

/// Megahertz.
#[derive(IntoPyObject)]
struct ClockDict {
    current: Option<u64>,
    min: Option<u64>,
    max: Option<u64>,
}

/// Errors since the driver was loaded.
#[derive(IntoPyObject)]
struct RasDict {
    block: String,
    correctable: Option<u64>,
    uncorrectable: Option<u64>,
    deferred: Option<u64>,
}

/// Memory in bytes, engines in nanoseconds since the process opened the GPU, occupancy in percent.
#[derive(IntoPyObject)]
struct ProcessDict {
    pid: u32,
    name: Option<String>,
    vram: u64,
    gtt: u64,
    cpu: u64,
    gfx_ns: u64,
    enc_ns: u64,
    compute_occupancy: Option<u8>,
}

/// What a process uses of all GPUs: bytes, microseconds, compute units.
#[derive(IntoPyObject)]
struct ComputeProcessDict {
    pid: u32,
    vram: Option<u64>,
    sdma_us: Option<u64>,
    busy_compute_units: Option<u32>,
    compute_units: Option<u32>,
}

/// PCI ids.
#[derive(IntoPyObject)]
struct PciDict {
    vendor: Option<u32>,
    device: Option<u32>,
    revision: Option<u32>,
    subsystem_vendor: Option<u32>,
    subsystem_device: Option<u32>,
}

/// The documented number of a sensor (`AmdSmiTemperatureType`).
fn sensor(number: u32) -> Option<TemperatureSensor> {
    Some(match number {
        0 => TemperatureSensor::Edge,
        1 => TemperatureSensor::Junction,
        2 => TemperatureSensor::Memory,
        3..=6 => TemperatureSensor::Hbm(u8::try_from(number - 3).ok()?),
        7 => TemperatureSensor::VrSoc,
        _ => return None,
    })
}

/// The documented number of what is asked of a sensor (`AmdSmiTemperatureMetric`).
fn metric(number: u32) -> Option<TemperatureMetric> {
    use TemperatureMetric::{
        Critical, CriticalHyst, CriticalMin, CriticalMinHyst, Current, Emergency, EmergencyHyst,
        Highest, Lowest, Max, MaxHyst, Min, MinHyst, Offset,
    };
    const METRICS: [TemperatureMetric; 14] = [
        Current,
        Max,
        Min,
        MaxHyst,
        MinHyst,
        Critical,
        CriticalHyst,
        Emergency,
        EmergencyHyst,
        CriticalMin,
        CriticalMinHyst,
        Offset,
        Lowest,
        Highest,
    ];
    METRICS.get(usize::try_from(number).ok()?).copied()
}

/// The documented number of a clock (`AmdSmiClkType`).
fn domain(number: u32) -> Option<ClockDomain> {
    Some(match number {
        0 => ClockDomain::Gfx,
        1 => ClockDomain::Fabric,
        3 => ClockDomain::Soc,
        4 => ClockDomain::Memory,
        6 => ClockDomain::Video,
        8 => ClockDomain::Decode,
        _ => return None,
    })
}

fn process(process: &GpuProcess) -> ProcessDict {
    let nanoseconds = |engine: &str| u64::try_from(process.engine(engine).as_nanos());
    let name = process.name.bytes().map(|name| gpuev::message::Printable(name).to_string());
    ProcessDict {
        pid: process.pid,
        name,
        vram: process.memory.vram.0,
        gtt: process.memory.gtt.0,
        cpu: process.memory.cpu.0,
        gfx_ns: nanoseconds("gfx").unwrap_or(u64::MAX),
        enc_ns: nanoseconds("enc").unwrap_or(u64::MAX),
        compute_occupancy: process.compute_occupancy.map(|percent| percent.0),
    }
}

impl Sensors {
    fn look(&self) -> health::Sensors<'_> {
        health::Sensors::of(&self.0.gpu)
    }
}

#[pymethods]
impl Sensors {
    /// Whether the GPU is there: one that was removed tells nothing.
    #[getter]
    fn present(&self) -> bool {
        self.0.gpu.device_dir.is_dir()
    }

    /// A temperature in thousandths of a degree Celsius; sensor and metric by their documented numbers.
    #[pyo3(signature = (sensor_type, metric_type = 0))]
    fn temperature(&self, py: Python<'_>, sensor_type: u32, metric_type: u32) -> Option<i32> {
        let (sensor, metric) = (sensor(sensor_type)?, metric(metric_type)?);
        py.detach(|| self.look().temperature(sensor, metric)).map(|t| t.0)
    }

    /// Power and its limits, in microwatts.
    fn power(&self, py: Python<'_>) -> PowerDict {
        let power = py.detach(|| self.look().power());
        let number = |power: Option<Microwatts>| power.map(|power| power.0);
        PowerDict {
            average: number(power.average),
            current: number(power.current),
            cap: number(power.cap),
            cap_min: number(power.cap_min),
            cap_max: number(power.cap_max),
            cap_default: number(power.cap_default),
        }
    }

    /// Supply voltages, in millivolts.
    fn voltages(&self, py: Python<'_>) -> VoltageDict {
        let voltages = py.detach(|| self.look().voltages());
        VoltageDict {
            gfx: voltages.gfx.map(|v| v.0),
            soc: voltages.soc.map(|v| v.0),
            memory: voltages.memory.map(|v| v.0),
        }
    }

    /// How busy its parts are, in percent.
    fn activity(&self, py: Python<'_>) -> ActivityDict {
        let activity = py.detach(|| self.look().activity());
        ActivityDict {
            gfx: activity.gfx.map(|p| p.0),
            memory: activity.memory.map(|p| p.0),
            media: activity.media.map(|p| p.0),
        }
    }

    /// Memory of the GPU or partition, in bytes. `usable` is what programs have: VRAM, of an APU with GTT.
    fn memory(&self, py: Python<'_>) -> MemoryDict {
        let memory = py.detach(|| self.look().memory());
        MemoryDict {
            vram_total: memory.vram.total.map(|b| b.0),
            vram_used: memory.vram.used.map(|b| b.0),
            visible_vram_total: memory.visible_vram.total.map(|b| b.0),
            visible_vram_used: memory.visible_vram.used.map(|b| b.0),
            gtt_total: memory.gtt.total.map(|b| b.0),
            gtt_used: memory.gtt.used.map(|b| b.0),
            usable_total: memory.usable.total.map(|b| b.0),
            usable_used: memory.usable.used.map(|b| b.0),
        }
    }

    /// A clock in megahertz, by its documented number; None where the GPU does not tell of it.
    fn clock(&self, py: Python<'_>, clock_type: u32) -> Option<ClockDict> {
        let domain = domain(clock_type)?;
        let clock = py.detach(|| self.look().clock(domain))?;
        let megahertz = |clock: Option<Hertz>| clock.map(Hertz::megahertz);
        Some(ClockDict {
            current: megahertz(clock.current),
            min: megahertz(clock.min),
            max: megahertz(clock.max),
        })
    }

    /// Counted memory and bus errors, by block, or of one; empty where the GPU does not count.
    #[pyo3(signature = (block = None))]
    fn ras(&self, py: Python<'_>, block: Option<&str>) -> Vec<RasDict> {
        let blocks = py.detach(|| match block {
            Some(block) => self.look().ras_of(block).into_iter().collect(),
            None => self.look().ras(),
        });
        let dict = |errors: health::RasErrors| RasDict {
            block: errors.block,
            correctable: errors.correctable,
            uncorrectable: errors.uncorrectable,
            deferred: errors.deferred,
        };
        blocks.into_iter().map(dict).collect()
    }

    /// Who uses the GPU, in order of pid.
    fn processes(&self, py: Python<'_>) -> Vec<ProcessDict> {
        let users = py.detach(|| Processes::of(&self.0.machine).using(&self.0.gpu));
        users.iter().map(process).collect()
    }

    /// PCI ids.
    fn pci_ids(&self, py: Python<'_>) -> PciDict {
        let read = |name| {
            let text = std::fs::read_to_string(self.0.gpu.device_dir.join(name)).ok()?;
            u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
        };
        py.detach(|| PciDict {
            vendor: read("vendor"),
            device: read("device").or(self.0.gpu.device_id.map(u32::from)),
            revision: read("revision"),
            subsystem_vendor: read("subsystem_vendor"),
            subsystem_device: read("subsystem_device"),
        })
    }
}

/// The compute processes of the machine, in order of pid, or only the one with the number `pid`. `compute_units` is how
/// many those GPUs have of which it is known how many are busy.
#[pyfunction]
#[pyo3(signature = (pid = None))]
pub(crate) fn compute_processes(
    py: Python<'_>,
    pid: Option<u32>,
) -> PyResult<Vec<impl for<'py> IntoPyObject<'py>>> {
    let machine = crate::machine::current();
    let found = py.detach(|| {
        let gpus = machine.gpus()?;
        let processes = Processes::of(&machine);
        let wanted = |process: &KfdProcess| pid.is_none_or(|pid| process.pid == pid);
        let all = processes.kfd().into_iter().filter(wanted);
        Ok(all.map(|process| compute_process(&processes, &process, &gpus)).collect::<Vec<_>>())
    });
    found.map_err(|error| raise(py, &error))
}

fn compute_process(
    processes: &Processes,
    process: &KfdProcess,
    gpus: &[gpuev::Gpu],
) -> ComputeProcessDict {
    let uses = || process.gpus.iter();
    let known = || uses().filter(|one| one.busy_compute_units.is_some());
    let units = |one: &KfdUse| {
        gpus.iter().find(|gpu| gpu.id.kfd_id == one.kfd_id).and_then(|gpu| gpu.compute_units)
    };
    let busy = gpus.iter().filter_map(|gpu| processes.sdma_busy(process.pid, gpu));
    let busy = busy.reduce(std::time::Duration::saturating_add);
    ComputeProcessDict {
        pid: process.pid,
        vram: uses().filter_map(|one| one.vram).map(|bytes| bytes.0).reduce(u64::saturating_add),
        sdma_us: busy.map(|busy| u64::try_from(busy.as_micros()).unwrap_or(u64::MAX)),
        busy_compute_units: known()
            .filter_map(|one| one.busy_compute_units)
            .reduce(u32::saturating_add),
        compute_units: known().map(units).try_fold(0, |sum: u32, one| sum.checked_add(one?)),
    }
}
