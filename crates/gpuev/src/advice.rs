//! What to do where there is no GPU, no driver, or no way to `/dev/kfd`: the one place with these texts.
//!
//! An error number alone is not a diagnosis: what KFD lists, what is on the PCI bus and what this process runs in
//! decide what it means. Advice that may be wrong is not given.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;

use crate::machine::files;
use crate::{Card, ContainerEngine, Error, ErrorKind, Inventory, Machine};

/// Where the kernel says why it left a GPU out.
const KERNEL_LOG: &str = "the kernel's log has the reason: dmesg | grep -iE 'kfd|amdgpu'";
/// How an id looks that the container's user namespace does not map.
const UNMAPPED_ID: u32 = 65_534;
const GROUPS_LIMIT: usize = 1 << 20;

/// `/dev/kfd` of the machine could not be opened.
pub(crate) fn opening_kfd(machine: &Machine, path: &Path, error: io::Error) -> Error {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let failed = Error::io(format!("open {}", path.display()), error).with_path(path);
    let lists_gpus = || machine.inventory().is_ok_and(|inventory| !inventory.gpus.is_empty());
    match errno {
        Some(Errno::NOENT) => failed.with_kind(ErrorKind::NoGpu).with_hint(no_device(machine)),
        Some(Errno::ACCESS) => match may_open(machine, path) {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        },
        Some(Errno::PERM) => failed.with_hint(not_allowed(machine)),
        Some(Errno::INVAL) if !lists_gpus() => {
            failed.with_kind(ErrorKind::NoGpu).with_hint(nothing_to_compute(machine))
        }
        Some(Errno::INVAL | Errno::AGAIN) => failed.with_kind(ErrorKind::Locked).with_hint(
            "KFD is locked while a GPU is reset, repartitioned or removed: try again in a moment",
        ),
        Some(Errno::NOMEM) => failed.with_hint(format!(
            "as a rule memory is not short: KFD answers so where it could not start; {KERNEL_LOG}"
        )),
        Some(Errno::NODEV | Errno::NXIO) => failed
            .with_kind(ErrorKind::NoGpu)
            .with_hint("the driver behind the device is not loaded (any more)"),
        Some(Errno::MFILE) => failed.with_hint("raise the limit of open files (ulimit -n)"),
        _ => failed,
    }
}

/// There is no device node.
fn no_device(machine: &Machine) -> String {
    let lists_gpus = machine.path("sys/class/kfd/kfd/topology/nodes").is_dir();
    match (lists_gpus, machine.container()) {
        (true, Some(engine)) => format!(
            "the driver runs, and this container was not given the device: {}",
            give_devices(engine)
        ),
        (true, None) => "the driver runs and its device is not here: start the container with --device /dev/kfd \
             --device /dev/dri; on a host, see whether udev runs"
            .to_owned(),
        (false, _) => no_kfd(machine),
    }
}

fn give_devices(engine: ContainerEngine) -> &'static str {
    match engine {
        ContainerEngine::Kubernetes => {
            "a device plugin gives it (resource amd.com/gpu), or a hostPath volume of a privileged pod"
        }
        ContainerEngine::Apptainer => "start it with --rocm",
        _ => "start it with --device /dev/kfd --device /dev/dri",
    }
}

/// What a container of this kind needs.
#[must_use]
pub fn in_container(engine: ContainerEngine) -> String {
    let name = match engine {
        ContainerEngine::Docker => "a container of Docker",
        ContainerEngine::Podman => "a container of Podman",
        ContainerEngine::Kubernetes => "a pod of Kubernetes",
        ContainerEngine::Apptainer => "a container of Apptainer",
        ContainerEngine::Other => "a container or namespace",
    };
    format!("this is {name}; for the devices, {}", give_devices(engine))
}

/// The device cgroup, or a security module.
fn not_allowed(machine: &Machine) -> String {
    match machine.container() {
        Some(engine) => {
            format!("the container's device rules do not allow it: {}", give_devices(engine))
        }
        None => "a device cgroup or security module does not allow it; in a unit of systemd: \
             DeviceAllow=/dev/kfd rw"
            .to_owned(),
    }
}

/// The mode of the device does not let this process in.
fn may_open(machine: &Machine, path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(who_may_open(machine, metadata.gid(), metadata.mode() & 0o777))
}

fn who_may_open(machine: &Machine, gid: u32, mode: u32) -> String {
    let container = machine.container();
    if gid == UNMAPPED_ID {
        return match container {
            Some(ContainerEngine::Podman) => {
                "its group is not known in this container: start it with --group-add keep-groups, as a user \
                 who is in that group on the host"
            }
            _ => {
                "its group is not known here (a user namespace does not map it): on the host, ls -ln /dev/kfd \
                 tells which group may open it"
            }
        }
        .to_owned();
    }
    if mode & 0o060 != 0o060 || gid == 0 {
        return format!(
            "it is root's alone (mode {mode:04o}, group {gid}): on the host a udev rule gives it to a group: \
             KERNEL==\"kfd\", GROUP=\"render\", MODE=\"0660\""
        );
    }
    if own_groups(machine).contains(&gid) {
        return format!(
            "this process is in the group that may open it ({gid}): a security module refuses"
        );
    }
    join_group(machine, gid, container)
}

/// In a container the number is the host's, and the name that the container's own `/etc/group` has for it may be
/// that of another group.
fn join_group(machine: &Machine, gid: u32, container: Option<ContainerEngine>) -> String {
    match container {
        Some(ContainerEngine::Kubernetes) => {
            format!("its group is {gid}: add that to the pod's securityContext.supplementalGroups")
        }
        Some(ContainerEngine::Apptainer) => {
            format!("its group is {gid}: on the host, add the user to that group")
        }
        Some(_) => format!("its group is {gid}: start the container with --group-add {gid}"),
        None => match group_name(machine, gid) {
            Some(name) => format!(
                "its group is {gid} ({name}): add the user to it (usermod -aG {name} USER), and log in again"
            ),
            None => format!(
                "its group is {gid}, which has no name here: add the user to it (usermod -aG {gid} USER), \
                 and log in again"
            ),
        },
    }
}

fn group_name(machine: &Machine, gid: u32) -> Option<String> {
    let groups = files::read(&machine.path("etc/group"), GROUPS_LIMIT).ok()?;
    let wanted = gid.to_string();
    String::from_utf8_lossy(&groups).lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)? == wanted).then(|| name.to_owned())
    })
}

fn own_groups(machine: &Machine) -> Vec<u32> {
    let status = files::read(&machine.path("proc/self/status"), files::PAGE).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let numbers = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()
    };
    [numbers("Gid:"), numbers("Groups:")].concat()
}

/// Why KFD has no topology here, and what to do about it.
pub(crate) fn no_topology(machine: &Machine, path: &Path, error: io::Error) -> Error {
    if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
        return Error::io(format!("read {}", path.display()), error).with_path(path);
    }
    Error::io(format!("KFD lists no GPU: read {}", path.display()), error)
        .with_kind(ErrorKind::NoGpu)
        .with_hint(no_kfd(machine))
}

/// Why there is no KFD.
fn no_kfd(machine: &Machine) -> String {
    if machine.path("sys/class/kfd").is_dir() {
        return format!("KFD is there and lists no topology; {KERNEL_LOG}");
    }
    if machine.driver().loaded {
        return match machine.container() {
            Some(_) => "amdgpu is loaded, and this container does not show KFD: mount /sys of the host".to_owned(),
            None => "amdgpu is loaded without KFD: as a rule the kernel lacks CONFIG_HSA_AMD; in a container, mount \
                     /sys of the host"
                .to_owned(),
        };
    }
    let why = no_driver(machine);
    if machine.cards().is_empty() {
        format!("{why}; try a simulated GPU with `--source sim`")
    } else {
        why
    }
}

/// Why amdgpu is not loaded, and what to do about it.
#[must_use]
pub fn no_driver(machine: &Machine) -> String {
    if machine.is_wsl() {
        return "this is WSL, which passes GPUs on as /dev/dxg: it has neither amdgpu nor KFD, so there are no \
                events"
            .to_owned();
    }
    let cards = machine.cards();
    if cards.is_empty() {
        return match machine.path("sys/bus/pci/devices").is_dir() {
            true => "no AMD GPU is on the PCI bus".to_owned(),
            false => "the PCI bus cannot be seen here: whether there is an AMD GPU is not known"
                .to_owned(),
        };
    }
    let listed: Vec<String> = cards.iter().map(without_amdgpu).collect();
    let listed = listed.join("; ");
    if cards.iter().any(|card| card.driver.is_some()) {
        return listed;
    }
    match (machine.amdgpu_is_blacklisted_in(), machine.container()) {
        (Some(place), _) => format!("{listed}; amdgpu is blacklisted in {place}"),
        (None, Some(_)) => format!("{listed}; the host has to load amdgpu"),
        (None, None) => format!(
            "{listed}; if it is a chip of the last ten years, amdgpu drives it: modprobe amdgpu"
        ),
    }
}

/// Who drives a card, of which amdgpu is not in charge.
fn without_amdgpu(card: &Card) -> String {
    match card.driver.as_deref() {
        Some("radeon") => {
            format!("{card} is driven by radeon, which has no KFD and tells no events")
        }
        Some(driver) if driver.starts_with("vfio") => {
            format!(
                "{card} is bound to {driver}, for a virtual machine to use: its events are that machine's"
            )
        }
        Some(driver) => format!("{card} is driven by {driver}, which tells no events"),
        None => format!("{card} has no driver"),
    }
}

/// What to say of a card on the bus that KFD does not list.
#[must_use]
pub fn left_out(card: &Card) -> String {
    match card.driver.as_deref() {
        Some("amdgpu") => {
            format!(
                "{card} is driven by amdgpu, and KFD has left it out: no events of it; {KERNEL_LOG}"
            )
        }
        _ => without_amdgpu(card),
    }
}

/// KFD is loaded and knows no GPU.
fn nothing_to_compute(machine: &Machine) -> String {
    let cards: Vec<String> = machine.cards().iter().map(left_out).collect();
    if cards.is_empty() { "KFD knows no GPU".to_owned() } else { cards.join("; ") }
}

/// There is no GPU that may be used, although the topology was read.
#[must_use]
pub fn none_usable(inventory: &Inventory) -> Error {
    let missing = missing(inventory);
    let hint = if missing.is_empty() {
        "no AMD GPU is on the PCI bus".to_owned()
    } else {
        missing.join("; ")
    };
    Error::new(ErrorKind::NoGpu, "KFD lists no GPU that may be used here").with_hint(hint)
}

/// What is there and not in the list of GPUs, one sentence each.
#[must_use]
pub fn missing(inventory: &Inventory) -> Vec<String> {
    let unreadable = inventory
        .unreadable
        .iter()
        .map(|node| format!("KFD node {} is left out: {}", node.node, node.problem));
    let cards = inventory.left_out.iter().map(|card| {
        let may_be_denied = !inventory.denied.is_empty() || !inventory.unreadable.is_empty();
        match card.driver.as_deref() {
            Some("amdgpu") if may_be_denied => format!(
                "{card} is driven by amdgpu and not listed: it is one of the nodes that cannot be read here, or \
                 KFD has left it out"
            ),
            _ => left_out(card),
        }
    });
    denied(inventory).into_iter().chain(unreadable).chain(cards).collect()
}

/// What to say of nodes that the device cgroup keeps from us.
fn denied(inventory: &Inventory) -> Option<String> {
    let nodes: Vec<_> = inventory.denied.iter().map(|node| node.node.to_string()).collect();
    (!nodes.is_empty()).then(|| {
        format!(
            "KFD nodes {} are kept from us by the device cgroup; give the container their /dev/dri/renderD* \
             (--device)",
            nodes.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn with(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::TempDir::new().unwrap());
            for (path, content) in files {
                let path = tree.0.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            tree
        }

        fn machine(&self) -> Machine {
            Machine::at(self.0.path())
        }

        fn open(&self, errno: Errno) -> Error {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            opening_kfd(&self.machine(), Path::new("/dev/kfd"), error)
        }
    }

    const NODE: &str = "sys/class/kfd/kfd/topology/nodes/1";

    fn with_gpu() -> Tree {
        let (id, properties) = (format!("{NODE}/gpu_id"), format!("{NODE}/properties"));
        Tree::with(&[(&id, "100\n"), (&properties, "location_id 768\n")])
    }

    #[test]
    fn an_error_number_means_what_the_topology_says() {
        let locked = with_gpu().open(Errno::INVAL);
        assert_eq!(locked.kind(), ErrorKind::Locked);
        assert!(locked.to_string().contains("KFD is locked"), "{locked}");
        let empty = format!("{NODE}/gpu_id");
        let none = Tree::with(&[(&empty, "0\n")]).open(Errno::INVAL);
        assert_eq!(none.kind(), ErrorKind::NoGpu);
        assert!(none.to_string().contains("KFD knows no GPU"), "{none}");
        let failed = with_gpu().open(Errno::NOMEM);
        assert!(failed.to_string().contains("could not start"), "{failed}");
        assert!(failed.to_string().contains("dmesg"), "{failed}");
        assert!(!failed.to_string().contains("no GPU"), "{failed}");
        let missing = with_gpu().open(Errno::NOENT);
        assert!(missing.to_string().contains("udev"), "{missing}");
        assert!(!missing.to_string().contains("not loaded"), "{missing}");
        let refused = with_gpu().open(Errno::PERM);
        assert!(refused.to_string().contains("DeviceAllow"), "{refused}");
    }

    fn may_open(mark: &str, gid: u32, mode: u32) -> String {
        let group = ("etc/group", "root:x:0:\nrender:x:44:\nsgx:x:109:\nnogroup:x:65534:\n");
        let status = ("proc/self/status", "Gid:\t1000\t1000\t1000\t1000\nGroups:\t1000 55\n");
        let tree = Tree::with(&[group, status, (mark, "")]);
        who_may_open(&tree.machine(), gid, mode)
    }

    #[test]
    fn the_group_is_named_on_the_host_and_numbered_in_containers() {
        assert!(may_open(".keep", 44, 0o660).contains("usermod -aG render USER"));
        assert!(may_open(".keep", 77, 0o660).contains("usermod -aG 77 USER"));
        for (mark, advice) in [
            (".dockerenv", "--group-add 109"),
            ("run/.containerenv", "--group-add 109"),
            ("var/run/secrets/kubernetes.io/token", "supplementalGroups"),
            (".singularity.d/labels.json", "on the host"),
        ] {
            let text = may_open(mark, 109, 0o660);
            assert!(text.contains(advice) && text.contains("109"), "{text}");
            assert!(!text.contains("sgx") && !text.contains("usermod"), "{text}");
        }
    }

    #[test]
    fn nobody_is_told_to_join_root_or_nogroup() {
        for mark in [".keep", ".dockerenv", "run/.containerenv"] {
            for gid in [0, UNMAPPED_ID] {
                let text = may_open(mark, gid, 0o660);
                assert!(!text.contains("usermod") && !text.contains("nogroup"), "{text}");
                assert!(!text.contains("--group-add 0") && !text.contains("65534"), "{text}");
            }
        }
        assert!(may_open("run/.containerenv", UNMAPPED_ID, 0o660).contains("keep-groups"));
        assert!(may_open(".keep", 44, 0o600).contains("root's alone"));
        assert!(may_open(".keep", 55, 0o660).contains("security module"));
    }
}
