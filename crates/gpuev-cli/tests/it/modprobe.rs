//! `packaging/modprobe.d`, read and obeyed by kmod's own modprobe while an agent watches a simulated machine.
//!
//! modprobe sees a root of its own with the hook, the program at its place, and an amdgpu in `/sys` that is loaded and not in
//! use. It goes the whole way to asking the kernel to remove the module. That the kernel refuses: who is root of a user
//! namespace only may not, so that no driver of the machine that runs this test is ever in danger.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gpuev::GapCause;
use gpuev_sim::SimMachine;

use crate::agent_yields::{Agent, open_files};
use crate::keeper::{Listening, until};
use crate::machine::{possible, thermal};
use crate::program::PROGRAM;

/// Makes the root `$1` of a machine with the hook `$2`, the program `$3` and the folder `$4`, and unloads the driver there.
///
/// What the hook runs as modprobe says that it is its turn and waits for a line before it becomes the genuine one.
const UNLOAD: &str = r#"
set -e
root=$1 hook=$2 program=$3 folder=$4
mount -t tmpfs root "$root"
cd "$root"
mkdir -p usr/bin usr/lib lib lib64 bin sbin kmod etc/modprobe.d proc sys/module/amdgpu/holders ".$folder"
for tree in /usr/lib /lib /bin /proc "$folder"; do mount --rbind $tree .$tree; done
if [ -d /lib64 ]; then mount --rbind /lib64 lib64; fi
: > usr/bin/gpuev
mount --bind "$program" usr/bin/gpuev
echo live > sys/module/amdgpu/initstate
echo 0 > sys/module/amdgpu/refcnt
cp "$hook" etc/modprobe.d/
cp "$(command -v modprobe)" kmod/modprobe
cat > sbin/modprobe <<'END'
#!/bin/sh
echo "$*"
read line || exit 1
exec /kmod/modprobe "$@"
END
chmod +x sbin/modprobe
exec chroot . /kmod/modprobe -r amdgpu
"#;

/// What the hook has modprobe called with.
const TURN: &str = "-r --ignore-remove amdgpu\n";

fn has_modprobe() -> bool {
    let has = Command::new("modprobe").arg("--version").output().is_ok();
    if !has {
        assert!(std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_none(), "modprobe is missing");
        eprintln!("passed over: modprobe (kmod) is missing");
    }
    has
}

fn unload(root: &Path, socket: &Path) -> Child {
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/modprobe.d/gpuev.conf");
    Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", UNLOAD, "unload"])
        .arg(root)
        .arg(hook)
        .arg(PROGRAM)
        .arg(socket.parent().unwrap())
        .env("GPUEV_AGENT_CONTROL_SOCKET", socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_driver_is_unloaded_when_the_agent_has_let_go_of_it() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) || !has_modprobe() {
        return;
    }
    let listening = Listening::on(&sim);
    let mut agent = Agent::on(&sim, Some(&listening));
    agent.is_ready();
    let keepers: Vec<u32> = sim.event_files().iter().map(|file| file.client.pid.host).collect();
    assert_eq!((open_files(&sim), keepers.len()), (2, 2));
    let root = tempfile::tempdir().unwrap();
    let mut modprobe = unload(root.path(), &agent.socket());
    let mut turn = String::new();
    BufReader::new(modprobe.stdout.as_mut().unwrap()).read_line(&mut turn).unwrap();
    if turn != TURN {
        drop(modprobe.stdin.take());
        panic!("{turn:?}: {:?}", modprobe.wait_with_output());
    }
    for keeper in keepers {
        assert!(!Path::new(&format!("/proc/{keeper}/exe")).exists(), "its keeper still runs");
    }
    // What it is told of closed files, the simulator takes a moment to note.
    until(|| open_files(&sim) == 0);
    modprobe.stdin.take().unwrap().write_all(b"\n").unwrap();
    let ended = modprobe.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("could not remove 'amdgpu'"), "the kernel should be asked: {said}");
    assert!(!ended.status.success(), "its failure should be passed on: {said}");
    agent.says("2 GPUs are watched again");
    sim.emit(0, &thermal(1));
    until(|| agent.events() == 1);
    assert_eq!(agent.gaps(GapCause::Yielded), 2, "one of each GPU");
    agent.end();
}
