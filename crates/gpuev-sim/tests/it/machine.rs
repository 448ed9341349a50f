//! The machine itself: its files, its GPUs' coming and going.

use std::fs;
use std::path::PathBuf;

use gpuev_sim::{Client, DriverEvent, Kernel, RasBlock, Sensor, SimMachine, SimProcess};

use crate::client::{open, read};

fn text(machine: &SimMachine, path: &str) -> String {
    fs::read_to_string(machine.root().join(path)).unwrap()
}

fn pci(machine: &SimMachine, gpu: usize) -> String {
    format!("sys/bus/pci/devices/{}", machine.gpus()[gpu].bdf)
}

#[test]
fn one_line_makes_a_machine_with_one_gpu() {
    let machine = SimMachine::new().unwrap();
    assert_eq!((machine.gpus().len(), machine.kfd_version()), (1, (1, 23)));
    assert_eq!(text(&machine, "sys/class/kfd/kfd/topology/nodes/0/gpu_id"), "0\n");
    assert_eq!(text(&machine, "sys/class/kfd/kfd/topology/nodes/1/gpu_id"), "23073\n");
    assert_eq!(text(&machine, &format!("{}/vendor", pci(&machine, 0))), "0x1002\n");
    let properties = text(&machine, "sys/class/kfd/kfd/topology/nodes/1/properties");
    assert!(properties.contains("\ndrm_render_minor 128\n"));
    assert!(properties.contains("\nlocation_id 768\n"));
}

#[test]
fn its_files_go_with_the_last_handle() {
    let machine = SimMachine::new().unwrap();
    let other = machine.clone();
    let root = machine.root();
    drop(machine);
    assert!(root.exists());
    drop(other);
    assert!(!root.exists());
}

#[test]
fn every_link_leads_to_something_inside() {
    let machine = SimMachine::builder().gpus(2).partitions(3).build().unwrap();
    let mut folders = vec![machine.root().join("sys")];
    let mut links = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_symlink() {
                let target = fs::canonicalize(entry.path()).unwrap_or_else(|error| {
                    panic!("{}: {error}", entry.path().display());
                });
                assert!(target.starts_with(fs::canonicalize(machine.root()).unwrap()));
                links += 1;
            }
        }
    }
    assert!(links > 30, "{links}");
}

#[test]
fn partitions_share_an_address_and_have_render_nodes_of_their_own() {
    let machine = SimMachine::builder().gpus(2).partitions(8).build().unwrap();
    let gpus = machine.gpus();
    assert_eq!(gpus.len(), 16);
    assert!(gpus[..8].iter().all(|gpu| gpu.bdf == "0000:03:00.0"));
    assert!(gpus[8..].iter().all(|gpu| gpu.bdf == "0000:04:00.0"));
    for gpu in &gpus {
        let link = format!("sys/class/drm/renderD{}/device", gpu.render_minor);
        let device = fs::canonicalize(machine.root().join(link)).unwrap();
        let name = device.file_name().unwrap().to_str().unwrap();
        if gpu.partition == 0 {
            assert_eq!(name, gpu.bdf);
        } else {
            assert_eq!(name, format!("amdgpu_xcp.{}", gpu.index - 1 - gpu.device));
        }
    }
    let mode = format!("{}/current_compute_partition", pci(&machine, 0));
    assert_eq!(text(&machine, &mode), "CPX\n");
}

#[test]
fn ids_differ_and_none_is_0() {
    let machine = SimMachine::builder().gpus(64).partitions(8).build().unwrap();
    let mut ids: Vec<u32> = machine.gpus().iter().map(|gpu| gpu.kfd_gpu_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 512);
    assert!(ids[0] > 0);
}

#[test]
fn a_machine_may_have_no_gpu_and_may_not_have_too_many() {
    let machine = SimMachine::builder().gpus(0).build().unwrap();
    assert!(machine.gpus().is_empty());
    assert!(machine.root().join("sys/class/kfd/kfd/topology/nodes/0").exists());
    let error = SimMachine::builder().gpus(5000).build().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn denied_nodes_cannot_be_read_by_anybody() {
    let machine = SimMachine::builder().gpus(1).denied(1).build().unwrap();
    assert_eq!(machine.gpus().len(), 1);
    for file in ["gpu_id", "properties", "name"] {
        let path = machine.root().join("sys/class/kfd/kfd/topology/nodes/2").join(file);
        let error = fs::read(path).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    }
}

#[test]
fn a_gpu_that_goes_ends_its_event_files_and_takes_its_files() {
    let machine = SimMachine::builder().gpus(2).build().unwrap();
    let gone = open(&machine, 0, &Client::root(), u64::MAX);
    let stays = open(&machine, 1, &Client::root(), u64::MAX);
    let device = machine.root().join(pci(&machine, 0));
    let generation = "sys/class/kfd/kfd/topology/generation_id";
    assert_eq!(text(&machine, generation), "2\n");
    machine.remove_gpu(0).unwrap();
    assert_eq!(text(&machine, generation), "3\n");
    assert_eq!(read(&gone, 100), Ok(Vec::new()), "end of file");
    assert!(!device.exists());
    assert!(!machine.root().join("sys/class/drm/renderD128").exists());
    assert!(!machine.gpus()[0].present);
    assert!(machine.open_events(machine.gpus()[0].kfd_gpu_id, &Client::root()).is_err());
    machine.emit(0, &DriverEvent::Thermal { throttlers: 1, count: 1 });
    machine.emit(1, &DriverEvent::Thermal { throttlers: 1, count: 1 });
    assert_eq!(read(&stays, 100).unwrap(), b"2 1:1\n");
    machine.restore_gpu(0).unwrap();
    assert!(device.exists());
    let again = open(&machine, 0, &Client::root(), u64::MAX);
    machine.emit(0, &DriverEvent::Thermal { throttlers: 1, count: 2 });
    assert_eq!(read(&again, 100).unwrap(), b"2 1:2\n");
    assert_eq!(machine.add_gpu().unwrap(), 2);
    assert_eq!(machine.gpus().len(), 3);
    assert!(machine.remove_gpu(9).is_err());
}

#[test]
fn sensors_say_what_they_are_told() {
    let machine = SimMachine::new().unwrap();
    let device = pci(&machine, 0);
    machine.set_temperature_millidegrees(0, Sensor::Junction, 97_000).unwrap();
    machine.set_power_microwatts(0, 230_000_000).unwrap();
    machine.set_busy_percent(0, 99).unwrap();
    machine.set_vram_used(0, 1 << 34).unwrap();
    machine.set_throttlers(0, gpuev_sim::throttler::TEMP_HOTSPOT).unwrap();
    machine.add_ras_error(0, RasBlock::Umc, true).unwrap();
    machine.add_ras_error(0, RasBlock::Gfx, false).unwrap();
    assert_eq!(text(&machine, "sys/class/hwmon/hwmon2/temp2_input"), "97000\n");
    assert_eq!(text(&machine, "sys/class/hwmon/hwmon2/power1_average"), "230000000\n");
    assert_eq!(text(&machine, "sys/class/hwmon/hwmon2/name"), "amdgpu\n");
    assert_eq!(text(&machine, &format!("{device}/gpu_busy_percent")), "99\n");
    assert_eq!(text(&machine, &format!("{device}/mem_info_vram_used")), "17179869184\n");
    assert_eq!(text(&machine, &format!("{device}/ras/umc_err_count")), "ue: 1\nce: 0\n");
    assert_eq!(text(&machine, &format!("{device}/ras/gfx_err_count")), "ue: 0\nce: 1\n");
    let pages = text(&machine, &format!("{device}/ras/gpu_vram_bad_pages"));
    assert_eq!(pages, "0x01234000 : 0x00001000 : R\n");
    let metrics = fs::read(machine.root().join(&device).join("gpu_metrics")).unwrap();
    assert_eq!((metrics.len(), &metrics[..4]), (120, &[120, 0, 1, 3][..]));
    assert_eq!(u16::from_le_bytes([metrics[6], metrics[7]]), 97, "temperature_hotspot");
    assert_eq!(u16::from_le_bytes([metrics[22], metrics[23]]), 230, "average_socket_power");
    let common = u64::from_le_bytes(metrics[112..120].try_into().unwrap());
    assert_eq!(common, 1 << 36, "indep_throttle_status");
    assert!(machine.set_busy_percent(7, 1).is_err());
}

#[test]
fn processes_are_seen_in_proc_and_by_kfd() {
    let machine = SimMachine::new().unwrap();
    let slurm = "0::/system.slice/slurmstepd.scope/job_77/step_0/user/task_0";
    let job = SimProcess::new(4242, "a\nb").uid(1000).cgroup(slurm).gpu(0).vram(1 << 30);
    machine.add_process(&job).unwrap();
    assert_eq!(text(&machine, "proc/4242/comm"), "a\nb\n");
    assert_eq!(text(&machine, "proc/4242/cgroup"), format!("{slurm}\n"));
    assert!(text(&machine, "proc/4242/status").starts_with("Name:\ta\\nb\n"));
    assert!(text(&machine, "proc/4242/fdinfo/4").contains("\ndrm-pdev:\t0000:03:00.0\n"));
    assert_eq!(text(&machine, "sys/class/kfd/kfd/proc/4242/vram_23073"), "1073741824\n");
    machine.remove_process(4242).unwrap();
    assert!(!machine.root().join("proc/4242").exists());
    assert!(!machine.root().join("sys/class/kfd/kfd/proc/4242").exists());
}

#[test]
fn files_may_be_spoilt_but_only_inside() {
    let machine = SimMachine::new().unwrap();
    machine.write_file("/sys/class/drm/version", "odd").unwrap();
    assert_eq!(text(&machine, "sys/class/drm/version"), "odd");
    machine.remove_file("sys/class/drm/version").unwrap();
    machine.remove_file("sys/class/drm/version").unwrap();
    assert!(!machine.root().join("sys/class/drm/version").exists());
    assert!(machine.write_file("../outside", "").is_err());
    assert!(machine.remove_file(PathBuf::from("sys/../../outside")).is_err());
    machine.deny_file("sys/class/drm/version").unwrap();
    assert!(fs::read(machine.root().join("sys/class/drm/version")).is_err());
}

#[test]
fn each_kernel_says_which_it_is() {
    for (kernel, version) in
        [(Kernel::V6_1, (1, 11)), (Kernel::V6_12, (1, 17)), (Kernel::V7_2, (1, 23))]
    {
        let machine = SimMachine::builder().kernel(kernel).build().unwrap();
        assert_eq!(machine.kfd_version(), version);
        let release = format!("{}\n", kernel.release());
        assert_eq!(text(&machine, "proc/sys/kernel/osrelease"), release);
        assert_eq!(kernel.name().parse(), Ok(kernel));
    }
    let error = "5.4".parse::<Kernel>().unwrap_err().to_string();
    assert!(error.contains("6.12"), "{error}");
}

#[test]
fn a_gpu_that_is_divided_anew_has_other_nodes() {
    let machine = SimMachine::builder().gpus(2).partitions(2).build().unwrap();
    let before = open(&machine, 0, &Client::root(), u64::MAX);
    let stays = open(&machine, 2, &Client::root(), u64::MAX);
    let process = machine.open_kfd(&Client::root()).unwrap();
    let new = machine.repartition(1, 8).unwrap();
    assert_eq!(new, 4..12);
    assert_eq!(read(&before, 100), Ok(Vec::new()), "end of file");
    let gpus = machine.gpus();
    assert!(!gpus[0].present && !gpus[1].present && gpus[2].present && gpus[3].present);
    for (partition, gpu) in gpus[4..].iter().enumerate() {
        assert_eq!((gpu.partition as usize, gpu.partitions), (partition, 8));
        assert_eq!((&gpu.bdf, gpu.unique_id), (&gpus[0].bdf, gpus[0].unique_id));
    }
    assert_eq!(text(&machine, &format!("{}/current_compute_partition", pci(&machine, 4))), "CPX\n");
    let nodes = machine.root().join("sys/class/kfd/kfd/topology/nodes");
    assert_eq!(fs::read_dir(nodes).unwrap().count(), 1 + 2 + 8);
    assert!(process.open_events(gpus[5].kfd_gpu_id, &Client::root()).is_err());
    let file = open(&machine, 5, &Client::root(), u64::MAX);
    machine.emit(5, &DriverEvent::Thermal { throttlers: 1, count: 1 });
    machine.emit(2, &DriverEvent::Thermal { throttlers: 1, count: 2 });
    assert_eq!(
        (read(&file, 99).unwrap(), read(&stays, 99).unwrap()),
        (b"2 1:1\n".to_vec(), b"2 1:2\n".to_vec())
    );
    assert!(machine.restore_gpu(0).is_err(), "it is not there any more");
    assert_eq!(machine.repartition(4, 1).unwrap(), 12..13);
    assert!(!machine.kfd_is_locked());
    for partitions in [0, 3, 16] {
        assert!(machine.repartition(12, partitions).is_err());
    }
    assert!(SimMachine::new().unwrap().repartition(0, 2).is_err(), "a Radeon has one");
    assert_eq!(machine.add_gpu().unwrap(), 13);
    assert_eq!(machine.gpus()[13].bdf, "0000:05:00.0");
}

#[test]
fn a_machine_that_was_found_stays_as_it_was() {
    for found in gpuev_sim::FoundMachine::ALL {
        let machine = SimMachine::builder().found(*found).build().unwrap();
        let gpus = machine.gpus();
        assert_eq!((gpus.len(), machine.kernel()), (found.gpu_count(), found.kernel()));
        for gpu in &gpus {
            assert_eq!(gpu.bdf.len(), 12, "{found:?}");
            assert!(
                machine.root().join("sys/bus/pci/devices").join(&gpu.bdf).exists(),
                "{found:?}"
            );
            let node = machine.root().join(format!("dev/dri/renderD{}", gpu.render_minor));
            let file = open(&machine, gpu.index, &Client::root(), u64::MAX);
            machine.emit(gpu.index, &DriverEvent::Thermal { throttlers: 1, count: 1 });
            assert_eq!(read(&file, 99).unwrap(), b"2 1:1\n");
            assert!(node.exists(), "{found:?}");
        }
        if !gpus.is_empty() {
            let unsupported = std::io::ErrorKind::Unsupported;
            assert_eq!(machine.remove_gpu(0).unwrap_err().kind(), unsupported);
            assert_eq!(machine.set_busy_percent(0, 1).unwrap_err().kind(), unsupported);
        }
    }
}

#[test]
fn a_container_sees_the_gpus_that_its_device_cgroup_lets_through() {
    let found = gpuev_sim::FoundMachine::by_name("k8s-mi210x8-xgmi").unwrap();
    let all = SimMachine::builder().found(found).build().unwrap();
    let some = SimMachine::builder().found(found).visible([1, 6]).build().unwrap();
    let expected = [1, 6].map(|place: usize| all.gpus()[place].kfd_gpu_id);
    assert!(some.gpus().iter().map(|gpu| gpu.kfd_gpu_id).eq(expected));
    let nodes = some.root().join("sys/class/kfd/kfd/topology/nodes");
    let readable = |file: &str| {
        let folders = fs::read_dir(&nodes).unwrap().map(|entry| entry.unwrap().path());
        folders.filter(|node| fs::read(node.join(file)).is_ok()).count()
    };
    // Two of processors, of whose memory nothing was found, and those two.
    for (file, nodes) in [("gpu_id", 4), ("properties", 4), ("mem_banks/0/properties", 2)] {
        assert_eq!(readable(file), nodes, "{file}");
    }
    let devices = |machine: &SimMachine, folder: &str| {
        fs::read_dir(machine.root().join(folder)).unwrap().count()
    };
    assert_eq!(devices(&some, "sys/bus/pci/devices"), devices(&all, "sys/bus/pci/devices"));
    assert_eq!(devices(&some, "dev/dri") + 6 * 2, devices(&all, "dev/dri"));
    assert!(SimMachine::builder().found(found).visible([8]).build().is_err());
}
