//! The dashboard, query by query: a real Prometheus scrapes an agent to which everything happens, and knows an
//! answer to each.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use gpuev_agent::quantity::Period;
use gpuev_agent::{Agent, Config};
use gpuev_sim::{Comm, DriverEvent, Kernel, RasBlock, ResetCause, SimMachine, throttler, trigger};
use serde_json::Value;

use crate::machine::machine_of;
use crate::servers::{Server, free_port, has};
use crate::sink::fixture::until;

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/grafana/gpuev.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A query as Grafana sends it with every node and GPU chosen, for a graph of a few scrapes.
fn filled(query: &str) -> String {
    let filled =
        query.replace("$__rate_interval", "15s").replace("$instance", ".*").replace("$gpu", ".*");
    assert!(!filled.contains('$'), "an unknown variable: {query}");
    filled
}

/// All queries, each after the name of its panel.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap().to_owned();
            queries.push((title, filled(target["expr"].as_str().unwrap())));
        }
    }
    queries
}

/// Label and series of the variables that are chosen from: `label_values(SERIES, LABEL)`.
fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let all = dashboard["templating"]["list"].as_array().unwrap().iter();
    let definitions = all.filter_map(|variable| variable["definition"].as_str());
    let parts = definitions.map(|definition| {
        let inner = definition.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
        let (series, label) = inner.rsplit_once(", ").unwrap();
        (label.to_owned(), filled(series))
    });
    parts.collect()
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let _infallible = write!(encoded, "%{byte:02X}");
        encoded
    })
}

/// Everything that a driver says, once, of each GPU; gives how many events that is.
fn everything_happens(sim: &SimMachine, round: u32) -> u64 {
    let pid = (1000 + round % 4).into();
    let (comm, page, pages, from, to) = (Comm::new("train"), u64::from(round), 1, 0, 1);
    let (prefetch, preferred, trigger) = (u32::MAX, u32::MAX, trigger::MIGRATE_PAGEFAULT_GPU);
    let cause = Some(ResetCause::JobHang);
    let events = [
        DriverEvent::ProcessStart { pid, comm },
        DriverEvent::MigrateStart { pid, page, pages, from, to, prefetch, preferred, trigger },
        DriverEvent::MigrateEnd { pid, page, pages, from, to, trigger, error: 0 },
        DriverEvent::PageFaultStart { pid, page, write: true },
        DriverEvent::PageFaultEnd { pid, page, migrated: true },
        DriverEvent::QueueEviction { pid, trigger: trigger::EVICT_TTM },
        DriverEvent::QueueRestore { pid, rescheduled: false },
        DriverEvent::UnmapFromGpu { pid, page, pages, trigger: trigger::UNMAP_MMU_NOTIFY },
        DriverEvent::VmFault { pid, comm },
        DriverEvent::Thermal { throttlers: throttler::TEMP_HOTSPOT, count: u64::from(round) },
        DriverEvent::PreReset { sequence: round, cause },
        DriverEvent::PostReset { sequence: round, cause: None },
        DriverEvent::ProcessEnd { pid, comm },
    ];
    for gpu in 0..2 {
        events.iter().for_each(|event| sim.emit(gpu, event));
        sim.add_ras_error(gpu, RasBlock::Umc, round.is_multiple_of(2)).unwrap();
    }
    2 * events.len() as u64
}

fn agent(sim: &SimMachine, state: &Path) -> Agent {
    let mut config = Config::default();
    config.agent.state_dir = state.to_owned();
    config.http.listen = "127.0.0.1:0".to_owned();
    config.health.interval = Period::from_secs(1);
    // A sink that nobody answers.
    let sinks = format!("[webhook.nobody]\nurl = \"http://127.0.0.1:{}\"\n", free_port());
    config.sinks = toml::from_str(&sinks).unwrap();
    Agent::start(&machine_of(sim), &config).unwrap()
}

/// The values that Prometheus knows now.
fn values(prometheus: &Server, query: &str) -> Vec<f64> {
    let answer = prometheus.get(&format!("/api/v1/query?query={}", encoded(query)));
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    assert_eq!(answer["infos"].as_array().map_or(0, Vec::len), 0, "{query}: {answer}");
    let found = answer["data"]["result"].as_array().unwrap().iter();
    found.map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn every_query_of_the_dashboard_has_an_answer() {
    if !has("prometheus") {
        return;
    }
    let sim = SimMachine::builder().gpus(2).kernel(Kernel::V7_3).build().unwrap();
    let state = tempfile::tempdir().unwrap();
    let agent = agent(&sim, state.path());
    let target = agent.http_address().unwrap();
    let prometheus = Server::prometheus(&format!(
        "scrape_configs:\n  - job_name: gpuev\n    scrape_interval: 1s\n    static_configs:\n      - targets: ['{target}']\n"
    ));
    let dashboard = dashboard();
    let mut open: BTreeMap<String, String> =
        queries(&dashboard).into_iter().map(|(title, query)| (query, title)).collect();
    assert!(open.len() > 15, "{open:?}");
    let (mut round, mut told) = (0, 0);
    until("an answer to every query", || {
        // No faster than the agent takes it.
        if agent.shared().status().signals >= told {
            round += 1;
            told += everything_happens(&sim, round);
            if round.is_multiple_of(5) {
                agent.shared().let_go();
                agent.shared().take_back().unwrap();
            }
        }
        open.retain(|query, _| !values(&prometheus, query).iter().any(|value| !value.is_nan()));
        eprintln!("without an answer yet: {:?}", open.values());
        open.is_empty()
    });
    for (label, series) in variables(&dashboard) {
        let path = format!("/api/v1/label/{label}/values?match[]={}", encoded(&series));
        let answer = prometheus.get(&path);
        assert!(!answer["data"].as_array().unwrap().is_empty(), "{series}: {answer}");
    }
    agent.stop().unwrap();
}
