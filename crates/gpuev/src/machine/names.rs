//! What a GPU is called by those who sell it.
//!
//! Asked in this order: the board itself (`product_name`, from its FRU EEPROM), libdrm's list (by device and
//! revision), the list of PCI ids (by device), and last the driver's code name, which newer kernels no longer
//! have (they say `ip discovery`).

use std::collections::BTreeMap;
use std::path::Path;

use super::files;
use crate::Machine;

/// What lists of names may weigh; pci.ids has 1.5 MB.
const LIST_LIMIT: usize = 8 << 20;

/// A board's EEPROM holds at most 64 bytes of it.
const LONGEST_NAME: usize = 128;

const AMDGPU_IDS: [&str; 2] = ["usr/share/libdrm/amdgpu.ids", "opt/amdgpu/share/libdrm/amdgpu.ids"];
const PCI_IDS: [&str; 3] =
    ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "usr/share/pci.ids"];

/// The lists of a machine, read when first needed and once for all its GPUs.
pub(super) struct Names<'a> {
    machine: &'a Machine,
    amdgpu: Option<String>,
    pci: Option<String>,
    /// As a rule all GPUs of a machine are of one kind.
    found: BTreeMap<(u16, Option<u8>), Option<String>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(machine: &'a Machine) -> Self {
        Self { machine, amdgpu: None, pci: None, found: BTreeMap::new() }
    }

    /// The name of the GPU in `device_dir`, or the code name, or nothing.
    pub(super) fn of(
        &mut self,
        device_dir: &Path,
        device: Option<u16>,
        code_name: Option<String>,
    ) -> String {
        files::non_empty(&device_dir.join("product_name"))
            .filter(|name| name.len() <= LONGEST_NAME && !name.contains(char::is_control))
            .or_else(|| self.listed(device_dir, device?))
            .or_else(|| code_name.filter(|name| name != "ip discovery"))
            .unwrap_or_default()
    }

    fn listed(&mut self, device_dir: &Path, device: u16) -> Option<String> {
        let revision = files::text(&device_dir.join("revision")).ok();
        let revision = revision
            .and_then(|text| u8::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok());
        if let Some(known) = self.found.get(&(device, revision)) {
            return known.clone();
        }
        let name = self.look_up(device, revision);
        self.found.insert((device, revision), name.clone());
        name
    }

    fn look_up(&mut self, device: u16, revision: Option<u8>) -> Option<String> {
        let amdgpu = self.amdgpu.get_or_insert_with(|| first(self.machine, &AMDGPU_IDS));
        if let Some(name) = revision.and_then(|revision| in_amdgpu_ids(amdgpu, device, revision)) {
            return Some(name);
        }
        let pci = self.pci.get_or_insert_with(|| first(self.machine, &PCI_IDS));
        in_pci_ids(pci, device)
    }
}

fn first(machine: &Machine, paths: &[&str]) -> String {
    let list = paths.iter().find_map(|path| files::read(&machine.path(path), LIST_LIMIT).ok());
    let text = String::from_utf8(list.unwrap_or_default());
    text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// `74A1, 00, AMD Instinct MI300X`: device, revision, name.
fn in_amdgpu_ids(list: &str, device: u16, revision: u8) -> Option<String> {
    list.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = line.splitn(3, ',').map(str::trim);
        let same = u16::from_str_radix(fields.next()?, 16) == Ok(device)
            && u8::from_str_radix(fields.next()?, 16) == Ok(revision);
        fields.next().filter(|name| same && !name.is_empty()).map(str::to_owned)
    })
}

/// Below the line of vendor 1002, `\t74a1  Aqua Vanjaram [Instinct MI300X]`: what people know stands in
/// brackets.
fn in_pci_ids(list: &str, device: u16) -> Option<String> {
    const VENDOR: &str = "1002  ";
    let wanted = format!("\t{device:04x}  ");
    let start = if list.starts_with(VENDOR) { 0 } else { list.find(&format!("\n{VENDOR}"))? + 1 };
    let name = list[start..]
        .lines()
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with(['\t', '#']))
        .find_map(|line| line.strip_prefix(wanted.as_str()))?
        .trim();
    let bracketed =
        name.rsplit_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(inner, _)| inner);
    Some(bracketed.unwrap_or(name).to_owned()).filter(|name| !name.is_empty())
}
