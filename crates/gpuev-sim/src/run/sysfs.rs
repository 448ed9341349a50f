//! What the machine's own tree says about a GPU, for answers of its device nodes.

use std::fs;
use std::path::{Path, PathBuf};

/// A GPU's directories.
pub(super) struct Device {
    directory: PathBuf,
    properties: String,
}

impl Device {
    /// The GPU behind a DRM node such as `renderD128` or `card0`.
    pub(super) fn of_drm_node(root: &Path, name: &str) -> Option<Self> {
        let directory = root.join("sys/class/drm").join(name).join("device");
        if !directory.is_dir() {
            return None;
        }
        let minor = render_minor(&directory);
        let properties = topology(root)
            .map(|node| read(&node.join("properties")))
            .find(|text| minor.is_some() && value(text, "drm_render_minor") == minor)
            .unwrap_or_default();
        Some(Device { directory, properties })
    }

    /// The GPU that KFD knows by this number.
    pub(super) fn of_gpu_id(root: &Path, gpu_id: u32) -> Option<Self> {
        let node = topology(root).find(|node| id_of(node) == Some(gpu_id))?;
        let properties = read(&node.join("properties"));
        let minor = value(&properties, "drm_render_minor")?;
        let directory = root.join(format!("sys/class/drm/renderD{minor}/device"));
        Some(Device { directory, properties })
    }

    /// A number in one of the device's files, decimal or `0x` hexadecimal.
    pub(super) fn number(&self, file: &str) -> Option<u64> {
        parse(&read(&self.directory.join(file)))
    }

    /// A number in a file of its first hardware monitor.
    pub(super) fn hwmon(&self, file: &str) -> Option<u64> {
        let monitors = fs::read_dir(self.directory.join("hwmon")).ok()?;
        let monitor = monitors.filter_map(Result::ok).map(|entry| entry.path()).min()?;
        parse(&read(&monitor.join(file)))
    }

    /// A number of its KFD node.
    pub(super) fn property(&self, name: &str) -> Option<u64> {
        value(&self.properties, name)
    }
}

fn id_of(node: &Path) -> Option<u32> {
    read(&node.join("gpu_id")).trim().parse().ok()
}

fn topology(root: &Path) -> impl Iterator<Item = PathBuf> {
    let nodes = fs::read_dir(root.join("sys/class/kfd/kfd/topology/nodes"));
    let mut numbered: Vec<(u32, PathBuf)> = nodes
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    numbered.sort();
    numbered.into_iter().map(|(_, path)| path)
}

fn render_minor(device: &Path) -> Option<u64> {
    let nodes = fs::read_dir(device.join("drm")).ok()?;
    nodes
        .filter_map(Result::ok)
        .find_map(|entry| entry.file_name().to_str()?.strip_prefix("renderD")?.parse().ok())
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn value(properties: &str, name: &str) -> Option<u64> {
    properties
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(key, value)| (key == name).then(|| parse(value))?)
}
