//! What a process belongs to, from the names of its control groups.
//!
//! Nobody has to be asked: batch systems, container runtimes and systemd put their own names into the path.
//! Layouts: Slurm `cgroup/v1` and `cgroup/v2` plugins, kubelet's `cgroupfs` and `systemd` drivers, Docker,
//! Podman, containerd, CRI-O, systemd.

use std::fmt;

/// What a process belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attribution {
    /// The control group's path.
    pub cgroup: Option<String>,
    /// Batch job.
    pub slurm: Option<SlurmTask>,
    /// Kubernetes pod.
    pub kubernetes: Option<KubernetesPod>,
    /// Container, also within a pod; the innermost of several.
    pub container: Option<Container>,
    /// Unit of the system's service manager, such as `ollama.service` or `session-3.scope`.
    pub unit: Option<String>,
    /// Unit of a user's own service manager.
    pub user_unit: Option<String>,
}

/// Where in a Slurm job a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlurmTask {
    /// Job id.
    pub job: u64,
    /// Step: a number, `batch`, `extern` or `interactive`.
    pub step: Option<String>,
    /// Task of the step on this node: a number or `special`.
    pub task: Option<String>,
}

/// The Kubernetes pod of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KubernetesPod {
    /// The pod's uid, with dashes; a static pod's hash has none.
    pub uid: String,
    /// Its class of service.
    pub qos: PodQos,
}

/// Kubernetes' classes of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PodQos {
    /// All limits equal requests.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// No requests.
    BestEffort,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// Its id, as a rule 64 hex digits.
    pub id: String,
    /// Who runs it, where the path says so.
    pub runtime: Option<Runtime>,
}

/// What runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Runtime {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd.
    Containerd,
    /// CRI-O.
    CriO,
}

impl PodQos {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

impl Runtime {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
        }
    }
}

impl fmt::Display for PodQos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Attribution {
    /// What the text of `/proc/<pid>/cgroup` says: one line for version 2, one for each controller of
    /// version 1, of which the first that knows something counts.
    #[must_use]
    pub fn from_cgroup_file(text: &str) -> Self {
        let mut lines: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                Some((fields.next()?, fields.next()?))
            })
            .collect();
        // Version 2 has no controllers in its line; systemd's own hierarchy knows more than the others.
        lines.sort_by_key(|(controllers, path)| {
            (*path == "/", !matches!(*controllers, "" | "name=systemd"))
        });
        let mut whole = Self::default();
        for (_, path) in lines {
            whole.add(Self::from_cgroup_path(path));
        }
        whole
    }

    /// What one path says.
    #[must_use]
    pub fn from_cgroup_path(path: &str) -> Self {
        // containerd without systemd separates by colons.
        let parts: Vec<&str> = path.split(['/', ':']).filter(|part| !part.is_empty()).collect();
        let (unit, user_unit) = units(&parts);
        Self {
            cgroup: Some(path.to_owned()),
            slurm: slurm(&parts),
            kubernetes: kubernetes(&parts),
            container: container(&parts),
            unit,
            user_unit,
        }
    }

    /// Fills what is missing.
    fn add(&mut self, other: Self) {
        self.cgroup = self.cgroup.take().or(other.cgroup);
        self.slurm = self.slurm.take().or(other.slurm);
        self.kubernetes = self.kubernetes.take().or(other.kubernetes);
        self.container = self.container.take().or(other.container);
        self.unit = self.unit.take().or(other.unit);
        self.user_unit = self.user_unit.take().or(other.user_unit);
    }
}

/// `/slurm/uid_1000/job_7/step_0/task_1`, `/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0`; with
/// several daemons on a node, their name comes with `slurm`.
fn slurm(parts: &[&str]) -> Option<SlurmTask> {
    let root = parts.iter().position(|part| part.contains("slurm"))?;
    let after = |prefix: &str| parts[root..].iter().find_map(|part| part.strip_prefix(prefix));
    Some(SlurmTask {
        job: after("job_")?.parse().ok()?,
        step: after("step_").map(str::to_owned),
        task: after("task_").map(str::to_owned),
    })
}

/// `/kubepods/burstable/pod<uid>/<id>`, `/kubepods.slice/kubepods-pod<uid_>.slice/cri-containerd-<id>.scope`;
/// a kubelet of its own cgroup root puts `kubelet-` before.
fn kubernetes(parts: &[&str]) -> Option<KubernetesPod> {
    let root = parts.iter().position(|part| part.contains("kubepods"))?;
    let (uid, part) = parts[root..].iter().find_map(|part| Some((pod_uid(part)?, *part)))?;
    let says = |class: &str| parts[root..].contains(&class) || part.contains(&format!("-{class}-"));
    let qos = if says("burstable") {
        PodQos::Burstable
    } else if says("besteffort") {
        PodQos::BestEffort
    } else {
        PodQos::Guaranteed
    };
    Some(KubernetesPod { uid, qos })
}

fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = part.strip_prefix("pod").or_else(|| part.rsplit_once("-pod").map(|(_, uid)| uid))?;
    let uid = uid.replace('_', "-");
    let is_uid =
        (32..=36).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_uid.then_some(uid)
}

fn container(parts: &[&str]) -> Option<Container> {
    parts.iter().enumerate().rev().find_map(|(place, part)| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let (prefix, id) = name.rsplit_once('-').unwrap_or(("", name));
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let runtime = match prefix {
            "docker" => Some(Runtime::Docker),
            "libpod" => Some(Runtime::Podman),
            "cri-containerd" | "nerdctl" => Some(Runtime::Containerd),
            "crio" => Some(Runtime::CriO),
            "" => runtime_above(&parts[..place]),
            // `libpod-conmon`, `crio-conmon`: what watches a container is not in it.
            _ => return None,
        };
        is_id.then(|| Container { id: id.to_owned(), runtime })
    })
}

/// The cgroupfs layouts name the runtime in the folder above, if at all.
fn runtime_above(parts: &[&str]) -> Option<Runtime> {
    parts.iter().rev().find_map(|part| match *part {
        "docker" => Some(Runtime::Docker),
        "libpod_parent" | "libpod" => Some(Runtime::Podman),
        "cri-containerd" | "containerd.service" => Some(Runtime::Containerd),
        "crio" | "crio.service" => Some(Runtime::CriO),
        _ => None,
    })
}

/// The first unit that is no slice, and behind a user's service manager the first of its units.
fn units(parts: &[&str]) -> (Option<String>, Option<String>) {
    let mut units =
        parts.iter().filter(|part| part.ends_with(".service") || part.ends_with(".scope"));
    let unit = units.next();
    let is_user = unit.is_some_and(|unit| unit.starts_with("user@"));
    let user_unit = if is_user { units.next() } else { None };
    (unit.map(|unit| (*unit).to_owned()), user_unit.map(|unit| (*unit).to_owned()))
}
