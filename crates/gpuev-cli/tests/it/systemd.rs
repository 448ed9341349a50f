//! The units of `packaging/systemd` under a genuine systemd, on a simulated machine: it starts agent and keepers, and a
//! unit that needs the GPUs free has them so.
//!
//! systemd is the first process of a PID namespace; its root is this machine's, and what it writes there is gone with it.
//! What is not the same as on a node: the control groups have no controllers, so limits of memory and tasks do not
//! hold, and what needs another kernel than that of a container systemd passes over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gpuev::{GapCause, Item};
use gpuev_sim::SimMachine;
use gpuev_sim::run::{Privilege, Run, Running};
use gpuev_store::{History, Query};

use crate::agent_yields::open_files;
use crate::keeper::until;
use crate::machine::{possible, thermal};
use crate::program::PROGRAM;

/// Runs what follows `$2` in a control group `$2` of this process's own, by way of the folder `$1`: what systemd
/// makes of groups lies below it.
const ENCLOSE: &str = r#"
set -e
mount -t cgroup2 cgroup2 "$1"
own="$1$(sed -n 's/^0:://p' /proc/self/cgroup)/$2"
mkdir "$own"
echo $$ > "$own/cgroup.procs"
umount "$1"
shift 2
exec "$@"
"#;

/// Removes that group, and those in it, when the last process has left it.
const CLEAR: &str = r#"
mount -t cgroup2 cgroup2 "$1"
own="$1$(sed -n 's/^0:://p' /proc/self/cgroup)/$2"
while [ -e "$own" ]; do find "$own" -depth -type d -exec rmdir {} + 2>/dev/null; done
"#;

/// Boots a copy of this machine below `$1`, with the units of `$2` and the program `$3`; `$1/state` holds the history.
///
/// `work.service` is somebody's who changes partitions: it says that it is at work and ends when it is told so.
const BOOT: &str = r#"
set -e
folder=$1 units=$2 program=$3
mount -t tmpfs upper "$folder/upper"
cd "$folder"
mkdir upper/files upper/work
mount -t overlay root -o "lowerdir=/,upperdir=upper/files,workdir=upper/work" root
cd root
for tree in /sys /dev; do mount --rbind $tree .$tree; done
mount -t proc proc proc
mount -t cgroup2 cgroup2 sys/fs/cgroup
for folder_of_a_boot in run tmp; do mount -t tmpfs tmpfs $folder_of_a_boot; done
mkdir -p var/lib/gpuev old run/trial
mount --bind "$folder/state" var/lib/gpuev
mount --bind "$folder/trial" run/trial
cp "$units"/gpuev-* etc/systemd/system/
cp "$units/gpuev.sysusers" etc/gpuev.sysusers
: > usr/bin/gpuev
mount --bind "$program" usr/bin/gpuev
chroot . systemd-sysusers /etc/gpuev.sysusers
cat > etc/systemd/system/trial.target <<'END'
[Unit]
Requires=gpuev-agent.service
END
cat > etc/systemd/system/work.service <<'END'
[Unit]
Requires=gpuev-yield.service
After=gpuev-yield.service
[Service]
Type=oneshot
ExecStart=sh -c 'echo > /run/trial/at-work; read line < /run/trial/done'
END
pivot_root . old
umount -l /old
exec env -i container=trial PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=trial.target --show-status=no
"#;

/// A machine that systemd runs.
struct Booted {
    /// There until it is dropped.
    running: Option<Running>,
    folder: tempfile::TempDir,
}

impl Booted {
    fn on(sim: &SimMachine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["groups", "upper", "root", "state", "trial"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let made = Command::new("mkfifo").arg(folder.path().join("trial/done")).status();
        assert!(made.unwrap().success());
        let mut command = in_a_group(ENCLOSE, folder.path());
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--cgroup"]);
        command.args(["--ipc", "--uts"]);
        // Units that are this machine's own may listen: not to its neighbours.
        command.args(["--net", "sh", "-c", BOOT, "boot"]).arg(folder.path());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd"));
        command.arg(PROGRAM).stdin(Stdio::null());
        let running = Run::new(sim).privilege(Privilege::Real).spawn(command).unwrap();
        Self { running: Some(running), folder }
    }

    /// It has not given up on the way.
    fn runs(&mut self) {
        let ended = self.running.as_mut().unwrap().child().try_wait().unwrap();
        assert_eq!(ended, None, "it has ended");
    }

    fn trial(&self, name: &str) -> PathBuf {
        self.folder.path().join("trial").join(name)
    }

    /// `systemctl`, inside.
    fn systemctl(&self, args: &[&str]) -> Output {
        let unshare = self.running.as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        let systemd = children.unwrap().trim().to_owned();
        let mut command = Command::new("nsenter");
        command.args(["--target", &systemd, "--all", "systemctl"]).args(args).output().unwrap()
    }

    fn is(&self, unit: &str, state: &str) -> bool {
        let told = self.systemctl(&["show", "--property=ActiveState", "--value", unit]).stdout;
        String::from_utf8_lossy(&told).trim() == state
    }

    fn recorded(&self) -> (usize, usize) {
        let Ok(history) = History::open(&self.folder.path().join("state/history.db")) else {
            return (0, 0);
        };
        let items: Vec<Item> = history.items(&Query::new()).flatten().collect();
        let is_gap =
            |item: &&Item| matches!(item, Item::Gap(gap) if gap.cause == GapCause::Yielded);
        let events = items.iter().filter(|item| matches!(item, Item::Event(_))).count();
        (events, items.iter().filter(is_gap).count())
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        drop(self.running.take());
        let _cleared = in_a_group(CLEAR, self.folder.path()).status();
    }
}

/// A script that is given the folder to mount control groups at, and the name of this machine's.
fn in_a_group(script: &str, folder: &Path) -> Command {
    let name = format!("gpuev-trial-{}", std::process::id());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "group"]).arg(folder.join("groups")).arg(name);
    command
}

/// Mounts what a machine is made of, below `$1`.
const TRY: &str = r#"
mount -t tmpfs upper "$1" && cd "$1" && mkdir files work root groups &&
mount -t overlay root -o lowerdir=/,upperdir=files,workdir=work root &&
mount -t cgroup2 cgroup2 groups && ls /lib/systemd/systemd
"#;

/// Says what there is not: root, file systems, systemd.
fn has_what_it_takes(sim: &SimMachine) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", TRY, "try"]).arg(folder.path());
    let tried = command.output().unwrap();
    if tried.status.success() {
        return possible(sim);
    }
    let why = format!("no machine can be booted: {}", String::from_utf8_lossy(&tried.stderr));
    assert!(std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_none(), "{why}");
    eprintln!("passed over: {why}");
    false
}

#[test]
fn a_unit_that_needs_the_gpus_free_has_them_so_and_then_the_agent_has_them_back() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !has_what_it_takes(&sim) {
        return;
    }
    let mut booted = Booted::on(&sim);
    until(|| {
        booted.runs();
        open_files(&sim) == 2
    });
    until(|| booted.is("gpuev-agent.service", "active"));
    sim.emit(0, &thermal(1));
    until(|| booted.recorded() == (1, 0));
    let started = booted.systemctl(&["start", "--no-block", "work.service"]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    until(|| booted.trial("at-work").exists());
    assert!(booted.is("gpuev-yield.service", "active"));
    // What it is told of closed files, the simulator takes a moment to note.
    until(|| open_files(&sim) == 0);
    fs::write(booted.trial("done"), "\n").unwrap();
    until(|| booted.is("gpuev-yield.service", "inactive") && open_files(&sim) == 2);
    sim.emit(1, &thermal(2));
    until(|| booted.recorded() == (2, 2));
}
