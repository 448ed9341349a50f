//! Who opened an event file, and which events the driver lets through to it.

use crate::event::Pid;
use crate::kernel::Kernel;

/// The opener of an event file. Capability and process are fixed when the file is opened,
/// whoever reads it later (`kfd_smi_client`, set in `kfd_smi_event_open`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The process (thread group) that opened the file.
    pub pid: Pid,
    /// Whether it had `CAP_SYS_ADMIN` in the initial user namespace.
    pub cap_sys_admin: bool,
}

impl Client {
    /// This process, with `CAP_SYS_ADMIN`.
    #[must_use]
    pub fn root() -> Self {
        Client { pid: Pid::from(std::process::id()), cap_sys_admin: true }
    }

    /// The process `pid`, without the capability.
    #[must_use]
    pub fn unprivileged(pid: impl Into<Pid>) -> Self {
        Client { pid: pid.into(), cap_sys_admin: false }
    }
}

/// Bit 63 of the mask, `KFD_SMI_EVENT_ALL_PROCESS`.
pub const ALL_PROCESS: u64 = 1 << 63;

const VM_FAULT: u32 = 1;
const PROCESS_START: u32 = 12;
const PROCESS_END: u32 = 13;

/// Whether the driver's filter (`kfd_smi_ev_enabled`) gives this event to this client.
pub(crate) fn passes(
    kernel: Kernel,
    client: &Client,
    mask: u64,
    id: u32,
    pid: Option<Pid>,
) -> bool {
    if !(1..=64).contains(&id) || mask & (1 << (id - 1)) == 0 {
        return false;
    }
    let Some(pid) = pid.filter(|pid| pid.host != 0) else { return true };
    if matches!(id, VM_FAULT | PROCESS_START | PROCESS_END) && !kernel.hides_faults_of_others() {
        return true;
    }
    if client.cap_sys_admin && (!kernel.needs_all_process_bit() || mask & ALL_PROCESS != 0) {
        return true;
    }
    if kernel.filters_by_namespaced_pid() {
        client.pid.namespaced == pid.namespaced
    } else {
        client.pid.host == pid.host
    }
}
