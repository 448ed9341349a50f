//! Laying a machine of the zoo: its files as they were found, and the links that sysfs makes to
//! devices by itself.

use std::io;

use super::topology::KFD;
use super::{Tree, system};
use crate::zoo::text::{Entry, Failure, Gpu, What};

/// Reading this gives `EINVAL` to root, for whom it can only be written, and `EACCES` to others.
const INVALID: &str = "/proc/self/clear_refs";

/// Lays every file. KFD says nothing of hidden GPUs, as the device cgroup has it, and they have no
/// nodes in `/dev`; all else of them is seen.
pub(crate) fn lay(tree: &Tree, entries: &[Entry], hidden_gpus: &[Gpu]) -> io::Result<()> {
    let hidden = hidden_nodes(entries, hidden_gpus);
    for Entry { path, what } in entries {
        let is_hidden = hidden.iter().any(|node| path.starts_with(node.as_str()));
        match what {
            What::Folder => tree.mkdir(path)?,
            What::File(_) if is_hidden => tree.deny(path)?,
            What::File(content) => tree.write(path, content)?,
            What::Link(target) => tree.symlink(path, target)?,
            What::Fails(Failure::Invalid) => tree.symlink(path, INVALID)?,
            What::Fails(Failure::NotPermitted) => tree.deny(path)?,
        }
    }
    entries.iter().filter(|entry| entry.what == What::Folder).try_for_each(|folder| {
        folders_of(&folder.path).try_for_each(|path| link_device(tree, path))
    })?;
    if entries.iter().any(|entry| entry.path.starts_with(KFD)) {
        system::write_kfd(tree)?;
    }
    hidden_gpus.iter().try_for_each(|gpu| {
        tree.remove(format!("dev/dri/renderD{}", gpu.render_minor))?;
        gpu.card.map_or(Ok(()), |card| tree.remove(format!("dev/dri/card{card}")))
    })
}

/// Folders of the KFD nodes of these GPUs, each with a slash.
fn hidden_nodes(entries: &[Entry], gpus: &[Gpu]) -> Vec<String> {
    let id_of = |entry: &Entry| match &entry.what {
        What::File(text) => std::str::from_utf8(text).ok()?.trim().parse::<u32>().ok(),
        _ => None,
    };
    { entries.iter() }
        .filter_map(|entry| Some((entry.path.strip_suffix("gpu_id")?, id_of(entry)?)))
        .filter(|(_, id)| gpus.iter().any(|gpu| gpu.kfd_id == *id))
        .map(|(folder, _)| folder.to_owned())
        .collect()
}

/// A folder and all above it: a line of the text may name several at once.
fn folders_of(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end])
}

/// The links that lead to a device's folder, if this is one.
fn link_device(tree: &Tree, path: &str) -> io::Result<()> {
    let Some((above, name)) = path.strip_prefix("sys/devices/").and(path.rsplit_once('/')) else {
        return Ok(());
    };
    if is_pci_address(name) {
        return link(tree, &format!("sys/bus/pci/devices/{name}"), path);
    }
    let Some((device, kind)) = above.rsplit_once('/') else { return Ok(()) };
    match kind {
        "hwmon" if name.starts_with("hwmon") => {
            link(tree, &format!("{path}/device"), device)?;
            link(tree, &format!("sys/class/hwmon/{name}"), path)
        }
        "drm" => match name.strip_prefix("card").or(name.strip_prefix("renderD")) {
            Some(minor) if minor.bytes().all(|byte| byte.is_ascii_digit()) => {
                super::device::add_drm_node(tree, device, name, minor)
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn is_pci_address(name: &str) -> bool {
    let shape = |byte: u8| match byte {
        b':' | b'.' => byte,
        byte if byte.is_ascii_hexdigit() => b'0',
        _ => b'?',
    };
    name.bytes().map(shape).eq(*b"0000:00:00.0")
}

/// A link, unless it is there already.
fn link(tree: &Tree, path: &str, target: &str) -> io::Result<()> {
    if tree.path(path)?.symlink_metadata().is_ok() { Ok(()) } else { tree.link(path, target) }
}
