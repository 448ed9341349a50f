//! What the driver keeps of those who opened `/dev/kfd`.

use std::time::Duration;

use gpuev_sim::{Client, DriverEvent, Kernel, Scenario, SimMachine};

use crate::client::{KERNELS, THERMAL, machine, read, set_mask};

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn id(machine: &SimMachine, gpu: usize) -> u32 {
    machine.kfd_gpu_id(gpu).unwrap()
}

#[test]
fn a_process_knows_the_gpus_of_its_first_open_and_no_later_ones() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let root = Client::root();
        let older = machine.open_kfd(&root).unwrap();
        let added = machine.add_gpu().unwrap();
        let younger = machine.open_kfd(&root).unwrap();
        assert_eq!(errno(older.open_events(id(&machine, added), &root)), Some(libc::EINVAL));
        older.open_again(&root).unwrap();
        assert_eq!(errno(older.open_events(id(&machine, added), &root)), Some(libc::EINVAL));
        assert!(older.open_events(id(&machine, 0), &root).is_ok());
        let file = younger.open_events(id(&machine, added), &root).unwrap();
        set_mask(&file, u64::MAX);
        machine.emit(added, &THERMAL);
        assert_eq!(read(&file, 100).unwrap(), b"2 400:7\n");
        assert!(younger.generation() > older.generation());
        assert_eq!((older.gpu_ids().len(), younger.gpu_ids().len()), (2, 3));
    }
}

#[test]
fn a_gpu_that_came_back_is_another_to_who_knew_it_before() {
    let machine = machine(Kernel::V7_3);
    let root = Client::root();
    let process = machine.open_kfd(&root).unwrap();
    machine.remove_gpu(0).unwrap();
    machine.restore_gpu(0).unwrap();
    assert_eq!(errno(process.open_events(id(&machine, 0), &root)), Some(libc::EINVAL));
    assert!(machine.open_kfd(&root).unwrap().open_events(id(&machine, 0), &root).is_ok());
}

#[test]
fn the_first_drivers_look_gpus_up_anew() {
    let machine = machine(Kernel::Oldest);
    let process = machine.open_kfd(&Client::root()).unwrap();
    let added = machine.add_gpu().unwrap();
    assert!(process.open_events(id(&machine, added), &Client::root()).is_ok());
}

#[test]
fn nobody_opens_a_locked_kfd_and_who_has_opened_it_goes_on() {
    for kernel in Kernel::ALL {
        let refusal = match kernel {
            Kernel::Oldest | Kernel::V6_1 => libc::EAGAIN,
            _ => libc::EINVAL,
        };
        let machine = machine(kernel);
        let root = Client::root();
        let process = machine.open_kfd(&root).unwrap();
        let (lock, other) = (machine.lock_kfd(), machine.lock_kfd());
        assert!(machine.kfd_is_locked());
        assert_eq!(errno(machine.open_kfd(&root)), Some(refusal));
        assert_eq!(errno(process.open_again(&root)), Some(refusal));
        assert_eq!(errno(machine.open_events(id(&machine, 0), &root)), Some(refusal));
        let file = process.open_events(id(&machine, 0), &root).unwrap();
        set_mask(&file, u64::MAX);
        machine.emit(0, &THERMAL);
        assert_eq!(read(&file, 8).unwrap(), b"2 400:7\n");
        drop(lock);
        assert!(machine.open_kfd(&root).is_err(), "another GPU still is");
        drop(other);
        assert!(machine.open_kfd(&root).is_ok() && process.open_again(&root).is_ok());
        let opens = machine.kfd_opens();
        let seen: Vec<_> = opens.iter().map(|open| (open.first, open.refused)).collect();
        let no = Some(refusal);
        let all = [
            (true, None),
            (false, no),
            (false, no),
            (false, no),
            (false, no),
            (true, None),
            (false, None),
        ];
        assert_eq!(seen, all);
        assert!(opens.iter().all(|open| open.pid == std::process::id() && open.generation == 2));
    }
}

#[test]
fn drivers_from_7_2_on_want_a_gpu() {
    for kernel in Kernel::ALL {
        let machine = SimMachine::builder().gpus(0).kernel(kernel).build().unwrap();
        let refused = errno(machine.open_kfd(&Client::root()));
        let wants = matches!(kernel, Kernel::V7_2 | Kernel::V7_3);
        assert_eq!(refused, wants.then_some(libc::EINVAL), "{kernel}");
    }
}

/// Between the line that tells of a reset and the one that tells of its end.
#[test]
fn a_story_s_resets_lock_kfd_if_it_says_so() {
    let story = Scenario::by_name("reset").unwrap();
    for locks in [true, false] {
        let machine = machine(Kernel::V7_3);
        let file = machine.open_events(id(&machine, 0), &Client::root()).unwrap();
        set_mask(&file, 1 << 2);
        // The first reset begins and does not end.
        let first = story.events(2).position(|one| one.event.id() == 3 && one.gpu == 0).unwrap();
        let begun = story.rate(1_000_000).count(first as u64 + 1).locks(locks);
        let story = begun.duration(Duration::from_secs(60));
        let player = machine.play(story).unwrap();
        while crate::client::poll_for(&file, Some(60)).is_empty() {}
        // The player still lasts: it ends with its duration.
        while machine.kfd_is_locked() != locks {
            std::thread::yield_now();
        }
        assert_eq!(errno(machine.open_kfd(&Client::root())), locks.then_some(libc::EINVAL));
        drop(player);
        assert!(!machine.kfd_is_locked(), "it is over with the story");
    }
}

#[test]
fn only_amd_s_own_driver_has_a_version_of_its_own() {
    for kernel in Kernel::ALL {
        let machine = machine(kernel);
        let version = machine.root().join("sys/module/amdgpu/version");
        assert_eq!(version.exists(), kernel == Kernel::Dkms, "{kernel}");
        assert!(machine.root().join("sys/module/amdgpu/initstate").exists());
    }
}

#[test]
fn sockets_cannot_have_a_read_fail_and_say_so() {
    let machine = SimMachine::new().unwrap();
    machine.fail_next_read(0, libc::ENOMEM).unwrap();
    let _file = machine.open_events(id(&machine, 0), &Client::root()).unwrap();
    let error = machine.fail_next_read(0, libc::ENOMEM).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert!(machine.fail_next_read(0, 0).is_err());
    machine.emit(0, &DriverEvent::Thermal { throttlers: 1, count: 1 });
}
