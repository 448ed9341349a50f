//! `gpuev doctor`: what works here, what does not, and how to mend it.
//!
//! Opening `/dev/kfd` makes this process a KFD process until it ends, so whatever needs no device comes first,
//! and the device is open only while it is asked.

mod amdsmi;
mod history;

use clap::Args;
use gpuev::health::Sensors;
use gpuev::message::Printable;
use gpuev::process::{Holder, Processes};
use gpuev::{EventMask, EventReader, Gpu, KfdVersion, Machine, advice, json};

use crate::args::SourceArgs;
use crate::exit::{Exit, Outcome};
use crate::output;
use crate::source::Source;

/// Tell what works here, what does not, and how to mend it
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DoctorArgs, source: &SourceArgs) -> Outcome {
    let findings = match Source::history(source) {
        Some(path) => history::examine(&path)?,
        None => examine(&Source::open(source)?.machine),
    };
    let mut text = String::new();
    for finding in &findings.list {
        if args.json {
            finding.write_json(&mut text);
        } else {
            text += &format!("{:5} {:12} {}\n", finding.state.mark(), finding.what, finding.text);
        }
    }
    output::standard().write_all(text.as_bytes())?;
    Ok(findings.exit)
}

/// What was found, and how the program ends on it.
struct Findings {
    list: Vec<Finding>,
    exit: Exit,
}

struct Finding {
    state: State,
    what: &'static str,
    text: String,
}

#[derive(Clone, Copy)]
enum State {
    Good,
    Note,
    Bad,
}

impl State {
    /// For people, who look for what is loud.
    fn mark(self) -> &'static str {
        if matches!(self, Self::Bad) { "FAIL" } else { self.name() }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "fail",
        }
    }
}

impl Finding {
    fn write_json(&self, out: &mut String) {
        let mut object = json::Object::begin(out, "finding");
        object.word("state", self.state.name());
        object.word("what", self.what);
        object.text("text", &self.text);
        object.end();
        out.push('\n');
    }
}

impl Findings {
    fn good(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(State::Good, what, text);
    }

    fn note(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(State::Note, what, text);
    }

    fn fail(&mut self, what: &'static str, text: impl Into<String>, exit: Exit) {
        self.add(State::Bad, what, text);
        if self.exit == Exit::Success {
            self.exit = exit;
        }
    }

    fn add(&mut self, state: State, what: &'static str, text: impl Into<String>) {
        self.list.push(Finding { state, what, text: text.into() });
    }
}

fn examine(machine: &Machine) -> Findings {
    let mut findings = Findings { list: Vec::new(), exit: Exit::Success };
    examine_system(machine, &mut findings);
    let gpus = examine_gpus(machine, &mut findings);
    examine_throttling(&gpus, &mut findings);
    if machine.driver().loaded {
        examine_holders(machine, &mut findings);
    }
    examine_events(machine, &gpus, &mut findings);
    amdsmi::examine(&mut findings);
    history::examine_place(&gpuev_store::default_history(), &mut findings);
    findings
}

fn examine_system(machine: &Machine, findings: &mut Findings) {
    let kernel = machine.kernel_release().unwrap_or_else(|| "unknown".to_owned());
    findings.good("kernel", format!("Linux {kernel}"));
    let driver = machine.driver();
    if driver.loaded {
        let origin = match &driver.version {
            Some(version) => format!("amdgpu {version}, AMD's own"),
            None => "amdgpu, the kernel's own".to_owned(),
        };
        let kind = if driver.built_in { "built in" } else { "a module" };
        findings.good("driver", format!("{origin}, {kind}"));
    } else {
        findings.note("driver", format!("amdgpu is not loaded: {}", advice::no_driver(machine)));
    }
    if let Some(engine) = machine.container() {
        let text = format!("{}; pids may be other than the host's", advice::in_container(engine));
        findings.note("container", text);
    }
}

fn examine_gpus(machine: &Machine, findings: &mut Findings) -> Vec<Gpu> {
    let inventory = match machine.inventory() {
        Ok(inventory) => inventory,
        Err(error) => {
            findings.fail("GPUs", error.to_string(), Exit::NoGpu);
            return Vec::new();
        }
    };
    if inventory.gpus.is_empty() {
        findings.fail("GPUs", "KFD lists none that may be used here", Exit::NoGpu);
    }
    for missing in advice::missing(&inventory) {
        findings.note("GPU", missing);
    }
    for gpu in &inventory.gpus {
        findings.good("GPU", format!("{} {} {}", gpu.id.index, place(gpu), gpu.name));
    }
    inventory.gpus
}

fn place(gpu: &Gpu) -> String {
    if gpu.is_partition() {
        format!("{}/{} of {}", gpu.id.bdf, gpu.id.partition, gpu.partitions)
    } else {
        gpu.id.bdf.to_string()
    }
}

/// The first of a GPU's partitions that is listed speaks for it: they share the setting.
fn examine_throttling(gpus: &[Gpu], findings: &mut Findings) {
    let mut last = None;
    for gpu in gpus {
        if last.replace(gpu.id.bdf) == Some(gpu.id.bdf) {
            continue;
        }
        let off = Sensors::of(gpu).throttling_log().is_some_and(|log| !log.enabled);
        if !off {
            continue;
        }
        let file = gpu.device_dir.join("thermal_throttling_logging");
        findings.note(
            "throttling",
            format!(
                "GPU {} does not tell of it: no THERMAL_THROTTLE events; as root: echo 60 > {}",
                gpu.id.bdf,
                file.display()
            ),
        );
    }
}

fn examine_holders(machine: &Machine, findings: &mut Findings) {
    let processes = Processes::of(machine);
    let holders = processes.holders();
    for holder in &holders.found {
        findings.note("in use", in_use(holder));
    }
    if let Some(option) = machine.hidden_processes() {
        let text = format!(
            "processes of others are hidden here (/proc is mounted with {option}); root sees whether they use it"
        );
        findings.note("in use", text);
    } else if !processes.have_machine_numbers() {
        let text = "only processes of this container are seen; on the host, gpuev doctor sees all";
        findings.note("in use", text);
    } else if holders.hidden > 0 {
        let text = format!(
            "{} processes may not be looked into; root sees whether they use it",
            holders.hidden
        );
        findings.note("in use", text);
    } else if holders.found.is_empty() {
        findings.good("in use", "by nobody: nothing keeps the driver from being unloaded");
    }
}

fn in_use(holder: &Holder) -> String {
    let name = Printable(holder.name.bytes().unwrap_or(b"?"));
    format!(
        "by pid {} ({name}): /dev/kfd open {} times, {} event files; while it runs, the driver cannot be \
         unloaded nor GPUs repartitioned",
        holder.pid, holder.devices, holder.event_files
    )
}

fn examine_events(machine: &Machine, gpus: &[Gpu], findings: &mut Findings) {
    let source = machine.event_source();
    let version = match source.version() {
        Ok(version) => version,
        Err(error) => return findings.fail("interface", error.to_string(), Exit::Failure),
    };
    findings.good("interface", format!("KFD {version}"));
    if version < KfdVersion::FIRST_WITH_SVM_EVENTS {
        let text = "page fault, migration and queue events need KFD 1.10, i.e. Linux 6.0";
        findings.note("events", text);
    }
    let scope = source.scope();
    let state = if scope.all_processes { State::Good } else { State::Note };
    findings.add(state, "scope", scope.reason);
    for gpu in gpus {
        match EventReader::open(machine, gpu, EventMask::NONE) {
            Ok(reader) => {
                let size = reader.fifo_capacity().unwrap_or_default();
                findings.good("event file", format!("GPU {}: FIFO of {size} bytes", place(gpu)));
            }
            Err(error) => findings.fail("event file", error.to_string(), Exit::Failure),
        }
    }
}
