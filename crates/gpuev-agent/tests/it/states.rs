//! What is, beside what happens: GPUs that are missing, that do not answer, and errors that were counted meanwhile.

use std::fs;
use std::path::Path;

use gpuev::GpuId;
use gpuev_agent::metrics::Exposition;
use gpuev_agent::quantity::Period;
use gpuev_agent::signal::GpuChange;
use gpuev_agent::{Agent, AlertState, Config};
use gpuev_sim::{Kernel, RasBlock, SimMachine};

use crate::machine::machine_of;
use crate::sink::fixture::until;

fn config(state_dir: &Path) -> Config {
    let mut config = Config::default();
    config.agent.state_dir = state_dir.to_owned();
    config.http.listen = String::new();
    config.health.interval = Period::from_millis(1);
    config
}

fn sim(gpus: usize) -> SimMachine {
    SimMachine::builder().gpus(gpus).kernel(Kernel::V7_3).build().unwrap()
}

fn start(sim: &SimMachine, config: &Config) -> Agent {
    Agent::start(&machine_of(sim), config).unwrap()
}

fn states(agent: &Agent) -> Vec<GpuChange> {
    agent.shared().status().states.iter().map(|(_, state)| *state).collect()
}

fn gpu(agent: &Agent, index: usize) -> GpuId {
    agent.shared().status().states[index].0
}

fn metric(agent: &Agent, line: &str) -> bool {
    let text = agent.shared().metrics.encode(Exposition::Text, &[]);
    text.lines().any(|one| one == line)
}

fn rules(agent: &Agent, state: AlertState) -> Vec<String> {
    let alerts = agent.shared().book.alerts();
    alerts.iter().filter(|alert| alert.state == state).map(|alert| alert.rule.clone()).collect()
}

#[test]
fn a_gpu_that_is_missing_after_a_restart_is_lost_until_it_is_back() {
    use GpuChange::{Found, Lost};
    let (sim, folder) = (sim(3), tempfile::tempdir().unwrap());
    let config = config(folder.path());
    let agent = start(&sim, &config);
    until("all are there", || states(&agent) == [Found; 3]);
    agent.stop().unwrap();
    sim.remove_gpu(1).unwrap();
    for _ in 0..2 {
        let agent = start(&sim, &config);
        until("it is missing", || states(&agent) == [Found, Lost, Found]);
        let missing = gpu(&agent, 1);
        let line =
            format!("gpuev_gpu_state{{gpu=\"{}\",partition=\"0\",state=\"lost\"}} 1", missing.bdf);
        assert!(metric(&agent, &line), "{line}");
        until("an alert is pending", || rules(&agent, AlertState::Pending) == ["gpu-lost"]);
        let alert = agent.shared().book.alerts().remove(0);
        assert_eq!(alert.labels["gpu"], missing.bdf.to_string());
        agent.stop().unwrap();
    }
    let agent = start(&sim, &config);
    sim.restore_gpu(1).unwrap();
    until("it is back", || states(&agent) == [Found; 3]);
    until("nothing is wrong", || agent.shared().book.alerts().is_empty());
    agent.stop().unwrap();
}

/// Of a machine that was never seen with more GPUs, none is missing.
#[test]
fn a_machine_that_is_new_misses_nothing() {
    let (sim, folder) = (sim(2), tempfile::tempdir().unwrap());
    sim.remove_gpu(1).unwrap();
    fs::write(folder.path().join("gpus.json"), "{\"version\":7}").unwrap();
    let agent = start(&sim, &config(folder.path()));
    until("one is there", || states(&agent) == [GpuChange::Found]);
    agent.stop().unwrap();
    assert!(folder.path().join("gpus.json.damaged").exists());
    assert!(folder.path().join("gpus.json").exists());
}

fn errors(agent: &Agent) -> u64 {
    let alerts = agent.shared().book.alerts();
    alerts.iter().filter(|alert| alert.rule == "ras-uncorrectable").map(|alert| alert.count).sum()
}

fn counted(agent: &Agent, total: u32) {
    let bdf = gpu(agent, 0).bdf;
    let line = format!(
        "gpuev_ras_errors_total{{gpu=\"{bdf}\",block=\"umc\",kind=\"uncorrectable\"}} {total}"
    );
    until(&line, || metric(agent, &line));
}

#[test]
fn errors_that_are_counted_while_nobody_looks_are_told_once() {
    let (sim, folder) = (sim(1), tempfile::tempdir().unwrap());
    let config = config(folder.path());
    let error = || sim.add_ras_error(0, RasBlock::Umc, true).unwrap();
    error();
    let agent = start(&sim, &config);
    until("it is there", || !states(&agent).is_empty());
    counted(&agent, 1);
    assert_eq!(errors(&agent), 0, "what was counted before the first start is not news");
    error();
    until("one more", || errors(&agent) == 1);
    let kept = || fs::read_to_string(folder.path().join("gpus.json")).unwrap_or_default();
    until("it is kept", || kept().contains("\"umc/uncorrectable\":2"));
    agent.stop().unwrap();
    error();
    error();
    let agent = start(&sim, &config);
    until("two more", || errors(&agent) == 3);
    until("it is kept", || kept().contains("\"umc/uncorrectable\":4"));
    agent.stop().unwrap();
    let agent = start(&sim, &config);
    until("it is there", || !states(&agent).is_empty());
    counted(&agent, 4);
    assert_eq!(errors(&agent), 3, "not again");
    agent.stop().unwrap();
    // Another boot: the driver counts from 0, and there are four errors again.
    sim.write_file("proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000001\n")
        .unwrap();
    let agent = start(&sim, &config);
    until("four since the boot", || errors(&agent) == 4);
    agent.stop().unwrap();
}

/// A driver that is not there when the lease ends does not leave the agent released for ever.
#[test]
fn a_release_ends_when_it_ends_whether_the_driver_is_there_or_not() {
    use GpuChange::{Found, Lost};
    let (sim, folder) = (sim(2), tempfile::tempdir().unwrap());
    let agent = start(&sim, &config(folder.path()));
    until("both are there", || states(&agent) == [Found; 2]);
    agent.shared().let_go();
    (0..2).for_each(|gpu| sim.remove_gpu(gpu).unwrap());
    until("it is said", || metric(&agent, "gpuev_gpus_released 1"));
    assert_eq!(states(&agent), [Found; 2], "who is released is not lost");
    let _fails_or_not = agent.shared().take_back();
    assert_eq!(agent.shared().status().yielded_since_boot_ns, None);
    until("they are missing", || states(&agent) == [Lost; 2]);
    (0..2).for_each(|gpu| sim.restore_gpu(gpu).unwrap());
    until("they are back", || states(&agent) == [Found; 2]);
    until("nothing is wrong", || agent.shared().book.alerts().is_empty());
    agent.stop().unwrap();
}
