//! Processes: what `/proc` and KFD's own list say of them.

use std::io;

use super::topology::KFD;
use super::{Tree, write_all};
use crate::event::Comm;
use crate::gpu::SimGpu;

/// A process on a simulated machine, and what it uses.
///
/// ```
/// let job = gpuev_sim::SimProcess::new(4242, "python3").uid(1000).gpu(0).vram(8 << 30);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimProcess {
    pub(crate) pid: u32,
    pub(crate) comm: Comm,
    pub(crate) cmdline: Vec<u8>,
    pub(crate) uid: u32,
    pub(crate) cgroup: String,
    pub(crate) gpus: Vec<usize>,
    pub(crate) vram_bytes: u64,
}

impl SimProcess {
    /// A process of root in no particular cgroup; its command line is its name.
    #[must_use]
    pub fn new(pid: u32, comm: impl AsRef<[u8]>) -> Self {
        let comm = Comm::new(comm);
        let cmdline = [comm.as_bytes(), b"\0"].concat();
        let cgroup = "0::/user.slice/user-0.slice/session-1.scope".to_owned();
        SimProcess { pid, comm, cmdline, uid: 0, cgroup, gpus: Vec::new(), vram_bytes: 0 }
    }

    /// Whose it is.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = uid;
        self
    }

    /// The line of `/proc/PID/cgroup`, as `0::/system.slice/slurmstepd.scope/job_77/step_0`.
    #[must_use]
    pub fn cgroup(mut self, line: impl Into<String>) -> Self {
        self.cgroup = line.into();
        self
    }

    /// The program and its arguments.
    #[must_use]
    pub fn cmdline<A: AsRef<[u8]>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.cmdline.clear();
        for argument in arguments {
            self.cmdline.extend_from_slice(argument.as_ref());
            self.cmdline.push(0);
        }
        self
    }

    /// It uses the GPU with this index; may be given more than once.
    #[must_use]
    pub fn gpu(mut self, index: usize) -> Self {
        self.gpus.push(index);
        self
    }

    /// Bytes of memory that it has on each of its GPUs.
    #[must_use]
    pub fn vram(mut self, bytes: u64) -> Self {
        self.vram_bytes = bytes;
        self
    }
}

pub(crate) fn add(tree: &Tree, process: &SimProcess, gpus: &[SimGpu]) -> io::Result<()> {
    write_proc(tree, process)?;
    let used: Vec<&SimGpu> = gpus.iter().filter(|gpu| process.gpus.contains(&gpu.index)).collect();
    if used.is_empty() {
        return Ok(());
    }
    let proc = format!("proc/{}", process.pid);
    tree.symlink(&format!("{proc}/fd/3"), "/dev/kfd")?;
    tree.write(format!("{proc}/fdinfo/3"), "pos:\t0\nflags:\t02100002\nmnt_id:\t26\n")?;
    let kfd = format!("{KFD}/proc/{}", process.pid);
    tree.write(format!("{kfd}/pasid"), format!("{}\n", 0x8000 + process.pid % 0x1000))?;
    tree.mkdir(format!("{kfd}/queues"))?;
    for (fd, gpu) in (4..).zip(used) {
        tree.symlink(&format!("{proc}/fd/{fd}"), &format!("/dev/dri/renderD{}", gpu.render_minor))?;
        tree.write(format!("{proc}/fdinfo/{fd}"), fdinfo(process, gpu))?;
        write_kfd(tree, &kfd, process, gpu)?;
    }
    Ok(())
}

pub(crate) fn remove(tree: &Tree, pid: u32) -> io::Result<()> {
    tree.remove(format!("proc/{pid}"))?;
    tree.remove(format!("{KFD}/proc/{pid}"))
}

fn write_proc(tree: &Tree, process: &SimProcess) -> io::Result<()> {
    let SimProcess { pid, uid, .. } = *process;
    let dir = format!("proc/{pid}");
    let name = process.comm.as_bytes();
    // As the kernel writes it: newline and backslash escaped.
    let escaped: Vec<u8> = name
        .iter()
        .flat_map(|byte| match byte {
            b'\n' => b"\\n".to_vec(),
            b'\\' => b"\\\\".to_vec(),
            byte => vec![*byte],
        })
        .collect();
    let status = format!(
        "\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t{pid}\nNgid:\t0\nPid:\t{pid}\nPPid:\t1\n\
         TracerPid:\t0\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{uid}\t{uid}\t{uid}\t{uid}\n\
         NSpid:\t{pid}\nThreads:\t1\nCapEff:\t{:016x}\n",
        if uid == 0 { super::system::ALL_CAPABILITIES } else { 0 }
    );
    // Fields 3 to 52; the 22nd is the start, in ticks of 10 ms since boot.
    let stat = format!(
        ") S 1 {pid} {pid} 0 -1 4194560 1200 0 0 0 250 40 0 0 20 0 1 0 360000 120000512 8192 \
         18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    );
    let files = [
        ("comm", [name, b"\n"].concat()),
        ("cmdline", process.cmdline.clone()),
        ("cgroup", format!("{}\n", process.cgroup).into_bytes()),
        ("status", [b"Name:\t", &escaped[..], status.as_bytes()].concat()),
        ("stat", [format!("{pid} (").as_bytes(), name, stat.as_bytes()].concat()),
    ];
    write_all(tree, &dir, files)
}

fn fdinfo(process: &SimProcess, gpu: &SimGpu) -> String {
    let kib = process.vram_bytes / 1024;
    format!(
        "pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t560\ndrm-driver:\tamdgpu\n\
         drm-client-id:\t{client}\ndrm-pdev:\t{bdf}\npasid:\t{pasid}\ndrm-total-vram:\t{kib} KiB\n\
         drm-memory-vram:\t{kib} KiB\ndrm-memory-gtt:\t2048 KiB\ndrm-memory-cpu:\t0 KiB\n\
         drm-engine-compute:\t0 ns\n",
        client = process.pid,
        bdf = gpu.bdf,
        pasid = 0x8000 + process.pid % 0x1000,
    )
}

fn write_kfd(tree: &Tree, dir: &str, process: &SimProcess, gpu: &SimGpu) -> io::Result<()> {
    let id = gpu.kfd_gpu_id;
    tree.write(format!("{dir}/vram_{id}"), format!("{}\n", process.vram_bytes))?;
    tree.write(format!("{dir}/sdma_{id}"), "0\n")?;
    tree.write(format!("{dir}/stats_{id}/evicted_ms"), "0\n")?;
    tree.write(format!("{dir}/stats_{id}/cu_occupancy"), "0\n")?;
    for counter in ["faults", "page_in", "page_out"] {
        tree.write(format!("{dir}/counters_{id}/{counter}"), "0\n")?;
    }
    Ok(())
}
