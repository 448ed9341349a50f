//! Small sysfs and procfs trees.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gpuev::Machine;
use tempfile::TempDir;

/// A machine made of files; gone when dropped.
pub(crate) struct Tree {
    dir: TempDir,
}

/// What a node of KFD's topology says of a GPU.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub(crate) node: u32,
    pub(crate) gpu_id: u32,
    pub(crate) location_id: u32,
    pub(crate) render_minor: u32,
    pub(crate) unique_id: u64,
}

impl Tree {
    /// A machine with a driver and no nodes.
    pub(crate) fn new() -> Self {
        let tree = Self { dir: TempDir::new().unwrap() };
        tree.write("sys/class/kfd/kfd/topology/generation_id", "2\n");
        fs::create_dir_all(tree.path("sys/class/kfd/kfd/topology/nodes")).unwrap();
        tree.write("sys/module/amdgpu/initstate", "live\n");
        tree
    }

    /// A machine with nothing at all.
    pub(crate) fn bare() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine::at(self.dir.path())
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn remove(&self, path: impl AsRef<Path>) {
        let path = self.path(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// A symbolic link at `path`, with all that is above it.
    pub(crate) fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A file that nobody may read, root included: sysctls have no exception for it.
    pub(crate) fn deny(&self, path: impl AsRef<Path>) {
        let path = self.path(path);
        let _ = fs::remove_file(&path);
        symlink("/proc/sys/vm/compact_memory", path).unwrap();
    }

    /// A node that is a CPU package.
    pub(crate) fn cpu(&self, node: u32) {
        let dir = node_dir(node);
        self.write(format!("{dir}/gpu_id"), "0\n");
        self.write(format!("{dir}/properties"), "cpu_cores_count 64\nsimd_count 0\n");
        self.write(format!("{dir}/name"), "\n");
    }

    /// A node that is a GPU or a partition, without its PCI device.
    pub(crate) fn node(&self, node: Node) {
        let dir = node_dir(node.node);
        self.write(format!("{dir}/gpu_id"), format!("{}\n", node.gpu_id));
        self.write(format!("{dir}/name"), "ip discovery\n");
        self.write(
            format!("{dir}/properties"),
            format!(
                "cpu_cores_count 0\nsimd_count 1216\nsimd_per_cu 4\ngfx_target_version 90402\n\
                 vendor_id 4098\ndevice_id 29857\nlocation_id {}\ndomain 0\ndrm_render_minor {}\n\
                 hive_id 77\nunique_id {}\n",
                node.location_id, node.render_minor, node.unique_id
            ),
        );
    }

    /// A GPU that is not partitioned, number `n`, with its PCI device: node `n + 1`, bus `3 + n`.
    pub(crate) fn gpu(&self, n: u32) -> String {
        let node = Node {
            node: n + 1,
            gpu_id: 1000 + n,
            location_id: (3 + n) << 8,
            render_minor: 128 + n,
            unique_id: 0x9246_f3a1_b0c7_0000 + u64::from(n),
        };
        self.node(node);
        let device = device_dir(n);
        self.write(format!("{device}/unique_id"), format!("{:016x}\n", node.unique_id));
        self.write(format!("{device}/vendor"), "0x1002\n");
        self.write(format!("{device}/class"), "0x120000\n");
        self.write(format!("{device}/device"), "0x74a1\n");
        self.write(format!("{device}/revision"), "0x00\n");
        self.write(format!("{device}/drm/card{}/dev", n + 1), "226:1\n");
        self.write(format!("{device}/drm/renderD{}/dev", 128 + n), "226:128\n");
        let bdf = device.rsplit('/').next().unwrap();
        self.link(
            format!("sys/class/drm/renderD{}/device", 128 + n),
            format!("../../../bus/pci/devices/{bdf}"),
        );
        device
    }
}

pub(crate) fn node_dir(node: u32) -> String {
    format!("sys/class/kfd/kfd/topology/nodes/{node}")
}

/// The PCI device of [`Tree::gpu`] `n`.
pub(crate) fn device_dir(n: u32) -> String {
    format!("sys/bus/pci/devices/0000:{:02x}:00.0", 3 + n)
}
