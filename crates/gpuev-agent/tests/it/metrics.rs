//! Metrics, as Prometheus reads them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;

use gpuev::{Gap, GapCause, Machine};
use gpuev_agent::metrics::{Exposition, Metrics};
use gpuev_agent::signal::{Aggregate, GpuChange, Latency, RasIncrease, RasKind};
use gpuev_agent::sink::Stats;
use gpuev_agent::{AlertState, What};
use gpuev_sim::SimMachine;

use crate::servers::{Server, has};
use crate::sink::fixture::{NOON, change, event, fault, gpu, signal_of, until};

/// One of everything, with names that want to be escaped.
fn everything() -> Metrics {
    let metrics = Metrics::new();
    for seq in 0..3 {
        metrics.observe(&fault(seq));
    }
    metrics.observe(&signal_of(What::Event(event(3, b"99 what is this"))));
    let gap = Gap {
        gpu: gpu(3),
        cause: GapCause::SubscriberSlow,
        count: Some(17),
        from_boot_ns: 1,
        to_boot_ns: 2,
        unix_ns: NOON,
    };
    metrics.observe(&signal_of(What::Gap(gap)));
    let latency = Latency {
        count: 1000,
        p50_ns: 40_000,
        p99_ns: 400_000,
        max_ns: 4_000_000,
        sum_ns: 60_000_000,
    };
    metrics.observe(&signal_of(What::Aggregate(Aggregate {
        event_type: gpuev::EventType::PageFaultEnd,
        pid: Some(1),
        tid: None,
        count: 1000,
        bytes: 0,
        from_boot_ns: 1,
        to_boot_ns: 2,
        latency: Some(latency),
        unpaired: 0,
        examples: Vec::new(),
    })));
    let sim = SimMachine::builder().gpus(1).build().unwrap();
    let found = Machine::at(sim.root()).gpus().unwrap().remove(0);
    let mut sampled = signal_of(What::Health);
    sampled.health = Some(Arc::new(found.health()));
    metrics.observe(&sampled);
    metrics.observe(&signal_of(What::RasErrors(RasIncrease {
        block: "umc".to_owned(),
        kind: RasKind::Correctable,
        increase: 2,
        total: 12,
    })));
    metrics.observe_change(&change("a1", AlertState::Firing));
    metrics.observe_change(&change("a2", AlertState::Firing));
    metrics.observe_change(&change("a2", AlertState::Resolved));
    metrics.lose("history", 5);
    metrics
}

fn sink() -> Stats {
    let mut stats = Stats::default();
    stats.sink = "file.odd \"name\"\\".to_owned();
    stats.accepted = 7;
    stats.lost = 1;
    stats
}

#[test]
fn every_name_that_was_promised_is_there() {
    let text = everything().encode(Exposition::OpenMetrics, &[sink()]);
    let lines = [
        "# TYPE gpuev_events counter",
        "gpuev_events_total{gpu=\"0000:03:00.0\",type=\"VMFAULT\"} 3",
        "gpuev_events_total{gpu=\"0000:03:00.0\",type=\"UNKNOWN\"} 1",
        "gpuev_events_total{gpu=\"0000:03:00.0\",type=\"PAGE_FAULT_END\"} 1000",
        "gpuev_gaps_total{gpu=\"0000:03:00.0\",cause=\"subscriber_slow\"} 1",
        "gpuev_lost_events_total{stage=\"queue\"} 17",
        "gpuev_lost_events_total{stage=\"history\"} 5",
        "gpuev_lost_events_total{stage=\"sink:file.odd \\\"name\\\"\\\\\"} 1",
        "# UNIT gpuev_span_duration_seconds seconds",
        "gpuev_span_duration_seconds_bucket{gpu=\"0000:03:00.0\",type=\"PAGE_FAULT\",le=\"5e-5\"} 500",
        "gpuev_span_duration_seconds_bucket{gpu=\"0000:03:00.0\",type=\"PAGE_FAULT\",le=\"0.0005\"} 990",
        "gpuev_span_duration_seconds_bucket{gpu=\"0000:03:00.0\",type=\"PAGE_FAULT\",le=\"+Inf\"} 1000",
        "gpuev_span_duration_seconds_sum{gpu=\"0000:03:00.0\",type=\"PAGE_FAULT\"} 0.06",
        "gpuev_ras_errors_total{gpu=\"0000:03:00.0\",block=\"umc\",kind=\"correctable\"} 12",
        "gpuev_alerts_firing{rule=\"vmfault\",severity=\"critical\"} 1",
        "# TYPE gpuev_build info",
        "gpuev_build_info{version=\"0.1.0\"} 1",
        "# EOF",
    ];
    for line in lines {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    for name in [
        "gpuev_gpu_temperature_celsius{gpu=\"0000:03:00.0\",sensor=\"",
        "gpuev_gpu_power_watts{gpu=",
        "gpuev_gpu_busy_ratio{gpu=",
        "gpuev_gpu_memory_used_bytes{gpu=",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}\n{text}");
    }
}

#[test]
fn a_gpu_that_is_gone_has_no_temperature_and_an_alert_that_is_over_counts_nothing() {
    let metrics = everything();
    metrics.observe(&signal_of(What::Gpu(GpuChange::Lost)));
    metrics.observe_change(&change("a1", AlertState::Resolved));
    let text = metrics.encode(Exposition::Text, &[]);
    assert!(!text.contains("celsius"), "{text}");
    assert!(
        text.contains("gpuev_alerts_firing{rule=\"vmfault\",severity=\"critical\"} 0\n"),
        "{text}"
    );
    metrics.observe_alerts([&*change("a9", AlertState::Firing).alert]);
    let text = metrics.encode(Exposition::Text, &[]);
    assert!(
        text.contains("gpuev_alerts_firing{rule=\"vmfault\",severity=\"critical\"} 1\n"),
        "{text}"
    );
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    if !has("promtool") {
        return;
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = everything().encode(Exposition::Text, &[sink()]);
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

/// Answers every request with what `metrics` are, in the format that is asked for.
fn serve(metrics: Metrics) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut accept = String::new();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap_or_default();
                if line.is_empty() {
                    break;
                }
                if line.to_lowercase().starts_with("accept:") {
                    accept = line;
                }
            }
            let exposition = Exposition::accepted(&accept);
            let (body, kind) = (metrics.encode(exposition, &[sink()]), exposition.content_type());
            let length = body.len();
            let _gone = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    port
}

#[test]
fn prometheus_scrapes_them_as_openmetrics() {
    if !has("prometheus") {
        return;
    }
    let port = serve(everything());
    let config = format!(
        "scrape_configs:\n  - job_name: gpuev\n    scrape_interval: 1s\n    static_configs:\n      - targets: ['127.0.0.1:{port}']\n"
    );
    let prometheus = Server::prometheus(&config);
    let value = |query: &str| {
        let found = prometheus.get(&format!("/api/v1/query?query={query}"));
        found["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    until("a scrape", || value("gpuev_events_total%7Btype=%22VMFAULT%22%7D").is_some());
    assert_eq!(value("gpuev_events_total%7Btype=%22VMFAULT%22%7D").unwrap(), "3");
    assert_eq!(value("gpuev_span_duration_seconds_count").unwrap(), "1000");
    assert_eq!(value("gpuev_build_info").unwrap(), "1");
    assert_eq!(value("up").unwrap(), "1");
    let targets = prometheus.get("/api/v1/targets");
    assert_eq!(targets["data"]["activeTargets"][0]["lastError"], "");
    // Prometheus knows the kinds: it took the OpenMetrics.
    let metadata = prometheus.get("/api/v1/metadata");
    assert_eq!(metadata["data"]["gpuev_build"][0]["type"], "info", "{metadata}");
}
