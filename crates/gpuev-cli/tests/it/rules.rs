//! Rules on the command line.

use std::fs;

use gpuev::process::Processes;
use gpuev::time::Anchor;
use gpuev::{Filter, KfdVersion, Machine, Monitor, OpenWith, Scope};
use gpuev_agent::signal::{RasIncrease, RasKind};
use gpuev_agent::{Signal, What};
use gpuev_sim::{Client, Comm, DriverEvent, Kernel, SimMachine, SimProcess};
use gpuev_store::{Note, Recorder, Session, Writer};

use crate::history::record;
use crate::keeper::until;
use crate::program::run;

#[test]
fn what_is_wrong_with_a_rule_file_is_told_by_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let path = file.to_str().unwrap();
    let rule = "[[rule]]\nname = \"hot\"\nseverity = \"warning\"\nevents = [\"THERMAL_THROTLE\"]\n\
                when = 'data.reasns.size() > 0'\nsummary = \"hot\"\n";
    fs::write(&file, rule).unwrap();
    let ended = run(["rules", "check", path]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for said in [
        format!("{path}:4:11: there is no event THERMAL_THROTLE; did you mean THERMAL_THROTTLE?"),
        format!("{path}:5:14: data has no field reasns; did you mean reasons?"),
    ] {
        assert!(ended.err.contains(&said), "{said}\n{}", ended.err);
    }
    fs::write(&file, rule.replace("THROTLE", "THROTTLE").replace("reasns", "reasons")).unwrap();
    let ended = run(["rules", "check", path]).good();
    assert_eq!(ended.out, format!("{path}: 1 rules, all right\n"));
}

#[test]
fn what_is_shown_is_a_rule_file() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine.toml");
    fs::write(&mine, "[[rule]]\nname = \"vm-fault\"\nenabled = false\n").unwrap();
    let shown = run(["rules", "show", "--rules", mine.to_str().unwrap()]).good().out;
    assert!(!shown.contains("\"vm-fault\"") && shown.contains("\"vm-fault-storm\""));
    let again = folder.path().join("again.toml");
    fs::write(&again, &shown).unwrap();
    let args = ["rules", "show", "--no-builtin", "--rules", again.to_str().unwrap()];
    assert_eq!(run(args).good().out, shown);
    let names = run(["rules", "show", "--names"]).good().out;
    assert!(names.contains("critical  vm-fault\n"), "{names}");
}

#[test]
fn what_would_have_fired_on_a_recording_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:reset,gpus=1,count=200,rate=100000,seed=7");
    let file = path.to_str().unwrap();
    let tested = run(["rules", "test", file]).good();
    assert!(tested.out.contains("critical  gpu-reset  fires: GPU 0000:"), "{}", tested.out);
    assert!(tested.out.contains("critical  reset-loop  fires"), "{}", tested.out);
    assert!(tested.err.contains("on 200 events and gaps"), "{}", tested.err);
    let changes = run(["rules", "test", file, "--json"]).good().json();
    let fires = |change: &&serde_json::Value| {
        change["record"] == "alert" && change["state"] == "firing" && change["rule"] == "reset-loop"
    };
    let change = changes.iter().find(fires).unwrap();
    assert!(change["count"].as_u64().unwrap() >= 3, "{change}");
    let none = run(["rules", "test", file, "--no-builtin"]).good();
    assert_eq!(none.out, "");
}

/// In a later boot the clock begins anew: what fires there by itself fires behind another boot, too.
#[test]
fn alerts_fire_in_each_boot_of_a_recording() {
    const FIRST: &str = "2026-11-22T11:45:00Z 0000:03:00.0 9 90000000000000 -7 1 0
2026-11-22T11:45:02Z 0000:03:00.0 1 7:python3
";
    const SECOND: &str = "2026-11-22T13:00:00Z 0000:03:00.0 9 10000000000 -7 1 0
2026-11-22T13:00:05Z 0000:03:00.0 1 7:python3
2026-11-22T13:30:06Z 0000:03:00.0 9 1816000000000 -8 1 0
2026-11-22T13:30:07Z 0000:03:00.0 1 8:python3
";
    let folder = tempfile::tempdir().unwrap();
    let fired = |name: &str, lines: &str| {
        let [log, db] = ["log", "db"].map(|ending| folder.path().join(format!("{name}.{ending}")));
        std::fs::write(&log, lines).unwrap();
        let [log, db] = [&log, &db].map(|path| path.to_str().unwrap());
        run(["import", log, "-o", db]).good();
        let told = run(["rules", "test", db, "--utc"]).good().out;
        told.lines().filter(|line| line.contains("vm-fault  fires")).count()
    };
    let [first, second] = [fired("first", FIRST), fired("second", SECOND)];
    assert!(first > 0 && second > 0);
    assert_eq!(fired("both", &format!("{FIRST}{SECOND}")), first + second);
}

/// Thresholds for each job: two jobs whose processes have one name are two, as they were live.
#[test]
fn a_recording_knows_whose_job_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    let sim = SimMachine::builder().gpus(1).kernel(Kernel::V7_3).build().unwrap();
    let fault = |pid: u32| DriverEvent::VmFault { pid: pid.into(), comm: Comm::new("train") };
    for (pid, job) in [(4242, 77), (4243, 77), (4244, 78)] {
        let cgroup = format!("0::/system.slice/slurmstepd.scope/job_{job}/step_0/user/task_0");
        sim.add_process(&SimProcess::new(pid, "train").cgroup(&cgroup).gpu(0)).unwrap();
    }
    let (major, minor) = sim.kfd_version();
    let opener = sim.clone();
    let open = move |gpu: &gpuev::Gpu| opener.open_events(gpu.id.kfd_id, &Client::root());
    let source = OpenWith::new(KfdVersion { major, minor }, Scope::everything("simulated"), open);
    let machine = Machine::at(sim.root()).with_event_source(source);
    let monitor = Monitor::start(&machine).unwrap();
    let writer = Writer::open(&path, &Session::of(&machine)).unwrap();
    let items = monitor.subscribe(Filter::new());
    let recorder = Recorder::start(writer, items, Processes::of(&machine)).unwrap();
    [4242, 4243, 4243, 4244].into_iter().for_each(|pid| sim.emit(0, &fault(pid)));
    until(|| recorder.progress().events == 4);
    drop(monitor);
    recorder.finish().unwrap();
    let file = path.to_str().unwrap();
    let rules = folder.path().join("job.toml");
    let rule = "[[rule]]\nname = \"job-faults\"\nseverity = \"critical\"\nevents = [\"VMFAULT\"]\n\
                by = [\"job\"]\ncount = 3\nwithin = \"10m\"\nsummary = \"{job} faults\"\n";
    fs::write(&rules, rule).unwrap();
    let rules = rules.to_str().unwrap();
    let tested = run(["rules", "test", file, "--no-builtin", "--rules", rules, "--json"]).good();
    let jobs: Vec<_> = tested
        .json()
        .iter()
        .filter(|change| change["state"] == "firing")
        .map(|change| change["labels"]["job"].clone())
        .collect();
    assert_eq!(jobs, ["slurm:77"], "{}", tested.out);
}

/// Counters of errors are no events: the agent notes them beside.
#[test]
fn a_recording_knows_which_errors_were_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let machine = Machine::at(sim.root());
    let gpu = machine.gpus().unwrap()[1].id;
    let mut writer = Writer::open(&path, &Session::of(&machine)).unwrap();
    let at = Anchor::now();
    for (kind, total) in [(RasKind::Uncorrectable, 3), (RasKind::Deferred, 9)] {
        let ras = RasIncrease { block: "umc".to_owned(), kind, increase: 1, total };
        let signal = Signal {
            what: What::RasErrors(ras),
            boot_ns: at.boot_ns,
            unix_ns: at.unix_ns,
            gpu,
            life: gpuev::Life::default(),
            process: None,
            ambiguous: false,
            health: None,
            reset: None,
        };
        let mut json = String::new();
        signal.write_json(&mut json);
        writer.append_note(&Note { gpu, at, event: None, record: "ras", json }).unwrap();
    }
    writer.close_import().unwrap();
    let tested = run(["rules", "test", path.to_str().unwrap()]).good();
    for said in ["critical  ras-uncorrectable  fires: ", "ras-deferred  fires: "] {
        assert!(tested.out.contains(said), "{}", tested.out);
    }
    assert!(tested.out.contains(&gpu.bdf.to_string()), "{}", tested.out);
}
