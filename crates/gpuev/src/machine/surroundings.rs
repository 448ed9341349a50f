//! What this process runs in, as far as it decides what can be seen and what can be advised.

use std::path::Path;

use super::files;
use crate::Machine;

/// `PROC_PID_INIT_INO` and `PROC_USER_INIT_INO`: the namespaces of the machine itself.
const MACHINE_PID_NAMESPACE: &str = "pid:[4026531836]";
const MACHINE_USER_NAMESPACE: &str = "user:[4026531837]";
const TEXT_LIMIT: usize = 256 << 10;

/// What runs the container that this process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerEngine {
    /// Docker, or what leaves its mark.
    Docker,
    /// Podman, Buildah.
    Podman,
    /// A pod of Kubernetes.
    Kubernetes,
    /// Apptainer or Singularity, which keep the user's own groups.
    Apptainer,
    /// Any other.
    Other,
}

impl Machine {
    /// The container that this process is in; `None` where it is in none that can be recognised.
    #[must_use]
    pub fn container(&self) -> Option<ContainerEngine> {
        let has = |path: &str| self.path(path).exists();
        let cgroup = self.small_text("proc/1/cgroup");
        let in_cgroup = |names: &[&str]| names.iter().any(|name| cgroup.contains(name));
        if has("var/run/secrets/kubernetes.io") || in_cgroup(&["kubepods"]) {
            return Some(ContainerEngine::Kubernetes);
        }
        if has(".singularity.d") {
            return Some(ContainerEngine::Apptainer);
        }
        if has("run/.containerenv") || in_cgroup(&["libpod"]) {
            return Some(ContainerEngine::Podman);
        }
        if has(".dockerenv") || in_cgroup(&["/docker"]) {
            return Some(ContainerEngine::Docker);
        }
        let apart = self.is_in_other_namespace("proc/self/ns/pid", MACHINE_PID_NAMESPACE)
            || self.is_in_other_namespace("proc/self/ns/user", MACHINE_USER_NAMESPACE);
        (apart || has("run/systemd/container") || in_cgroup(&["/lxc", "machine.slice"]))
            .then_some(ContainerEngine::Other)
    }

    /// Whether this is the Windows Subsystem for Linux: it passes GPUs on as `/dev/dxg`, and has no KFD.
    #[must_use]
    pub fn is_wsl(&self) -> bool {
        let release = self.kernel_release().unwrap_or_default().to_ascii_lowercase();
        !self.driver().loaded
            && (self.path("dev/dxg").exists()
                || release.contains("microsoft")
                || release.contains("wsl"))
    }

    /// Why processes of others are not in `/proc` for us; `None` where they are.
    #[must_use]
    pub fn hidden_processes(&self) -> Option<String> {
        // Everybody may see the first process, unless others are hidden from him.
        if self.path("proc/1/stat").exists() {
            return None;
        }
        let mounts = self.small_text("proc/self/mounts");
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let is_proc = (fields.next(), fields.next()) == (Some("/proc"), Some("proc"));
            let options = fields.next().filter(|_| is_proc)?;
            options
                .split(',')
                .find(|option| option.starts_with("hidepid=") && *option != "hidepid=0")
                .map(str::to_owned)
        })
    }

    /// The file or the kernel's command line that keeps amdgpu from being loaded by itself.
    #[must_use]
    pub fn amdgpu_is_blacklisted_in(&self) -> Option<String> {
        let command_line = self.small_text("proc/cmdline");
        let named = |word: &str| {
            let list = word
                .strip_prefix("modprobe.blacklist=")
                .or_else(|| word.strip_prefix("module_blacklist="));
            list.is_some_and(|list| list.split(',').any(|module| module == "amdgpu"))
        };
        if command_line.split_ascii_whitespace().any(named) {
            return Some("the kernel's command line".to_owned());
        }
        ["etc/modprobe.d", "run/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d"]
            .iter()
            .find_map(|dir| blacklist_in(&self.path(dir)))
    }

    fn is_in_other_namespace(&self, link: &str, machines: &str) -> bool {
        std::fs::read_link(self.path(link)).is_ok_and(|target| target != Path::new(machines))
    }

    fn small_text(&self, path: &str) -> String {
        let bytes = files::read(&self.path(path), TEXT_LIMIT).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The file of `dir` with the line `blacklist amdgpu`.
fn blacklist_in(dir: &Path) -> Option<String> {
    let entries = std::fs::read_dir(dir).ok()?;
    let mut paths: Vec<_> = entries.flatten().take(256).map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    paths.into_iter().find_map(|path| {
        let bytes = files::read(&path, TEXT_LIMIT).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let is_it = |line: &str| line.split_ascii_whitespace().eq(["blacklist", "amdgpu"]);
        text.lines().any(is_it).then(|| path.display().to_string())
    })
}
