//! The simulated machine, so that people test their own monitoring without a GPU.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gpuev::{ErrorKind, KfdVersion, Machine, OpenWith, Scope};
use gpuev_sim::{
    Client, Comm, DriverEvent, FoundMachine, Kernel, LOCATION_UNDEFINED, Pid, Player, RasBlock,
    ResetCause, Scenario, Sensor, SimMachine as Simulated, SimProcess, Truth,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::of_kind;
use crate::fork::{Local, quietly};
use crate::machine::replace;

/// A machine with simulated AMD GPUs and the driver's rules.
#[pyclass(frozen, module = "gpuev.sim")]
pub(crate) struct SimMachine {
    simulated: Local<Simulated>,
    players: Mutex<Vec<Local<Player>>>,
    /// What was looked at before, once per `activate`.
    before: Mutex<Vec<Option<Machine>>>,
}

/// The driver names a thread that is there: where nobody added its process, it is one of a single thread, which has
/// opened `/dev/kfd` and nothing else.
fn introduce(simulated: &Simulated, event: &DriverEvent) -> std::io::Result<()> {
    let (DriverEvent::VmFault { pid, comm }
    | DriverEvent::ProcessStart { pid, comm }
    | DriverEvent::ProcessEnd { pid, comm }) = event
    else {
        return Ok(());
    };
    let number = pid.host;
    let dir = format!("proc/{number}");
    if number == 0 || simulated.root().join(&dir).exists() {
        return Ok(());
    }
    simulated.add_process(&SimProcess::new(number, comm.as_bytes()))?;
    simulated.write_file(format!("sys/class/kfd/kfd/proc/{number}/pasid"), "32768\n")
}

/// Index of the GPU, mask, accepted lines, dropped lines, whether it is closed.
type EventFile = (usize, u64, u64, u64, bool);

fn failed(py: Python<'_>, error: &std::io::Error) -> PyErr {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
        _ => ErrorKind::Io,
    };
    of_kind(py, kind, &error.to_string(), None)
}

fn invalid(py: Python<'_>, text: &str) -> PyErr {
    of_kind(py, ErrorKind::InvalidInput, text, None)
}

/// The names of the stories that can be played.
#[pyfunction]
pub(crate) fn scenarios() -> Vec<&'static str> {
    Scenario::names().collect()
}

/// The names of the machines that can be simulated as somebody found them.
#[pyfunction]
pub(crate) fn machines() -> Vec<&'static str> {
    FoundMachine::ALL.iter().map(|machine| machine.name()).collect()
}

#[pymethods]
impl SimMachine {
    #[new]
    #[pyo3(signature = (
        *, gpus = 1, kernel = None, partitions = 1, denied = 0, machine = None, visible = None
    ))]
    fn new(
        py: Python<'_>,
        gpus: usize,
        kernel: Option<&str>,
        partitions: u32,
        denied: usize,
        machine: Option<&str>,
        visible: Option<Vec<usize>>,
    ) -> PyResult<Self> {
        let mut builder = Simulated::builder().gpus(gpus).partitions(partitions).denied(denied);
        if let Some(kernel) = kernel {
            let kernel =
                Kernel::from_str(kernel).map_err(|error| invalid(py, &error.to_string()))?;
            builder = builder.kernel(kernel);
        }
        if let Some(name) = machine {
            let found = FoundMachine::by_name(name);
            builder = builder.found(found.map_err(|error| invalid(py, &error.to_string()))?);
        }
        if let Some(visible) = visible {
            builder = builder.visible(visible);
        }
        let built = quietly(py, || builder.build()).map_err(|error| failed(py, &error))?;
        let (players, before) = (Mutex::default(), Mutex::default());
        Ok(Self { simulated: Local::new(built), players, before })
    }

    /// The folder that stands for `/`.
    #[getter]
    fn root(&self, py: Python<'_>) -> PyResult<PathBuf> {
        Ok(self.simulated(py)?.root())
    }

    /// Makes this the machine that everything looks at, until `deactivate`.
    fn activate(&self, py: Python<'_>) -> PyResult<()> {
        let simulated = self.simulated(py)?.clone();
        let (major, minor) = simulated.kfd_version();
        let root = simulated.root();
        let open = move |gpu: &gpuev::Gpu| simulated.open_events(gpu.id.kfd_id, &Client::root());
        let scope = Scope::everything("the machine is simulated");
        let source = OpenWith::new(KfdVersion { major, minor }, scope, open);
        let machine = Machine::at(root).with_event_source(source);
        let before = replace(Some(machine));
        self.before.lock().unwrap_or_else(PoisonError::into_inner).push(before);
        Ok(())
    }

    /// Looks again at what was looked at before `activate`.
    fn deactivate(&self) {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(before) = before {
            replace(before);
        }
    }

    /// Raises an event `times` times at once; `fields` are those of its kind.
    #[pyo3(signature = (name, gpu, times, /, **fields))]
    fn emit(
        &self,
        py: Python<'_>,
        name: &str,
        gpu: usize,
        times: u64,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let simulated = self.gpu(py, gpu)?;
        let event = Fields::new(py, fields).event(name)?;
        introduce(simulated, &event).map_err(|error| failed(py, &error))?;
        py.detach(|| simulated.emit_batch(gpu, (0..times).map(|_| &event)));
        Ok(())
    }

    /// Puts the bytes of one message about event `id` through the driver's rules as they are.
    #[pyo3(signature = (message, id, gpu = 0))]
    fn emit_raw(&self, py: Python<'_>, message: &[u8], id: u32, gpu: usize) -> PyResult<()> {
        let simulated = self.gpu(py, gpu)?;
        py.detach(|| simulated.emit_raw(gpu, id, None, message));
        Ok(())
    }

    /// Raises `count` page faults at `rate` a second (0: as fast as they are read). Gives how many were
    /// raised; one that an event file has no room for is raised later.
    #[pyo3(signature = (count, rate = 0, gpu = 0, pid = 4242))]
    fn page_faults(
        &self,
        py: Python<'_>,
        count: u64,
        rate: u64,
        gpu: usize,
        pid: u32,
    ) -> PyResult<u64> {
        let simulated = self.gpu(py, gpu)?;
        let kfd_id = simulated.kfd_gpu_id(gpu).map_err(|error| failed(py, &error))?;
        py.detach(|| storm(simulated, gpu, kfd_id, pid, count, rate));
        Ok(count)
    }

    /// Plays a story in the background; `stop_playing` ends it.
    #[pyo3(signature = (story, *, seed = 1, rate = None, count = None, seconds = None))]
    fn play(
        &self,
        py: Python<'_>,
        story: &str,
        seed: u64,
        rate: Option<u64>,
        count: Option<u64>,
        seconds: Option<f64>,
    ) -> PyResult<()> {
        let mut scenario =
            Scenario::by_name(story).map_err(|error| invalid(py, &error.to_string()))?.seed(seed);
        if let Some(rate) = rate {
            scenario = scenario.rate(rate);
        }
        if let Some(count) = count {
            scenario = scenario.count(count);
        }
        if let Some(seconds) = seconds {
            let duration = Duration::try_from_secs_f64(seconds)
                .map_err(|error| invalid(py, &error.to_string()))?;
            scenario = scenario.duration(duration);
        }
        let player = self.simulated(py)?.play(scenario).map_err(|error| failed(py, &error))?;
        self.players.lock().unwrap_or_else(PoisonError::into_inner).push(Local::new(player));
        Ok(())
    }

    /// Ends what is being played, or with `wait` waits for its end; gives how many events of each type
    /// were raised, by index of the GPU.
    #[pyo3(signature = (wait = false))]
    fn stop_playing(&self, py: Python<'_>, wait: bool) -> Vec<(usize, u32, u64)> {
        let players =
            std::mem::take(&mut *self.players.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counts = Vec::new();
        for player in players.into_iter().filter_map(Local::into_inner) {
            let truth: Truth = py.detach(|| if wait { player.join() } else { player.stop() });
            counts.extend(truth.counts.iter().map(|((gpu, id), count)| (*gpu, *id, *count)));
        }
        counts
    }

    /// What became of the lines of each event file, in order of opening.
    fn event_files(&self, py: Python<'_>) -> PyResult<Vec<EventFile>> {
        let simulated = self.simulated(py)?;
        let gpus = simulated.gpus();
        let index = |kfd_id| gpus.iter().find(|g| g.kfd_gpu_id == kfd_id).map_or(0, |g| g.index);
        let files = py.detach(|| simulated.event_files());
        let told = files.iter().map(|file| {
            let gpu = index(file.kfd_gpu_id);
            (gpu, file.mask, file.accepted_lines, file.dropped_lines, file.closed)
        });
        Ok(told.collect())
    }

    /// Sets the temperature of a sensor (`edge`, `junction`, `memory`) in thousandths of a degree Celsius.
    #[pyo3(signature = (sensor, value, gpu = 0))]
    fn set_temperature(
        &self,
        py: Python<'_>,
        sensor: &str,
        value: i32,
        gpu: usize,
    ) -> PyResult<()> {
        let sensor = match sensor {
            "edge" => Sensor::Edge,
            "junction" => Sensor::Junction,
            "memory" => Sensor::Memory,
            _ => return Err(invalid(py, "a sensor is 'edge', 'junction' or 'memory'")),
        };
        let set = self.gpu(py, gpu)?.set_temperature_millidegrees(gpu, sensor, value);
        set.map_err(|error| failed(py, &error))
    }

    /// Sets the power drawn, in microwatts.
    #[pyo3(signature = (value, gpu = 0))]
    fn set_power(&self, py: Python<'_>, value: u64, gpu: usize) -> PyResult<()> {
        let set = self.gpu(py, gpu)?.set_power_microwatts(gpu, value);
        set.map_err(|error| failed(py, &error))
    }

    /// Sets how busy the GPU is, in percent.
    #[pyo3(signature = (value, gpu = 0))]
    fn set_activity(&self, py: Python<'_>, value: u32, gpu: usize) -> PyResult<()> {
        let set = self.gpu(py, gpu)?.set_busy_percent(gpu, value);
        set.map_err(|error| failed(py, &error))
    }

    /// Counts one more error of `block` (`umc`, `sdma`, `gfx`, `mmhub`, `xgmi_wafl`).
    #[pyo3(signature = (block, *, uncorrectable = false, gpu = 0))]
    fn add_ras_error(
        &self,
        py: Python<'_>,
        block: &str,
        uncorrectable: bool,
        gpu: usize,
    ) -> PyResult<()> {
        use RasBlock::{Gfx, Mmhub, Sdma, Umc, XgmiWafl};
        let found = [Umc, Sdma, Gfx, Mmhub, XgmiWafl].into_iter().find(|b| b.name() == block);
        let block = found.ok_or_else(|| invalid(py, "no block with this name"))?;
        let added = self.gpu(py, gpu)?.add_ras_error(gpu, block, uncorrectable);
        added.map_err(|error| failed(py, &error))
    }

    /// Starts a process that uses `gpus`. No event is raised.
    #[pyo3(signature = (pid, name, *, gpus = vec![0], vram = 0, cgroup = None))]
    fn add_process(
        &self,
        py: Python<'_>,
        pid: u32,
        name: Vec<u8>,
        gpus: Vec<usize>,
        vram: u64,
        cgroup: Option<String>,
    ) -> PyResult<()> {
        let mut process = SimProcess::new(pid, name).vram(vram);
        for gpu in gpus {
            process = process.gpu(gpu);
        }
        if let Some(line) = cgroup {
            process = process.cgroup(line);
        }
        self.simulated(py)?.add_process(&process).map_err(|error| failed(py, &error))
    }

    /// Ends a process. No event is raised.
    fn remove_process(&self, py: Python<'_>, pid: u32) -> PyResult<()> {
        self.simulated(py)?.remove_process(pid).map_err(|error| failed(py, &error))
    }

    /// Plugs in one more GPU; gives its index.
    fn add_gpu(&self, py: Python<'_>) -> PyResult<usize> {
        let simulated = self.simulated(py)?;
        py.detach(|| simulated.add_gpu()).map_err(|error| failed(py, &error))
    }

    /// Takes a GPU out.
    fn remove_gpu(&self, py: Python<'_>, gpu: usize) -> PyResult<()> {
        let simulated = self.gpu(py, gpu)?;
        py.detach(|| simulated.remove_gpu(gpu)).map_err(|error| failed(py, &error))
    }

    /// Plugs a GPU that was taken out in again.
    fn restore_gpu(&self, py: Python<'_>, gpu: usize) -> PyResult<()> {
        let simulated = self.gpu(py, gpu)?;
        py.detach(|| simulated.restore_gpu(gpu)).map_err(|error| failed(py, &error))
    }

    /// Writes a file of the machine.
    fn write_file(&self, py: Python<'_>, path: PathBuf, content: &[u8]) -> PyResult<()> {
        self.simulated(py)?.write_file(path, content).map_err(|error| failed(py, &error))
    }

    /// Removes a file of the machine, or a folder with all in it.
    fn remove_file(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.simulated(py)?.remove_file(path).map_err(|error| failed(py, &error))
    }
}

impl SimMachine {
    fn simulated(&self, py: Python<'_>) -> PyResult<&Simulated> {
        self.simulated.get().ok_or_else(|| {
            let text = "the simulated machine is that of the parent process";
            of_kind(py, ErrorKind::Stopped, text, Some("make a machine after fork()"))
        })
    }

    /// The machine, provided that it has this GPU.
    fn gpu(&self, py: Python<'_>, index: usize) -> PyResult<&Simulated> {
        let simulated = self.simulated(py)?;
        simulated.kfd_gpu_id(index).map_err(|error| failed(py, &error))?;
        Ok(simulated)
    }
}

/// Page faults, an address each.
fn storm(machine: &Simulated, gpu: usize, kfd_id: u32, pid: u32, count: u64, rate: u64) {
    let begun = std::time::Instant::now();
    for number in 0..count {
        if let Some(due) = number.saturating_mul(1_000_000_000).checked_div(rate) {
            let due = begun + Duration::from_nanos(due);
            std::thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
        }
        let stamp = gpuev_sim::boot_ns();
        let page = 0x7_fff0_0000_u64 + number;
        let line = format!("7 {stamp} -{pid} @{page:x}({kfd_id:x}) W\n");
        while !machine.emit_raw_if_room(gpu, 7, None, line.as_bytes()) {
            std::thread::yield_now();
        }
    }
}

/// The fields of an event, by name.
struct Fields<'a, 'py> {
    py: Python<'py>,
    fields: Option<&'a Bound<'py, PyDict>>,
}

impl<'a, 'py> Fields<'a, 'py> {
    fn new(py: Python<'py>, fields: Option<&'a Bound<'py, PyDict>>) -> Self {
        Self { py, fields }
    }

    fn get<T: for<'f> FromPyObject<'f, 'py, Error = PyErr>>(
        &self,
        name: &str,
        usual: T,
    ) -> PyResult<T> {
        match self.fields.map(|fields| fields.get_item(name)).transpose()?.flatten() {
            Some(value) => value.extract(),
            None => Ok(usual),
        }
    }

    fn pid(&self) -> PyResult<Pid> {
        self.get("pid", 4242).map(|pid: u32| Pid::from(pid))
    }

    fn comm(&self) -> PyResult<Comm> {
        match self.fields.map(|fields| fields.get_item("process")).transpose()?.flatten() {
            Some(name) => match name.extract::<Vec<u8>>() {
                Ok(bytes) => Ok(Comm::new(bytes)),
                Err(_) => Ok(Comm::new(name.extract::<String>()?)),
            },
            None => Ok(Comm::new("python3")),
        }
    }

    fn page(&self) -> PyResult<u64> {
        Ok(self.get("address", 0x7fff_0000_0000_u64)? / 4096)
    }

    fn pages(&self) -> PyResult<u64> {
        Ok(self.get("size", 4096_u64)?.div_ceil(4096))
    }

    fn cause(&self) -> PyResult<Option<ResetCause>> {
        let cause: Option<String> = self.get("cause", Some("job hang".to_owned()))?;
        let Some(text) = cause else { return Ok(None) };
        if let Some(ring) = text.strip_prefix("job hang on ring:") {
            return Ok(Some(ResetCause::JobHangOnRing(Comm::new(ring))));
        }
        use ResetCause::{
            HwsHang, JobHang, MesHang, RasError, Unknown, UserQueueTrigger, UserTrigger,
        };
        let causes = [Unknown, JobHang, RasError, MesHang, HwsHang, UserTrigger, UserQueueTrigger];
        let found = causes.into_iter().find(|cause| cause.text().0 == text);
        found.map(Some).ok_or_else(|| invalid(self.py, "the driver knows no such cause"))
    }

    fn event(&self, name: &str) -> PyResult<DriverEvent> {
        Ok(match name {
            "VMFAULT" => DriverEvent::VmFault { pid: self.pid()?, comm: self.comm()? },
            "THERMAL_THROTTLE" => DriverEvent::Thermal {
                throttlers: self.get("throttlers", gpuev_sim::throttler::TEMP_HOTSPOT)?,
                count: self.get("count", 1)?,
            },
            "GPU_PRE_RESET" => {
                DriverEvent::PreReset { sequence: self.get("sequence", 1)?, cause: self.cause()? }
            }
            "GPU_POST_RESET" => {
                DriverEvent::PostReset { sequence: self.get("sequence", 1)?, cause: None }
            }
            "MIGRATE_START" => DriverEvent::MigrateStart {
                pid: self.pid()?,
                page: self.page()?,
                pages: self.pages()?,
                from: self.get("from_", 0)?,
                to: self.get("to", 0)?,
                prefetch: self.get("prefetch", LOCATION_UNDEFINED)?,
                preferred: self.get("preferred", LOCATION_UNDEFINED)?,
                trigger: self.get("trigger", 0)?,
            },
            "MIGRATE_END" => DriverEvent::MigrateEnd {
                pid: self.pid()?,
                page: self.page()?,
                pages: self.pages()?,
                from: self.get("from_", 0)?,
                to: self.get("to", 0)?,
                trigger: self.get("trigger", 0)?,
                error: self.get("error", 0)?,
            },
            _ => self.other_event(name)?,
        })
    }

    fn other_event(&self, name: &str) -> PyResult<DriverEvent> {
        Ok(match name {
            "PAGE_FAULT_START" => DriverEvent::PageFaultStart {
                pid: self.pid()?,
                page: self.page()?,
                write: self.get("write", true)?,
            },
            "PAGE_FAULT_END" => DriverEvent::PageFaultEnd {
                pid: self.pid()?,
                page: self.page()?,
                migrated: self.get("migrated", true)?,
            },
            "QUEUE_EVICTION" => {
                DriverEvent::QueueEviction { pid: self.pid()?, trigger: self.get("trigger", 0)? }
            }
            "QUEUE_RESTORE" => DriverEvent::QueueRestore {
                pid: self.pid()?,
                rescheduled: self.get("rescheduled", false)?,
            },
            "UNMAP_FROM_GPU" => DriverEvent::UnmapFromGpu {
                pid: self.pid()?,
                page: self.page()?,
                pages: self.pages()?,
                trigger: self.get("trigger", 0)?,
            },
            "PROCESS_START" => DriverEvent::ProcessStart { pid: self.pid()?, comm: self.comm()? },
            "PROCESS_END" => DriverEvent::ProcessEnd { pid: self.pid()?, comm: self.comm()? },
            _ => return Err(invalid(self.py, "no event type has this name")),
        })
    }
}
