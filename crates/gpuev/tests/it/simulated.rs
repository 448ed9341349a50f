//! Discovery, health and processes against the simulated machine, which shares no code with them.

use gpuev::health::{Bytes, Microwatts, Millidegrees, Percent, Sensors, TemperatureSensor};
use gpuev::process::{Processes, Resolution};
use gpuev::{Comm, Gpu, Machine};
use gpuev_sim::{Kernel, RasBlock, Sensor, SimGpu, SimMachine, SimProcess, throttler};

fn machine(sim: &SimMachine) -> Machine {
    Machine::at(sim.root())
}

/// The GPU that the simulator calls `gpu`, and that it is found as it is.
fn found_as_it_is(gpus: &[Gpu], gpu: &SimGpu) -> Gpu {
    let found = gpus.iter().find(|found| found.id.kfd_id == gpu.kfd_gpu_id).unwrap();
    assert_eq!(found.id.bdf.to_string(), gpu.bdf);
    assert_eq!(found.id.unique_id.map(|id| id.0), Some(gpu.unique_id));
    assert_eq!((found.id.partition, found.partitions), (gpu.partition, gpu.partitions));
    assert_eq!(found.render_minor, Some(gpu.render_minor));
    assert_eq!(found.card, Some(gpu.card));
    found.clone()
}

#[test]
fn every_gpu_is_found_as_it_is_on_every_kernel() {
    for kernel in [Kernel::V6_1, Kernel::V6_12, Kernel::V7_2, Kernel::V7_3, Kernel::Dkms] {
        for partitions in [1, 8] {
            let sim = SimMachine::builder()
                .gpus(3)
                .partitions(partitions)
                .kernel(kernel)
                .build()
                .unwrap();
            let gpus = machine(&sim).gpus().unwrap();
            assert_eq!(gpus.len(), 3 * usize::try_from(partitions).unwrap());
            for gpu in sim.gpus() {
                let found = found_as_it_is(&gpus, &gpu);
                let (name, target) = match partitions {
                    1 => ("AMD Radeon PRO W7900", "gfx1100"),
                    _ => ("AMD Instinct MI300X OAM", "gfx942"),
                };
                assert_eq!(
                    (found.name.as_str(), found.gfx_target.unwrap().to_string()),
                    (name, target.to_owned())
                );
            }
        }
    }
}

#[test]
fn gpus_of_others_are_told_as_denied() {
    let sim = SimMachine::builder().gpus(2).denied(3).build().unwrap();
    let inventory = machine(&sim).inventory().unwrap();
    assert_eq!((inventory.gpus.len(), inventory.denied.len()), (2, 3));
    assert!(inventory.unreadable.is_empty());
    let none = SimMachine::builder().gpus(0).build().unwrap();
    assert!(machine(&none).gpus().unwrap().is_empty());
}

#[test]
fn large_machines() {
    let sim = SimMachine::builder().gpus(64).build().unwrap();
    let gpus = machine(&sim).gpus().unwrap();
    assert_eq!(gpus.len(), 64);
    let sim = SimMachine::builder().partitions(63).build().unwrap();
    let gpus = machine(&sim).gpus().unwrap();
    assert_eq!(gpus.len(), 63);
    for gpu in sim.gpus() {
        found_as_it_is(&gpus, &gpu);
    }
}

#[test]
fn gpus_come_and_go() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let machine = machine(&sim);
    let first = machine.generation().unwrap();
    sim.remove_gpu(0).unwrap();
    let gpus = machine.gpus().unwrap();
    assert_eq!((gpus.len(), gpus[0].id.bdf.to_string()), (1, sim.gpus()[1].bdf.clone()));
    assert_ne!(machine.generation().unwrap(), first);
    sim.restore_gpu(0).unwrap();
    sim.add_gpu().unwrap();
    let gpus = machine.gpus().unwrap();
    assert_eq!(gpus.len(), 3);
    for gpu in sim.gpus() {
        found_as_it_is(&gpus, &gpu);
    }
}

#[test]
fn a_gpu_that_went_is_all_not_available() {
    let sim = SimMachine::new().unwrap();
    let gpu = machine(&sim).gpus().unwrap().remove(0);
    assert!(!gpu.health().temperatures.is_empty());
    sim.remove_gpu(0).unwrap();
    assert_eq!(gpu.health(), gpuev::health::Health::default());
}

#[test]
fn health_follows_the_gpu() {
    let sim = SimMachine::new().unwrap();
    let gpu = machine(&sim).gpus().unwrap().remove(0);
    sim.set_temperature_millidegrees(0, Sensor::Edge, 71_000).unwrap();
    sim.set_temperature_millidegrees(0, Sensor::Junction, 88_000).unwrap();
    sim.set_temperature_millidegrees(0, Sensor::Memory, 79_000).unwrap();
    sim.set_power_microwatts(0, 231_000_000).unwrap();
    sim.set_busy_percent(0, 93).unwrap();
    sim.set_vram_used(0, 7 << 30).unwrap();
    sim.set_throttlers(0, throttler::TEMP_HOTSPOT).unwrap();
    let health = gpu.health();
    let at = |sensor| health.temperature(sensor);
    assert_eq!(at(TemperatureSensor::Edge), Some(Millidegrees(71_000)));
    assert_eq!(at(TemperatureSensor::Junction), Some(Millidegrees(88_000)));
    assert_eq!(at(TemperatureSensor::Memory), Some(Millidegrees(79_000)));
    assert_eq!(health.temperatures[1].critical, Some(Millidegrees(110_000)));
    assert_eq!(health.power.average.or(health.power.current), Some(Microwatts(231_000_000)));
    assert_eq!(health.power.cap, Some(Microwatts(241_000_000)));
    assert_eq!(health.activity.gfx, Some(Percent(93)));
    assert_eq!(health.memory.vram.used, Some(Bytes(7 << 30)));
    assert_eq!(health.memory.vram.total, Some(Bytes(48_301_604_864)));
    assert_eq!((health.pcie.width, health.pcie.max_width), (Some(16), Some(16)));
    assert!(health.clocks.iter().any(|clock| clock.current.is_some() && clock.max.is_some()));
    let reasons: Vec<_> = gpuev::names::throttlers(health.throttling.status.unwrap()).collect();
    assert_eq!(reasons, ["TEMP_HOTSPOT"]);
    assert!(Sensors::of(&gpu).throttling_log().unwrap().enabled);
}

#[test]
fn errors_are_counted() {
    let sim = SimMachine::new().unwrap();
    let gpu = machine(&sim).gpus().unwrap().remove(0);
    let umc = || {
        let ras = gpu.health().ras.into_iter().find(|ras| ras.block == "umc").unwrap();
        (ras.uncorrectable, ras.correctable)
    };
    assert_eq!(umc(), (Some(0), Some(0)));
    sim.add_ras_error(0, RasBlock::Umc, false).unwrap();
    sim.add_ras_error(0, RasBlock::Umc, true).unwrap();
    assert_eq!(umc(), (Some(1), Some(1)));
    assert_eq!(gpu.health().bad_pages.unwrap().retired, 1);
}

#[test]
fn processes_of_a_job() {
    let sim = SimMachine::builder().gpus(2).kernel(Kernel::V7_3).build().unwrap();
    let job = SimProcess::new(4242, "python3")
        .uid(1000)
        .cgroup("0::/system.slice/slurmstepd.scope/job_77/step_0/user/task_1")
        .cmdline(["python3", "train.py"])
        .gpu(1)
        .vram(8 << 30);
    sim.add_process(&job).unwrap();
    sim.add_process(&SimProcess::new(99, "bash")).unwrap();
    let machine = machine(&sim);
    let processes = Processes::of(&machine);
    let found = processes.describe(4242).unwrap();
    assert_eq!(found.uid, Some(1000));
    assert_eq!(found.command, [b"python3".as_slice(), b"train.py"]);
    assert_eq!(found.start_boot_ns, Some(3_600_000_000_000));
    let slurm = found.attribution.slurm.unwrap();
    assert_eq!(
        (slurm.job, slurm.step.as_deref(), slurm.task.as_deref()),
        (77, Some("0"), Some("1"))
    );
    assert_eq!(processes.resolve(4242, Comm::new(b"python3")), Resolution::Exact(4242));
    let gpus = machine.gpus().unwrap();
    assert!(processes.using(&gpus[0]).is_empty());
    let using = processes.using(&gpus[1]);
    assert_eq!((using.len(), using[0].pid, using[0].memory.vram), (1, 4242, Bytes(8 << 30)));
    let holders = processes.holders().found;
    assert_eq!((holders.len(), holders[0].pid, holders[0].devices), (1, 4242, 1));
    sim.remove_process(4242).unwrap();
    assert!(processes.using(&gpus[1]).is_empty());
    assert_eq!(processes.resolve(4242, Comm::NONE), Resolution::Unknown);
}
