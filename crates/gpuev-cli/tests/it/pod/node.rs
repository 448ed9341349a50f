//! A node with one pod, made of namespaces: what kubelet and runtime do before a container's program runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gpuev_sim::SimMachine;
use gpuev_sim::run::{Privilege, Run, Running};
use serde_json::Value;

use super::manifest::{Container, Manifest, packaging};
use crate::program::PROGRAM;

/// The pod's address, in a network namespace of its own. Not a loopback one: there the agent would not insist on
/// TLS and a token.
pub(super) const ADDRESS: &str = "192.0.2.7";

/// What of this machine stands in for the images' content, beside the program itself: this one is linked
/// dynamically, the image's is not.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];

/// Makes a container's root of its arguments, goes there, and becomes its program.
///
/// `mount_at SOURCE PLACE [OPTIONS]`: as volumes are bound. Everything is bound before the root is closed, since the
/// places to mount at are made in it.
const RUNTIME: &str = r#"
set -e
root=$1 closed=$2; shift 2
mount -t tmpfs -o mode=755 image "$root"
mount_at() {
    if [ -d "$1" ]; then
        mkdir -p "$root$2"
    else
        mkdir -p "$root${2%/*}"
        [ -e "$root$2" ] || : > "$root$2"
    fi
    mount "--$3" "$1" "$root$2"
    if [ "$4" = ro ]; then mount -o remount,bind,ro "$root$2"; fi
}
while [ "$1" != -- ]; do mount_at "$1" "$2" "$3" "$4"; shift 4; done
shift
for tool in setpriv umount; do mount_at "$(command -v $tool)" /.runtime/$tool bind ro; done
mkdir "$root/.runtime/old"
if [ "$closed" = true ]; then mount -o remount,bind,ro "$root"; fi
cd "$root"
pivot_root . .runtime/old
cd /
/.runtime/umount -l /.runtime/old
exec /.runtime/setpriv "$@"
"#;

/// The node's side of the pod.
pub(super) struct Node {
    folder: tempfile::TempDir,
    manifest: Manifest,
}

impl Node {
    /// A node with the pod's volumes. `secret` is the folder that its Secret was made of.
    pub(super) fn new(secret: &Path) -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap(), manifest: Manifest::read() };
        let group = node.manifest.pod()["securityContext"]["fsGroup"].as_u64().unwrap();
        let group = u32::try_from(group).unwrap();
        for volume in node.manifest.pod()["volumes"].as_array().unwrap() {
            node.make(volume, secret, group);
        }
        node
    }

    pub(super) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn make(&self, volume: &Value, secret: &Path, group: u32) {
        let path = self.volume(volume);
        if volume["hostPath"]["type"] == "CharDevice" {
            return;
        }
        fs::create_dir(&path).unwrap();
        if volume.get("emptyDir").is_some() {
            chown(&path, Some(0), Some(group)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o2777)).unwrap();
        } else if volume.get("configMap").is_some() {
            let map = &self.manifest.object("ConfigMap")["data"];
            let files = map.as_object().unwrap().iter();
            let files = files.map(|(name, text)| (name.clone(), text.as_str().unwrap().into()));
            project(&path, 0o644, group, files);
        } else if let Some(spec) = volume.get("secret") {
            // YAML 1.1, which Kubernetes reads, has octal numbers; here they are words.
            let mode = u32::from_str_radix(spec["defaultMode"].as_str().unwrap(), 8).unwrap();
            let files = fs::read_dir(secret).unwrap().map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
            });
            project(&path, mode, group, files);
        } else {
            assert_eq!(volume["hostPath"]["type"], "DirectoryOrCreate", "{volume}");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn volume(&self, volume: &Value) -> PathBuf {
        if volume["hostPath"]["type"] == "CharDevice" {
            return volume["hostPath"]["path"].as_str().unwrap().into();
        }
        self.folder.path().join(volume["name"].as_str().unwrap())
    }

    /// Where the history is, which outlives the pod.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The command that is this container, with `more` arguments; to be run on a simulated machine.
    pub(super) fn command(&self, container: &Container<'_>, more: &[&str]) -> Command {
        let root = self.folder.path().join(format!("root-{}", container.name()));
        fs::create_dir_all(&root).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c", RUNTIME, "runtime"]);
        command.arg(&root).arg(container.has_read_only_root().to_string());
        // hostPID, privileged, hence the node's own /proc, /dev and /sys.
        for tree in ["/proc", "/sys", "/dev"] {
            command.args([tree, tree, "rbind", "rw"]);
        }
        for library in LIBRARIES.iter().filter(|folder| Path::new(folder).is_dir()) {
            command.args([library, library, "bind", "ro"]);
        }
        let program = container.command()[0];
        let (source, place) = match program.strip_prefix('/') {
            Some(_) => (PROGRAM.to_owned(), program.to_owned()),
            None => (format!("/bin/{program}"), format!("/bin/{program}")),
        };
        command.args([&source, &place, "bind", "ro"]);
        for (volume, place, read_only) in container.mounts() {
            command.arg(self.volume(volume)).arg(place).arg("bind");
            command.arg(if read_only { "ro" } else { "rw" });
        }
        command.arg("--").args(privileges(container)).arg(place);
        command.args(&container.command()[1..]).args(more);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(container.environment(ADDRESS)).stdin(Stdio::null());
        command
    }

    pub(super) fn start(&self, sim: &SimMachine, name: &str) -> Running {
        let command = self.command(&self.manifest.container(name), &[]);
        Run::new(sim).privilege(Privilege::Real).spawn(command).unwrap()
    }
}

/// `setpriv` with what the container is given and what is taken from it.
fn privileges(container: &Container<'_>) -> Vec<String> {
    let [user, group] = container.ids();
    let groups: Vec<String> = container.groups().iter().map(u64::to_string).collect();
    let mut said = vec![format!("--reuid={user}"), format!("--regid={group}")];
    said.push(match groups.is_empty() {
        true => "--clear-groups".to_owned(),
        false => format!("--groups={}", groups.join(",")),
    });
    said.extend(["--inh-caps=-all".to_owned(), "--pdeathsig=KILL".to_owned()]);
    if let Some(kept) = container.capabilities() {
        let kept: String = kept.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
        said.push(format!("--bounding-set=-all{kept}"));
    }
    said.extend(container.may_not_gain().then(|| "--no-new-privs".to_owned()));
    said
}

/// Files as kubelet projects them: links through a folder that is replaced as a whole.
fn project(volume: &Path, mode: u32, group: u32, files: impl Iterator<Item = (String, Vec<u8>)>) {
    let version = "..2026_01_01_00_00_00.000000001";
    fs::create_dir(volume.join(version)).unwrap();
    symlink(version, volume.join("..data")).unwrap();
    for (name, content) in files {
        let path = volume.join(version).join(&name);
        fs::write(&path, content).unwrap();
        chown(&path, Some(0), Some(group)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        symlink(Path::new("..data").join(&name), volume.join(&name)).unwrap();
    }
    for folder in [volume, &volume.join(version)] {
        chown(folder, Some(0), Some(group)).unwrap();
        fs::set_permissions(folder, Permissions::from_mode(0o2755)).unwrap();
    }
}

/// The folder of which the README makes the Secret, made as it says.
pub(super) fn secret() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let readme = fs::read_to_string(packaging("README.md")).unwrap();
    let blocks = readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script = blocks.into_iter().find(|block| block.starts_with("openssl ")).unwrap();
    let mut shell = Command::new("sh");
    let made = shell.args(["-ec", script]).current_dir(&folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}
