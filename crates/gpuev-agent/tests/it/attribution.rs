//! Who is behind an event, also after he is gone.

use gpuev_agent::{Config, Signal};
use gpuev_sim::{Comm, DriverEvent, Kernel, Pid, SimMachine, SimProcess};

use crate::machine::{Watched, json};

const JOB: &str = "0::/system.slice/slurmstepd.scope/job_77/step_3/user/task_0";
const POD: &str = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8d2f7b1c_\
    0e6a_4b7e_9f1d_3c2b1a0f9e8d.slice/cri-containerd-4f5e6d7c8b9a4f5e6d7c8b9a4f5e6d7c8b9a4f5e6d7c\
    8b9a4f5e6d7c8b9a4f5e.scope";

fn watched(kernel: Kernel) -> Watched {
    Watched::new(SimMachine::builder().kernel(kernel).build().unwrap(), &Config::default())
}

fn start(pid: impl Into<Pid>, name: &str) -> DriverEvent {
    DriverEvent::ProcessStart { pid: pid.into(), comm: Comm::new(name) }
}

fn end(pid: impl Into<Pid>, name: &str) -> DriverEvent {
    DriverEvent::ProcessEnd { pid: pid.into(), comm: Comm::new(name) }
}

fn fault(pid: impl Into<Pid>, name: &str) -> DriverEvent {
    DriverEvent::VmFault { pid: pid.into(), comm: Comm::new(name) }
}

fn job(signal: &Signal) -> serde_json::Value {
    json(signal)["job"].clone()
}

#[test]
fn a_process_that_is_gone_is_answered_from_its_start() {
    let mut watched = watched(Kernel::V7_3);
    let process =
        SimProcess::new(4242, "train").cgroup(JOB).uid(0).cmdline(["python3", "train.py"]).gpu(0);
    watched.sim.add_process(&process).unwrap();
    watched.sim.emit(0, &start(4242, "train"));
    watched.next(1);
    watched.sim.remove_process(4242).unwrap();
    watched.sim.emit(0, &fault(4242, "train"));
    watched.sim.emit(0, &end(4242, "train"));
    watched.sim.emit(0, &fault(4242, "train"));
    let signals = watched.next(3);
    let events: Vec<_> = signals.iter().filter(|signal| signal.kind() == "event").collect();
    assert_eq!(events.len(), 3);
    for event in events {
        let job = job(event);
        assert_eq!(job["slurm_job"], 77, "{job}");
        assert_eq!(job["slurm_step"], "3");
        assert_eq!(job["command"], "python3 train.py");
        assert_eq!(job["user"], "root");
        assert!(!event.ambiguous);
    }
    let span = signals.iter().find(|signal| signal.type_name() == Some("PROCESS")).unwrap();
    assert_eq!(job(span)["slurm_job"], 77);
}

#[test]
fn a_number_that_is_used_again_is_the_new_process() {
    let mut watched = watched(Kernel::V7_3);
    let with = |cgroup: &str| SimProcess::new(4242, "train").cgroup(cgroup).gpu(0);
    watched.sim.add_process(&with(JOB)).unwrap();
    watched.sim.emit(0, &start(4242, "train"));
    watched.sim.emit(0, &end(4242, "train"));
    watched.next(2);
    watched.sim.remove_process(4242).unwrap();
    watched.sim.add_process(&with(POD)).unwrap();
    watched.sim.emit(0, &start(4242, "train"));
    watched.sim.emit(0, &fault(4242, "train"));
    for signal in watched.next(2).iter().filter(|signal| signal.kind() == "event") {
        let job = job(signal);
        assert_eq!(job["pod"], "8d2f7b1c-0e6a-4b7e-9f1d-3c2b1a0f9e8d", "{job}");
        assert_eq!(job["slurm_job"], serde_json::Value::Null);
    }
}

#[test]
fn those_who_used_gpus_before_the_agent_are_known() {
    let sim = SimMachine::builder().kernel(Kernel::V6_1).build().unwrap();
    sim.add_process(&SimProcess::new(4242, "train").cgroup(JOB).gpu(0)).unwrap();
    let mut watched = Watched::new(sim, &Config::default());
    watched.sim.remove_process(4242).unwrap();
    watched.sim.emit(0, &fault(4242, "train"));
    assert_eq!(job(&watched.next(1)[0])["slurm_job"], 77);
}

/// Makes the process's number in its own namespace another.
fn rename_inside(sim: &SimMachine, pid: u32, inner: u32) {
    let path = format!("proc/{pid}/status");
    let status = std::fs::read_to_string(sim.root().join(&path)).unwrap();
    let status = status.replace(&format!("NSpid:\t{pid}\n"), &format!("NSpid:\t{pid}\t{inner}\n"));
    sim.write_file(path, status).unwrap();
}

#[test]
fn containers_are_told_apart_by_name_and_else_the_answer_is_doubtful() {
    let mut watched = watched(Kernel::V7_3);
    for (pid, name, cgroup) in [(100, "train", JOB), (200, "serve", POD), (300, "serve", JOB)] {
        watched.sim.add_process(&SimProcess::new(pid, name).cgroup(cgroup).gpu(0)).unwrap();
        rename_inside(&watched.sim, pid, 1);
    }
    // A memory fault has the machine's number of a thread, a page fault the container's of a process.
    watched.sim.emit(0, &fault(Pid::from(100), "train"));
    let page_fault = b"7 1 -1 @7fff00000(64) W\n";
    watched.sim.emit_raw(0, 7, Some(Pid::in_namespace(200, 1)), page_fault);
    let signals = watched.next(2);
    assert_eq!(job(&signals[0])["pid"], 100);
    assert_eq!(json(&signals[0])["ambiguous"], serde_json::Value::Null);
    assert_eq!(json(&signals[1])["ambiguous"], true);
    assert!([100, 200, 300].contains(&signals[1].process.as_ref().unwrap().pid));
}

#[test]
fn a_process_that_nobody_saw_is_not_made_up() {
    let mut watched = watched(Kernel::V7_3);
    watched.sim.emit(0, &fault(777, "ghost"));
    let signals = watched.next(1);
    assert_eq!(signals[0].process, None);
    assert!(!signals[0].ambiguous);
}

/// A pid that comes again is another process, also where nobody told of its start.
#[test]
fn who_comes_later_with_the_number_of_one_that_ended_is_not_taken_for_it() {
    use gpuev::process::Process;
    use gpuev::{Comm, Event, EventFacts, EventTime, GpuId, Item, Machine};
    use gpuev_agent::{Pipeline, Signal, config::Events};

    let gpu = GpuId {
        index: 0,
        bdf: "0000:03:00.0".parse().unwrap(),
        unique_id: None,
        partition: 0,
        kfd_id: 1,
    };
    let mut pipeline = Pipeline::replay(&Machine::at("/dev/null"), &Events::default());
    let second = 1_000_000_000;
    let process = |host_pid, user: &str, began| {
        let mut process = Process::known_as(host_pid, Comm::new(b"python3"));
        (process.user, process.start_boot_ns) = (Some(user.to_owned()), Some(began));
        (7, process)
    };
    pipeline.answer_from([process(4242, "ann", 0), process(5555, "bob", 59 * second)]);
    let mut of = |at_ns: u64, raw: &[u8]| -> Vec<Signal> {
        let time = EventTime {
            boot_ns: at_ns,
            clock: gpuev::Clock::Receipt,
            received_boot_ns: at_ns,
            unix_ns: 0,
        };
        let comm = Comm::new(b"python3");
        let pid = Some(7);
        let facts = EventFacts { gpu, seq: 0, time, doubtful: false, pid, comm, raw };
        let mut told = Vec::new();
        pipeline.push(&Item::Event(Event::from_facts(facts)), &mut |signal| told.push(signal));
        told.retain(|signal| signal.kind() == "event");
        told
    };
    let user = |signals: &[Signal]| signals[0].process.as_ref().and_then(|one| one.user.clone());
    let first = of(second, b"1 7:python3");
    assert_eq!((user(&first).as_deref(), first[0].life.number), (Some("ann"), 0));
    of(2 * second, b"d 7 python3");
    let second_life = of(60 * second, b"1 7:python3");
    assert_eq!((user(&second_life).as_deref(), second_life[0].life.number), (Some("bob"), 1));
}
