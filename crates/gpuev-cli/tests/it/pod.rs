//! The pod of `packaging/kubernetes/daemonset.yaml`: its parts fit together, and it works as it is described there, with
//! its users, groups, capabilities, mounts and closed roots, on a simulated machine.
//!
//! What is not the same as on a node of a cluster:
//! * The images: this test's program is linked dynamically, so the loader and the libraries of this machine are in its
//!   root as well; `chown` is this machine's, not busybox'. `/.runtime` holds what takes the runtime's place.
//! * The device cgroup: here all devices are open to all, as `privileged` has it there.
//! * The simulator's seccomp filter lies below the runtime's, of which `privileged` has none. Its nodes are no genuine
//!   devices.
//! * Limits of memory, and kubelet: probes are tried by hand, nobody restarts a container.

mod manifest;
mod node;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gpuev::Item;
use gpuev_sim::SimMachine;
use gpuev_sim::run::{Privilege, Run, Running};
use gpuev_store::{History, Query};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::keeper::until;
use crate::machine::{possible, thermal};
use crate::program::body;
use manifest::{Container, Manifest, text, words};
use node::{ADDRESS, Node};

/// The job of `packaging/prometheus/kubernetes.yml`.
fn scrape_job() -> Value {
    let text = text("prometheus/kubernetes.yml");
    let config: Value = serde_norway::from_str(&text).unwrap();
    config["scrape_configs"][0].clone()
}

/// The agent's configuration, as its container has it.
fn config(manifest: &Manifest) -> gpuev_agent::Config {
    let text = manifest.object("ConfigMap")["data"]["agent.toml"].as_str().unwrap();
    let environment = manifest.container("agent").environment(ADDRESS);
    let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value));
    gpuev_agent::Config::parse(text, "daemonset.yaml", environment).unwrap()
}

#[test]
fn prometheus_asks_where_the_agent_answers() {
    let (manifest, job) = (Manifest::read(), scrape_job());
    let (agent, config) = (manifest.container("agent"), config(&manifest));
    let port = agent.port("metrics");
    assert_eq!(config.http.listen, format!("{ADDRESS}:{port}"));
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
        let get = &agent.spec[probe]["httpGet"];
        assert_eq!((get["path"].as_str(), get["port"].as_str()), (Some(path), Some("metrics")));
        assert_eq!(get["scheme"], "HTTPS", "{probe}");
    }
    // What cannot be reached without TLS and a token.
    assert_eq!(job["scheme"], "https");
    assert_eq!(job["authorization"]["type"], "Bearer");
    assert_eq!(job["metrics_path"], "/metrics");
    // The alert rules know the job by its name.
    let alerts = text("prometheus/gpuev-alerts.yml");
    assert!(alerts.contains(&format!("up{{job={}}}", job["job_name"])), "{}", job["job_name"]);
    // Found by what Prometheus is told of pods.
    let found = &job["kubernetes_sd_configs"][0];
    assert_eq!(found["role"], "pod");
    assert_eq!(
        found["namespaces"]["names"][0],
        manifest.object("DaemonSet")["metadata"]["namespace"]
    );
    let label = manifest.template()["metadata"]["labels"]["app.kubernetes.io/name"].as_str();
    let rule = &job["relabel_configs"][0];
    assert_eq!(rule["regex"], format!("{};metrics", label.unwrap()));
    assert_eq!(
        words(&rule["source_labels"]),
        [
            "__meta_kubernetes_pod_label_app_kubernetes_io_name",
            "__meta_kubernetes_pod_container_port_name"
        ]
    );
}

#[test]
fn the_secrets_that_the_readme_makes_have_what_is_read_of_them() {
    let (manifest, job, readme) = (Manifest::read(), scrape_job(), text("README.md"));
    let made = |name: &str| -> Vec<String> {
        let command = format!("create secret generic {name} ");
        let line = readme.lines().find(|line| line.contains(&command)).unwrap();
        let files = line.split(" --from-file=").skip(1);
        files.map(|file| file.split('=').next().unwrap().to_owned()).collect()
    };
    let http = config(&manifest).http;
    let read = [&http.tls_cert, &http.tls_key, &http.token_file];
    let agent = manifest.container("agent");
    let (volume, place, _) =
        agent.mounts().into_iter().find(|mount| mount.0.get("secret").is_some()).unwrap();
    let keys = read.map(|path| path.strip_prefix(place).unwrap().to_str().unwrap());
    assert_eq!(made(volume["secret"]["secretName"].as_str().unwrap()), keys);
    let read = [&job["tls_config"]["ca_file"], &job["authorization"]["credentials_file"]];
    let keys = read.map(|path| path.as_str().unwrap().strip_prefix("/etc/prometheus/gpuev/"));
    assert_eq!(made("gpuev-scrape"), keys.map(Option::unwrap));
    let name = job["tls_config"]["server_name"].as_str().unwrap();
    assert!(readme.contains(&format!("-addext subjectAltName=DNS:{name} ")), "{name}");
}

/// Tells the program that it is the one in the pod's network.
const INSIDE: &str = "GPUEV_TEST_POD";

/// Runs the test `name` of this module again with the network that containers of a pod share.
fn enter(name: &str) {
    if !has_what_it_takes() {
        return;
    }
    let network = format!("ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec \"$@\"");
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", &network, "pod"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("pod::{name}"), "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Namespaces, users other than this one, and the programs; says what there is not.
fn has_what_it_takes() -> bool {
    let root = rustix::process::geteuid().is_root();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    let programs = ["unshare", "setpriv", "pivot_root", "ip", "openssl", "prometheus"];
    let missing: Vec<&str> = programs.into_iter().filter(|name| !has(name)).collect();
    if root && missing.is_empty() {
        return possible(&SimMachine::new().unwrap());
    }
    let why = format!("a pod has several users, which needs root: {root}; missing: {missing:?}");
    assert!(std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_none(), "{why}");
    eprintln!("passed over: {why}");
    false
}

#[test]
fn the_pod_of_the_daemon_set_sees_records_and_is_scraped() {
    if std::env::var_os(INSIDE).is_none() {
        return enter("the_pod_of_the_daemon_set_sees_records_and_is_scraped");
    }
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let secret = node::secret();
    let node = Node::new(secret.path());
    let manifest = node.manifest();
    ends_well(&sim, node.command(&manifest.container("state"), &[]));
    ends_well(&sim, node.command(&manifest.container("agent"), &["--check"]));
    // As kubelet starts them: one after the other, without waiting.
    let keeper = node.start(&sim, "keeper");
    let agent = node.start(&sim, "agent");
    let port = manifest.container("agent").port("metrics");
    until(|| is_ready(&agent, port));
    for (running, name) in [(&keeper, "keeper"), (&agent, "agent")] {
        has_what_it_was_given(running.id(), &manifest.container(name));
    }
    assert!(sim.event_files().iter().all(|file| file.client.cap_sys_admin));
    sim.emit(1, &thermal(3));
    until(|| recorded(&node) == 1);
    let prometheus = Prometheus::start(secret.path(), port);
    let told = prometheus.tells("gpuev_events_total");
    let labels = &told["metric"];
    assert_eq!((&labels["job"], &labels["instance"]), (&"gpuev".into(), &"node-7".into()));
    assert_eq!((&labels["type"], &told["value"][1]), (&"THERMAL_THROTTLE".into(), &"1".into()));
    ends(agent);
    ends(keeper);
    assert_eq!(recorded(&node), 1);
}

/// Runs a command on `sim` to its end.
fn ends_well(sim: &SimMachine, command: Command) {
    let output = Run::new(sim).privilege(Privilege::Real).output(command).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn ends(mut running: Running) {
    kill_process(Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap(), Signal::TERM)
        .unwrap();
    assert!(running.wait().unwrap().success());
}

/// The readiness probe.
fn is_ready(agent: &Running, port: u64) -> bool {
    assert!(Path::new(&format!("/proc/{}/exe", agent.id())).exists(), "the agent has ended");
    TcpStream::connect((ADDRESS, u16::try_from(port).unwrap())).is_ok()
}

fn recorded(node: &Node) -> usize {
    let Ok(history) = History::open(&node.state().join("history.db")) else { return 0 };
    history.items(&Query::new()).flatten().filter(|item| matches!(item, Item::Event(_))).count()
}

/// The process is who the manifest says, and sees the files that it says.
fn has_what_it_was_given(pid: u32, container: &Container<'_>) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> Vec<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().collect()
    };
    let [user, group] = container.ids().map(|id| id.to_string());
    assert_eq!(field("Uid:"), [user.as_str(); 4]);
    assert_eq!(field("Gid:"), [group.as_str(); 4]);
    let groups: Vec<String> = container.groups().iter().map(u64::to_string).collect();
    assert_eq!(field("Groups:"), groups);
    // By then both have given up what they do not need.
    let left = if user == "0" { 1u64 << 21 } else { 0 };
    assert_eq!(u64::from_str_radix(field("CapEff:")[0], 16), Ok(left));
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    mounts_what_it_was_given(pid, container);
}

/// Its root is closed, and beside what every container has, only the volumes of the manifest are mounted.
fn mounts_what_it_was_given(pid: u32, container: &Container<'_>) {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mounted = mounts.lines().map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[4], fields[5].split(',').any(|option| option == "ro"))
    });
    let given: Vec<_> = container.mounts().into_iter().map(|(_, place, ro)| (place, ro)).collect();
    let ours = |(place, _): &(&str, bool)| {
        let every = ["/proc", "/sys", "/dev", "/lib", "/lib64", "/usr", "/.runtime"];
        let is_given = given.iter().any(|(path, _)| path == place);
        is_given || *place == "/" || !every.iter().any(|tree| Path::new(place).starts_with(tree))
    };
    let mut found: Vec<_> = mounted.filter(ours).collect();
    let mut wanted = [vec![("/", true)], given.clone()].concat();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{}", container.name());
}

/// Prometheus with the job of `packaging/prometheus/kubernetes.yml`.
///
/// A cluster that it could be told of the pod by there is not (and Debian's knows no clusters): the pod is written
/// down, with the labels that it would be told of it.
struct Prometheus {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// In the pod's network there is nobody else.
    const PORT: u16 = 9090;

    fn start(secret: &Path, port: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut job = scrape_job();
        job.as_object_mut().unwrap().remove("kubernetes_sd_configs").unwrap();
        job["static_configs"] = serde_json::json!([{
            "targets": [format!("{ADDRESS}:{port}")],
            "labels": {
                "__meta_kubernetes_pod_label_app_kubernetes_io_name": "gpuev",
                "__meta_kubernetes_pod_container_port_name": "metrics",
                "__meta_kubernetes_pod_node_name": "node-7",
            },
        }]);
        job["tls_config"]["ca_file"] = secret.join("tls.crt").to_str().into();
        job["authorization"]["credentials_file"] = secret.join("token").to_str().into();
        // Long enough for an answer on a machine that is busy: it is the limit of that, too.
        job["scrape_interval"] = "5s".into();
        let config = folder.path().join("prometheus.json");
        fs::write(&config, serde_json::json!({"scrape_configs": [job]}).to_string()).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", Self::PORT))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, _folder: folder }
    }

    /// The first series of this name, when it has come.
    fn tells(&self, name: &str) -> Value {
        let mut first = Value::Null;
        until(|| {
            let answer =
                body(Self::PORT, &format!("/api/v1/query?query={name}")).unwrap_or_default();
            let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
            first = answer["data"]["result"][0].clone();
            !first.is_null()
        });
        first
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
