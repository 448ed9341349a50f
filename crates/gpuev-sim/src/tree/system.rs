//! What is there without any GPU: kernel, driver, users.

use std::io;

use super::topology::KFD;
use super::{Tree, write_all};
use crate::clock::boot_ns;
use crate::kernel::Kernel;

/// `CapEff` of root, up to `CAP_CHECKPOINT_RESTORE`.
pub(crate) const ALL_CAPABILITIES: u64 = 0x1ff_ffff_ffff;

/// The kernel and its users.
pub(crate) fn write(tree: &Tree, kernel: Kernel) -> io::Result<()> {
    write_proc(tree, kernel)?;
    for dir in ["sys/class/drm", "sys/class/hwmon", "sys/bus/pci/devices", "dev/dri"] {
        tree.mkdir(dir)?;
    }
    tree.write("sys/class/drm/version", "drm 1.1.0 20060810\n")?;
    let users = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n";
    tree.write("etc/passwd", users)?;
    tree.write("etc/group", "root:x:0:\nvideo:x:44:alice\nrender:x:105:alice\nalice:x:1000:\n")
}

fn write_proc(tree: &Tree, kernel: Kernel) -> io::Result<()> {
    let seconds = boot_ns() / 1_000_000_000;
    tree.write("proc/uptime", format!("{seconds}.00 {seconds}.00\n"))?;
    let version = format!("Linux version {} (gpuev-sim) #1 SMP\n", kernel.release());
    tree.write("proc/version", version)?;
    let files = [
        ("osrelease", format!("{}\n", kernel.release())),
        ("hostname", "simulated\n".to_owned()),
        ("random/boot_id", "5f0e8f6a-2c7d-4d53-9b6e-90f6a3b1c7d2\n".to_owned()),
    ];
    write_all(tree, "proc/sys/kernel", files)?;
    let status = format!(
        "Name:\tgpuev\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t1\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n\
         Groups:\t0 44 105\nNSpid:\t{pid}\nCapInh:\t0000000000000000\n\
         CapPrm:\t{ALL_CAPABILITIES:016x}\nCapEff:\t{ALL_CAPABILITIES:016x}\n",
        pid = std::process::id(),
    );
    tree.write("proc/self/status", status)?;
    tree.write("proc/self/uid_map", "         0          0 4294967295\n")
}

/// KFD, without any node.
pub(crate) fn write_kfd(tree: &Tree) -> io::Result<()> {
    tree.mkdir(format!("{KFD}/proc"))?;
    tree.write(format!("{KFD}/dev"), "511:0\n")?;
    tree.link("sys/class/kfd/kfd", KFD)?;
    tree.write("dev/kfd", "")
}

/// The driver as a module.
pub(crate) fn write_module(tree: &Tree, kernel: Kernel) -> io::Result<()> {
    tree.write("sys/module/amdgpu/refcnt", "12\n")?;
    tree.write("sys/module/amdgpu/initstate", "live\n")?;
    match kernel {
        // Only the out-of-tree driver has a version of its own.
        Kernel::Dkms => tree.write("sys/module/amdgpu/version", "6.14.14\n"),
        _ => Ok(()),
    }
}
