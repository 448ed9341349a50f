//! Who sees what.

use gpuev_sim::{ALL_PROCESS, Client, DriverEvent, Kernel, Pid};

use crate::client::{KERNELS, drain, machine, open};

const OWN: u32 = 77;
const OTHER: u32 = 78;

fn events(pid: Pid) -> [DriverEvent; 3] {
    [
        DriverEvent::VmFault { pid, comm: "x".into() },
        DriverEvent::PageFaultStart { pid, page: 1, write: true },
        DriverEvent::ProcessStart { pid, comm: "x".into() },
    ]
}

/// The numbers of the events of a process that a client sees.
fn seen(kernel: Kernel, client: &Client, mask: u64, pid: Pid) -> String {
    let machine = machine(kernel);
    let file = open(&machine, 0, client, mask);
    for event in events(pid) {
        machine.emit(0, &event);
    }
    drain(&file).lines().filter_map(|line| line.split(' ').next()).collect()
}

/// What there is to be seen on a kernel.
fn everything(kernel: Kernel) -> &'static str {
    if matches!(kernel, Kernel::V6_1 | Kernel::V6_12) { "17" } else { "17c" }
}

const PLAIN: u64 = !ALL_PROCESS;

#[test]
fn everybody_sees_what_has_no_process() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open(&machine, 0, &Client::unprivileged(OWN), PLAIN);
        machine.emit(0, &DriverEvent::Thermal { throttlers: 1, count: 1 });
        machine.emit(0, &DriverEvent::PreReset { sequence: 1, cause: None });
        machine.emit(0, &DriverEvent::PostReset { sequence: 1, cause: None });
        machine.emit(0, &DriverEvent::PageFaultStart { pid: 0.into(), page: 1, write: true });
        assert_eq!(drain(&file).lines().count(), 4, "{kernel}");
    }
}

#[test]
fn everybody_sees_his_own() {
    for kernel in KERNELS {
        for cap_sys_admin in [false, true] {
            for mask in [PLAIN, u64::MAX] {
                let client = Client { pid: OWN.into(), cap_sys_admin };
                assert_eq!(seen(kernel, &client, mask, OWN.into()), everything(kernel));
            }
        }
    }
}

#[test]
fn the_privileged_see_others_with_bit_63_or_from_7_2_on() {
    let root = Client { pid: OWN.into(), cap_sys_admin: true };
    for kernel in KERNELS {
        let all = everything(kernel);
        assert_eq!(seen(kernel, &root, u64::MAX, OTHER.into()), all);
        let without = if all == "17" { "1" } else { all };
        assert_eq!(seen(kernel, &root, PLAIN, OTHER.into()), without, "{kernel}");
    }
}

#[test]
fn the_unprivileged_see_violations_and_lives_of_others_up_to_7_2() {
    let user = Client::unprivileged(OWN);
    for (kernel, sees) in
        [(Kernel::V6_1, "1"), (Kernel::V6_12, "1"), (Kernel::V7_2, "1c"), (Kernel::V7_3, "")]
    {
        for mask in [PLAIN, u64::MAX] {
            assert_eq!(seen(kernel, &user, mask, OTHER.into()), sees, "{kernel}");
        }
    }
}

/// Two containers whose processes have the same number.
#[test]
fn containers_are_mistaken_for_each_other_on_7_2_only() {
    let a = Client { pid: Pid::in_namespace(166, 1), cap_sys_admin: false };
    let b = Pid::in_namespace(266, 1);
    for (kernel, sees) in
        [(Kernel::V6_1, "1"), (Kernel::V6_12, "1"), (Kernel::V7_2, "17c"), (Kernel::V7_3, "")]
    {
        assert_eq!(seen(kernel, &a, PLAIN, b), sees, "{kernel}");
        let own = everything(kernel);
        assert_eq!(seen(kernel, &a, PLAIN, a.pid), own, "{kernel}");
    }
}

/// Whoever reads: what counts is who opened.
#[test]
fn capability_and_owner_are_those_at_open() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open(&machine, 0, &Client::root(), u64::MAX);
        let heir = file.try_clone().unwrap();
        drop(file);
        let fault = DriverEvent::PageFaultStart { pid: OTHER.into(), page: 1, write: true };
        machine.emit(0, &fault);
        assert_eq!(drain(&heir).lines().count(), 1);
        assert_eq!(machine.event_files()[0].client, Client::root());
    }
}

#[test]
fn the_oldest_and_amd_s_own_driver_filter_as_their_time_did() {
    let user = Client::unprivileged(OWN);
    assert_eq!(seen(Kernel::Oldest, &user, PLAIN, OTHER.into()), "1");
    assert_eq!(seen(Kernel::V6_12Nul, &user, PLAIN, OTHER.into()), "1");
    assert_eq!(seen(Kernel::Dkms, &user, PLAIN, OTHER.into()), "1c");
}
