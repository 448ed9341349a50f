//! Machines for tests: the simulator's, and the smallest that has events: a topology of files and sockets in the
//! driver's place, where a test says every byte itself.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use gpuev::{EventMask, EventReader, Gpu, Item, KfdVersion, Machine, OpenWith, Scope};
use gpuev_sim::{Client, SimMachine};
use tempfile::TempDir;

pub(crate) const NEW: KfdVersion = KfdVersion { major: 1, minor: 23 };
pub(crate) const OLD: KfdVersion = KfdVersion { major: 1, minor: 17 };

/// The machine of the simulator as this library sees it.
pub(crate) fn machine_of(sim: &SimMachine) -> Machine {
    let (major, minor) = sim.kfd_version();
    let opener = sim.clone();
    let open = move |gpu: &gpuev::Gpu| opener.open_events(gpu.id.kfd_id, &Client::root());
    let source = OpenWith::new(KfdVersion { major, minor }, Scope::everything("simulated"), open);
    Machine::at(sim.root()).with_event_source(source)
}

pub(crate) struct Driver {
    root: TempDir,
    pub(crate) machine: Machine,
    files: Arc<Mutex<Vec<(u32, UnixStream)>>>,
}

impl Driver {
    pub(crate) fn new(gpus: u32, version: KfdVersion) -> Self {
        let root = TempDir::new().unwrap();
        let files = Arc::new(Mutex::new(Vec::new()));
        let opened = Arc::clone(&files);
        let open = move |gpu: &Gpu| {
            let (driver, reader) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            opened.lock().unwrap().push((gpu.id.kfd_id, driver));
            Ok(OwnedFd::from(reader))
        };
        let source = OpenWith::new(version, Scope::everything("a test"), open);
        let machine = Machine::at(root.path()).with_event_source(source);
        let driver = Self { root, machine, files };
        driver.write("sys/class/kfd/kfd/topology/generation_id", "1\n");
        driver.write("sys/class/kfd/kfd/topology/nodes/0/gpu_id", "0\n");
        (0..gpus).for_each(|gpu| driver.add_gpu(gpu));
        driver
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn add_gpu(&self, gpu: u32) {
        self.add_card(gpu, 0);
    }

    /// A GPU with this unique id; 0 is none.
    pub(crate) fn add_card(&self, gpu: u32, unique_id: u64) {
        let node = format!("sys/class/kfd/kfd/topology/nodes/{}", gpu + 1);
        let location = (gpu + 3) << 8;
        let properties = format!(
            "simd_count 256\ndomain 0\nlocation_id {location}\ngfx_target_version 90402\n\
             unique_id {unique_id}\n"
        );
        self.write(format!("{node}/properties"), properties);
        self.write(format!("{node}/gpu_id"), format!("{}\n", 100 + gpu));
    }

    /// A partition of the first card, in the place of what it was before; KFD's number of it is 200 and more.
    pub(crate) fn add_partition(&self, partition: u32, unique_id: u64) {
        let node = format!("sys/class/kfd/kfd/topology/nodes/{}", partition + 1);
        let location = 3 << 8 | partition << 28;
        let properties = format!(
            "simd_count 32\ndomain 0\nlocation_id {location}\ngfx_target_version 90402\n\
             unique_id {unique_id}\n"
        );
        self.write(format!("{node}/properties"), properties);
        self.write(format!("{node}/gpu_id"), format!("{}\n", 200 + partition));
    }

    /// Takes a GPU out of the topology; its event files stay open.
    pub(crate) fn unlist_gpu(&self, gpu: u32) {
        let node = format!("sys/class/kfd/kfd/topology/nodes/{}", gpu + 1);
        fs::remove_dir_all(self.root.path().join(node)).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_dir_all(self.root.path().join(path)).unwrap();
    }

    /// Counts a change of the topology.
    pub(crate) fn announce(&self) {
        let generation = self.machine.generation().unwrap() + 1;
        self.write("sys/class/kfd/kfd/topology/generation_id", format!("{generation}\n"));
    }

    pub(crate) fn name_process(&self, pid: u32, name: &[u8]) {
        self.write(format!("proc/{pid}/comm"), [name, b"\n"].concat());
        self.write(format!("proc/{pid}/status"), format!("Tgid:\t{pid}\nNSpid:\t{pid}\n"));
        self.write(format!("sys/class/kfd/kfd/proc/{pid}/pasid"), "1\n");
    }

    /// A further thread of a process, as `/proc` shows it to those who know its number.
    pub(crate) fn name_thread(&self, tid: u32, pid: u32, name: &[u8]) {
        self.write(format!("proc/{tid}/comm"), [name, b"\n"].concat());
        self.write(format!("proc/{tid}/status"), format!("Tgid:\t{pid}\nNSpid:\t{tid}\n"));
    }

    pub(crate) fn gpu(&self, index: usize) -> Gpu {
        self.machine.gpus().unwrap()[index].clone()
    }

    pub(crate) fn reader(&self) -> EventReader {
        EventReader::open(&self.machine, &self.gpu(0), EventMask::ALL).unwrap()
    }

    /// Writes to every open event file of a GPU.
    pub(crate) fn emit(&self, gpu: u32, bytes: impl AsRef<[u8]>) {
        self.emit_to(100 + gpu, bytes);
    }

    /// As [`emit`](Self::emit), by KFD's number.
    pub(crate) fn emit_to(&self, kfd_id: u32, bytes: impl AsRef<[u8]>) {
        for (id, file) in self.files.lock().unwrap().iter_mut() {
            if *id == kfd_id {
                // A reader that has been closed is none of the driver's business.
                let _closed = file.write_all(bytes.as_ref());
            }
        }
    }

    pub(crate) fn remove_gpu(&self, gpu: u32) {
        self.files.lock().unwrap().retain(|(id, _)| *id != 100 + gpu);
    }
}

pub(crate) fn all(reader: &mut EventReader) -> Vec<Item> {
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

pub(crate) fn raw(item: &Item) -> String {
    match item {
        Item::Event(event) => event.raw().escape_ascii().to_string(),
        Item::Gap(gap) => format!("gap {}", gap.cause.name()),
    }
}
