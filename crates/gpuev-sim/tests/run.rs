//! Unmodified programs on a simulated machine.
//!
//! They need root or a user namespace, a C compiler, Python, and Debian's rocm-smi with
//! librocm-smi-dev. What is missing is named and its test passed over, unless
//! `GPUEV_SIM_REQUIRE_ALL` is set.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use gpuev_sim::run::{Privilege, Run, Running, exit_code};
use gpuev_sim::{DriverEvent, Kernel, SimMachine};
use rustix::process::{Pid, PidfdFlags, Signal};
use tempfile::TempDir;

/// Mask bits of the events used here.
const VM_FAULT: u64 = 1;
const THERMAL: u64 = 1 << 1;

/// Gives up on the test, unless everything is required.
macro_rules! need {
    ($found:expr, $what:literal) => {
        match $found {
            Some(found) => found,
            None if std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_some() => panic!($what),
            None => {
                eprintln!("passed over: {}", $what);
                return;
            }
        }
    };
}

const NO_WAY: &str = "neither root nor a user namespace";

/// The ways to get namespaces that this user has: whether it takes a user namespace.
fn ways(machine: &SimMachine) -> Vec<bool> {
    let works = |user: &bool| {
        let outcome = Run::new(machine).user_namespace(*user).output(Command::new("true"));
        outcome.inspect_err(|error| eprintln!("user namespace {user}: {error}")).is_ok()
    };
    [false, true].into_iter().filter(works).collect()
}

/// Each way to run on this machine; passes over the test where there is none.
macro_rules! each_way {
    ($machine:expr) => {{
        let ways = ways($machine);
        if ways.is_empty() {
            assert!(std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_none(), "{NO_WAY}");
            eprintln!("passed over: {NO_WAY}");
            return;
        }
        ways
    }};
}

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it wrote, if it ended well.
fn stdout(output: &Output) -> String {
    let all = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{:?} {all:?}", output.status);
    all.0
}

fn thermal() -> DriverEvent {
    DriverEvent::Thermal { throttlers: 0x400, count: 7 }
}

/// A program of `tests/c`, compiled.
struct Program {
    dir: TempDir,
}

impl Program {
    fn compile(name: &str, libraries: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name);
        let program = Program { dir };
        let status = Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-o"])
            .arg(program.path())
            .arg(source.with_extension("c"))
            .args(libraries)
            .status();
        status.is_ok_and(|status| status.success()).then_some(program)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("program")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path());
        command.args(arguments);
        command
    }
}

/// A program whose output is read line by line as it comes.
struct Talker {
    running: Running,
    lines: BufReader<ChildStdout>,
}

impl Talker {
    fn start(run: Run, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = run.spawn(command).unwrap();
        let lines = BufReader::new(running.child().stdout.take().unwrap());
        Talker { running, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    /// The lines up to and with this one.
    fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut seen = vec![self.line()];
        while seen.last().unwrap() != wanted {
            assert!(!self.lines.fill_buf().unwrap().is_empty(), "no {wanted:?} in {seen:?}");
            seen.push(self.line());
        }
        seen
    }

    fn say(&mut self, line: &str) {
        writeln!(self.running.child().stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// What it still writes before it ends well.
    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        assert!(self.running.wait().unwrap().success(), "{rest}");
        rest
    }
}

#[test]
fn the_machine_is_laid_over_the_host() {
    let machine = SimMachine::builder().gpus(2).build().unwrap();
    let of_host = fs::read_dir("/sys/kernel").unwrap().count();
    for user in each_way!(&machine) {
        let script = "cat /sys/class/kfd/kfd/topology/nodes/*/gpu_id; ls /dev/dri /sys/class/drm
            test -e /dev/kfd && test -c /dev/null && echo x > /dev/null && test -e /proc/self/exe &&
            ls -UA /sys/kernel | wc -l; touch /sys/x 2>&1; cat /sys/bus/pci/devices/*/vendor";
        let run = Run::new(&machine).user_namespace(user);
        let seen = text(&run.output(sh(script)).unwrap().stdout);
        for gpu in machine.gpus() {
            assert!(seen.contains(&format!("{}\n", gpu.kfd_gpu_id)), "{seen}");
            assert!(seen.contains(&format!("renderD{}\n", gpu.render_minor)), "{seen}");
        }
        assert!(seen.contains(&format!("\n{of_host}\n")), "{of_host}: {seen}");
        assert!(seen.contains("Read-only file system"), "{seen}");
        assert!(seen.contains("0x1002"), "{seen}");
    }
}

#[test]
fn nothing_changes_outside() {
    let machine = SimMachine::new().unwrap();
    let look = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        (mounts, Path::new("/dev/kfd").exists(), Path::new("/sys/class/kfd").exists())
    };
    let before = look();
    for user in each_way!(&machine) {
        let run = Run::new(&machine).user_namespace(user);
        let mut talker = Talker::start(run, sh("echo ready; read line"));
        talker.until("ready");
        assert_eq!(look(), before);
        talker.say("go");
        talker.rest();
        assert_eq!(look(), before);
    }
}

#[test]
fn root_can_open_a_terminal_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, as the host's devpts has mode 000");
        return;
    }
    let machine = SimMachine::new().unwrap();
    let output = Run::new(&machine).output(sh("exec 3<>/dev/ptmx && echo opened")).unwrap();
    assert_eq!(stdout(&output).trim(), "opened");
}

#[test]
fn what_changes_on_the_machine_is_seen_at_once() {
    let machine = SimMachine::new().unwrap();
    let file =
        format!("sys/class/drm/renderD{}/device/gpu_busy_percent", machine.gpus()[0].render_minor);
    for user in each_way!(&machine) {
        let run = Run::new(&machine).user_namespace(user);
        let mut talker = Talker::start(run, sh(&format!("echo ready; read line; cat /{file}")));
        talker.until("ready");
        machine.write_file(&file, "77\n").unwrap();
        talker.say("go");
        assert_eq!(talker.rest(), "77\n");
    }
}

#[test]
fn gpus_come_and_go_under_a_running_program() {
    let machine = SimMachine::new().unwrap();
    let program = need!(Program::compile("kfd", &[]), "no C compiler");
    for user in each_way!(&machine) {
        let script = format!(
            "echo ready; read gpu; cat /sys/bus/pci/devices/*/vendor; exec {} watch $gpu {THERMAL} 1",
            program.path().display()
        );
        let run = Run::new(&machine).user_namespace(user);
        let mut talker = Talker::start(run, sh(&script));
        talker.until("ready");
        let added = machine.add_gpu().unwrap();
        talker.say(&machine.kfd_gpu_id(added).unwrap().to_string());
        let seen = talker.until("ready");
        assert_eq!(seen.iter().filter(|line| *line == "0x1002").count(), 2, "{seen:?}");
        machine.emit(added, &thermal());
        assert_eq!(talker.rest(), "2 400:7\n");
        machine.remove_gpu(added).unwrap();
    }
}

#[test]
fn ioctls_answer_like_the_driver() {
    let program = need!(Program::compile("kfd", &[]), "no C compiler");
    for kernel in [Kernel::V6_1, Kernel::V7_3] {
        let machine = SimMachine::builder().gpus(2).kernel(kernel).build().unwrap();
        let [first, second] = [0, 1].map(|index| machine.kfd_gpu_id(index).unwrap());
        let (major, minor) = kernel.kfd_version();
        let expected = format!(
            "version: 0\nversion {major}.{minor}\nclocks: 0\nfrequency 1000000000\ncount: 0\n\
             nodes 2\napertures: 0\naperture of {first}\naperture of {second}\nmemory: 0\n\
             available some\n"
        );
        for user in each_way!(&machine) {
            let run = Run::new(&machine).user_namespace(user);
            let asked = run.output(program.command(&["ask", &first.to_string()])).unwrap();
            assert_eq!(stdout(&asked), expected);
        }
    }
}

#[test]
fn wrong_ioctls_fail_like_the_driver() {
    let machine = SimMachine::new().unwrap();
    let program = need!(Program::compile("kfd", &[]), "no C compiler");
    let gpu = machine.kfd_gpu_id(0).unwrap().to_string();
    let expected = "unknown gpu: EINVAL\nbad address: EFAULT\nread-only memory: EFAULT\n\
                    no such ioctl: ENOTTY\nnot the device: ENOTTY\nno descriptor: EBADF\n\
                    no descriptor left: EMFILE\n";
    for user in each_way!(&machine) {
        let run = Run::new(&machine).user_namespace(user);
        let asked = run.output(program.command(&["err", &gpu])).unwrap();
        assert_eq!(stdout(&asked), expected);
    }
}

#[test]
fn libdrm_knows_its_gpu() {
    let machine = SimMachine::new().unwrap();
    let program = need!(Program::compile("libdrm", &[]), "no C compiler");
    let node = format!("renderD{}", machine.gpus()[0].render_minor);
    let vram = machine.root().join("sys/class/drm").join(&node).join("device/mem_info_vram_total");
    let vram = fs::read_to_string(vram).unwrap();
    for user in each_way!(&machine) {
        let run = Run::new(&machine).user_namespace(user);
        let asked = run.output(program.command(&[&format!("/dev/dri/{node}")])).unwrap();
        need!((asked.status.code() != Some(3)).then_some(()), "no libdrm_amdgpu (libdrm-amdgpu1)");
        let seen = stdout(&asked);
        assert!(seen.starts_with("amdgpu 3."), "{seen}");
        assert!(seen.contains(&format!("memory 0\nvram {vram}sensor 0\ntemperature ")), "{seen}");
    }
}

#[test]
fn events_reach_the_program_through_an_injected_file() {
    let machine = SimMachine::new().unwrap();
    let program = need!(Program::compile("kfd", &[]), "no C compiler");
    let gpu = machine.kfd_gpu_id(0).unwrap().to_string();
    for user in each_way!(&machine) {
        let command = program.command(&["watch", &gpu, &THERMAL.to_string(), "2"]);
        let mut watcher = Talker::start(Run::new(&machine).user_namespace(user), command);
        let opening = watcher.until("ready");
        assert_eq!(opening, ["cloexec 0", "mask 8", "empty: EAGAIN", "ready"]);
        machine.emit(0, &thermal());
        machine.emit(0, &thermal());
        assert_eq!(watcher.rest(), "2 400:7\n2 400:7\n");
    }
    let files = machine.event_files();
    assert!(files.iter().all(|file| file.closed && file.accepted_lines == 2), "{files:?}");
}

#[test]
fn each_process_is_a_client_of_its_own() {
    let machine = SimMachine::new().unwrap();
    let program = need!(Program::compile("kfd", &[]), "no C compiler");
    each_way!(&machine);
    let script = format!(
        "for i in 1 2; do sh -c 'echo $$; exec {} watch {} {THERMAL} 1 >&2' & done; wait",
        program.path().display(),
        machine.kfd_gpu_id(0).unwrap()
    );
    let mut command = sh(&script);
    command.stderr(Stdio::piped());
    let mut family = Talker::start(Run::new(&machine), command);
    let mut pids = [family.line(), family.line()].map(|line| line.parse::<u32>().unwrap());
    let mut theirs = BufReader::new(family.running.child().stderr.take().unwrap()).lines();
    let ready = theirs.by_ref().map(Result::unwrap).filter(|line| line == "ready");
    assert_eq!(ready.take(2).count(), 2);
    let files = machine.event_files();
    let mut clients: Vec<u32> = files.iter().map(|file| file.client.pid.host).collect();
    clients.sort_unstable();
    pids.sort_unstable();
    assert_eq!(clients, pids);
    machine.emit(0, &thermal());
    family.rest();
}

#[test]
fn the_filter_takes_the_program_for_what_it_is_told() {
    let program = need!(Program::compile("kfd", &[]), "no C compiler");
    let root = rustix::process::geteuid().is_root();
    for (privilege, user, capable) in [
        (Privilege::AsRoot, true, true),
        (Privilege::Unprivileged, false, false),
        (Privilege::Real, true, false),
        (Privilege::Real, false, root),
    ] {
        let machine = SimMachine::builder().kernel(Kernel::V7_3).build().unwrap();
        if !each_way!(&machine).contains(&user) {
            continue;
        }
        let gpu = machine.kfd_gpu_id(0).unwrap().to_string();
        let wanted = if capable { "3" } else { "2" };
        let mask = (VM_FAULT | THERMAL).to_string();
        let run = Run::new(&machine).privilege(privilege).user_namespace(user);
        let mut watcher = Talker::start(run, program.command(&["watch", &gpu, &mask, wanted]));
        watcher.until("ready");
        let own = watcher.running.id();
        let fault = |pid: u32| DriverEvent::VmFault { pid: pid.into(), comm: "a".into() };
        machine.emit_batch(0, &[fault(1), fault(own), thermal()]);
        let others = if capable { "1 1:a\n" } else { "" };
        assert_eq!(watcher.rest(), format!("{others}1 {own:x}:a\n2 400:7\n"), "{privilege:?}");
        assert_eq!(machine.event_files()[0].client.cap_sys_admin, capable, "{privilege:?}");
    }
}

#[test]
fn python_reads_events() {
    let machine = SimMachine::new().unwrap();
    need!(Command::new("python3").arg("--version").output().ok(), "no python3");
    let script = format!(
        "import fcntl, os, select, struct\n\
         kfd = os.open('/dev/kfd', os.O_RDWR)\n\
         args = bytearray(struct.pack('II', {}, 0))\n\
         fcntl.ioctl(kfd, 0xC0084B1F, args)\n\
         fd = struct.unpack('II', args)[1]\n\
         os.write(fd, struct.pack('Q', {THERMAL}))\n\
         print('ready', flush=True)\n\
         select.select([fd], [], [])\n\
         print(os.read(fd, 8192))\n",
        machine.kfd_gpu_id(0).unwrap()
    );
    for user in each_way!(&machine) {
        let mut command = Command::new("python3");
        command.args(["-c", &script]);
        let mut python = Talker::start(Run::new(&machine).user_namespace(user), command);
        python.until("ready");
        machine.emit(0, &thermal());
        assert_eq!(python.rest(), "b'2 400:7\\n'\n");
    }
}

/// Opens `/dev/kfd` and event files as it is told, and says what came of it.
const KFD_SHELL: &str = "
import fcntl, os, struct, sys
def attempt(call):
    try: return call() or 0
    except OSError as error: return error.errno
def events(gpu, kfd):
    return fcntl.ioctl(kfd, 0xC0084B1F, bytearray(struct.pack('II', gpu, 0)))
def once():
    kfd = os.open('/dev/kfd', os.O_RDWR)
    os.close(kfd)
kfd = os.open('/dev/kfd', os.O_RDWR)
print('ready', flush=True)
for line in sys.stdin:
    print(attempt(lambda: eval(line)), flush=True)
";

fn kfd_shell(machine: &SimMachine, user: bool) -> Talker {
    let mut command = Command::new("python3");
    command.args(["-c", KFD_SHELL]);
    let mut shell = Talker::start(Run::new(machine).user_namespace(user), command);
    shell.until("ready");
    shell
}

impl Talker {
    fn ask(&mut self, question: &str) -> String {
        self.say(question);
        self.line()
    }

    fn end(mut self) {
        drop(self.running.child().stdin.take());
        self.rest();
    }
}

#[test]
fn a_process_sees_the_gpus_of_its_first_open_only() {
    need!(Command::new("python3").arg("--version").output().ok(), "no python3");
    let machine = SimMachine::new().unwrap();
    let [no, yes] = [libc::EINVAL, 0].map(|errno| errno.to_string());
    for user in each_way!(&machine) {
        let mut shell = kfd_shell(&machine, user);
        assert_eq!(shell.ask("once()"), yes);
        let added = machine.add_gpu().unwrap();
        let gpu = machine.kfd_gpu_id(added).unwrap();
        assert_eq!(shell.ask("once()"), yes, "which teaches it nothing");
        assert_eq!(shell.ask(&format!("events({gpu}, kfd)")), no);
        let mut younger = kfd_shell(&machine, user);
        assert_eq!(younger.ask(&format!("events({gpu}, kfd)")), yes);
        // A child has not opened it, and its parent's file is not for it.
        let child = "os.waitstatus_to_exitcode(os.waitpid(os.fork() or \
                     os._exit(attempt(lambda: events(GPU, kfd))), 0)[1])";
        let child = child.replace("GPU", &gpu.to_string());
        assert_eq!(younger.ask(&child), libc::EBADF.to_string());
        shell.end();
        younger.end();
        machine.remove_gpu(added).unwrap();
    }
}

#[test]
fn a_locked_kfd_refuses_to_be_opened() {
    need!(Command::new("python3").arg("--version").output().ok(), "no python3");
    for (kernel, errno) in [(Kernel::V6_1, libc::EAGAIN), (Kernel::V7_3, libc::EINVAL)] {
        let machine = SimMachine::builder().kernel(kernel).build().unwrap();
        let gpu = machine.kfd_gpu_id(0).unwrap();
        for user in each_way!(&machine) {
            let mut shell = kfd_shell(&machine, user);
            let lock = machine.lock_kfd();
            assert_eq!(shell.ask("once()"), errno.to_string());
            assert_eq!(
                shell.ask("os.open('kfd', os.O_RDWR, dir_fd=os.open('/dev', 0))"),
                errno.to_string()
            );
            assert_eq!(
                shell.ask("os.chdir('/dev') or os.open('./kfd', os.O_RDWR)"),
                errno.to_string()
            );
            assert_eq!(shell.ask("os.open('/dev/null', os.O_RDWR) and 0"), "0");
            assert_eq!(shell.ask(&format!("events({gpu}, kfd)")), "0", "it opened it before");
            drop(lock);
            assert_eq!(shell.ask("once()"), "0");
            shell.end();
        }
        let opens = machine.kfd_opens();
        assert!(opens.iter().any(|open| open.refused == Some(errno)));
    }
}

#[test]
fn without_a_gpu_new_drivers_refuse_to_be_opened() {
    for (kernel, opens) in [(Kernel::V6_12, true), (Kernel::V7_3, false)] {
        let machine = SimMachine::builder().gpus(0).kernel(kernel).build().unwrap();
        for user in each_way!(&machine) {
            let run = Run::new(&machine).user_namespace(user);
            let output = run.output(sh("exec 3<>/dev/kfd")).unwrap();
            assert_eq!(output.status.success(), opens, "{kernel} {}", text(&output.stderr));
        }
    }
}

#[test]
fn rocm_smi_lists_the_gpus() {
    let machine = SimMachine::builder().gpus(2).build().unwrap();
    need!(Command::new("rocm-smi").arg("--version").output().ok(), "no rocm-smi");
    for user in each_way!(&machine) {
        let run = || Run::new(&machine).user_namespace(user);
        let table = stdout(&run().output(Command::new("rocm-smi")).unwrap());
        for gpu in 0..2 {
            let row = table.lines().find(|line| line.starts_with(&format!("{gpu} ")));
            assert!(row.is_some_and(|row| row.contains("38.0c")), "{table}");
        }
        let mut command = Command::new("rocm-smi");
        command.arg("--showbus");
        let shown = stdout(&run().output(command).unwrap());
        let has = |bdf: &str| shown.contains(&bdf.to_uppercase());
        assert!(machine.gpus().iter().all(|gpu| has(&gpu.bdf)), "{shown}");
    }
}

#[test]
fn librocm_smi_reads_events_of_all_gpus() {
    let machine = SimMachine::builder().gpus(2).build().unwrap();
    let header = Path::new("/usr/include/rocm_smi/rocm_smi.h");
    need!(header.exists().then_some(()), "no librocm-smi-dev");
    let program = need!(Program::compile("rocm_smi", &["-lrocm_smi64"]), "no C compiler");
    for user in each_way!(&machine) {
        let run = Run::new(&machine).user_namespace(user);
        let mut client = Talker::start(run, program.command(&[]));
        let found = client.until("ready");
        assert_eq!(found[0], "2 GPUs", "{found:?}");
        assert!(found[1].starts_with("GPU 0 at 0300, 38000"), "{found:?}");
        machine.emit(0, &thermal());
        machine.emit(1, &thermal());
        let rest = client.rest();
        assert!(rest.contains("GPU 0 event 2 400:7\n"), "{rest}");
        assert!(rest.contains("GPU 1 event 2 400:7\n"), "{rest}");
        assert!(rest.ends_with("done\n"), "{rest}");
    }
}

/// A terminal: our side of it, and the program's.
fn terminal() -> (File, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let theirs = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    (File::from(ours), theirs)
}

fn on_terminal(command: &mut Command, theirs: &OwnedFd) {
    let end = || theirs.try_clone().unwrap();
    command.stdin(end()).stdout(end()).stderr(end());
}

/// Reads the terminal until this text has come.
fn read_until(terminal: &mut File, wanted: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !text(&seen).contains(wanted) {
        match terminal.read(&mut buffer) {
            Ok(got) if got > 0 => seen.extend_from_slice(&buffer[..got]),
            end => panic!("{end:?} before {wanted:?} in {}", text(&seen)),
        }
    }
    text(&seen)
}

#[test]
fn rocm_smi_shows_events_on_a_terminal() {
    need!(Command::new("rocm-smi").arg("--version").output().ok(), "no rocm-smi");
    let probe = SimMachine::new().unwrap();
    for user in each_way!(&probe) {
        let machine = SimMachine::builder().gpus(2).build().unwrap();
        let (mut screen, theirs) = terminal();
        let mut command = Command::new("rocm-smi");
        command.arg("--showevents");
        on_terminal(&mut command, &theirs);
        let mut running = Run::new(&machine).user_namespace(user).spawn(command).unwrap();
        drop(theirs);
        read_until(&mut screen, "DESCRIPTION");
        // It sets its masks when it likes.
        let listens = |id: u32| {
            machine
                .event_files()
                .iter()
                .any(|file| file.kfd_gpu_id == id && file.mask & THERMAL != 0)
        };
        while !machine.gpus().iter().all(|gpu| listens(gpu.kfd_gpu_id)) {
            std::thread::yield_now();
        }
        machine.emit(1, &thermal());
        let shown = read_until(&mut screen, "400:7");
        assert!(shown.contains("GPU[1]") && shown.contains("THERMAL_THROTTLE"), "{shown}");
        // It throws away what was typed before it listens for a key.
        let raw = || {
            let modes = rustix::termios::tcgetattr(&screen).unwrap().local_modes;
            !modes.contains(rustix::termios::LocalModes::ICANON)
        };
        while !raw() {
            std::thread::yield_now();
        }
        screen.write_all(b"q").unwrap();
        assert!(running.wait().unwrap().success());
    }
}

#[test]
fn the_exit_status_is_the_programs() {
    let machine = SimMachine::new().unwrap();
    each_way!(&machine);
    let code = |script: &str| {
        let status = Run::new(&machine).output(sh(script)).unwrap().status;
        (status.code(), status.signal(), exit_code(status))
    };
    assert_eq!(code("exit 0"), (Some(0), None, 0));
    assert_eq!(code("exit 7"), (Some(7), None, 7));
    assert_eq!(code("kill -TERM $$"), (None, Some(15), 143));
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let machine = SimMachine::new().unwrap();
    each_way!(&machine);
    let error = Run::new(&machine).spawn(Command::new("/no/such/program")).err().unwrap();
    let said = error.to_string();
    assert!(said.contains("exec /no/such/program: No such file"), "{said}");
    assert!(said.ends_with("check its name and your PATH"), "{said}");
}

#[test]
fn the_program_stays_where_it_was_started() {
    let machine = SimMachine::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("here"), "").unwrap();
    for user in each_way!(&machine) {
        let mut command = Command::new("ls");
        command.current_dir(dir.path());
        let output = Run::new(&machine).user_namespace(user).output(command).unwrap();
        assert_eq!(stdout(&output), "here\n");
    }
}

#[test]
fn users_stay_who_they_are() {
    let machine = SimMachine::new().unwrap();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    for user in each_way!(&machine) {
        let output = Run::new(&machine).user_namespace(user).output(sh("id -u; id -g")).unwrap();
        assert_eq!(stdout(&output), format!("{uid}\n{gid}\n"));
    }
}

/// A descriptor of the process with this number.
fn process_of(pid: &str) -> OwnedFd {
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap()
}

/// Waits until the process has ended.
fn wait_for_end(process: &OwnedFd) {
    let mut fds = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
}

#[test]
fn dropping_it_ends_the_program() {
    let machine = SimMachine::new().unwrap();
    for user in each_way!(&machine) {
        let run = Run::new(&machine).user_namespace(user);
        let mut talker = Talker::start(run, sh("echo $$; exec sleep 1000"));
        let process = process_of(&talker.line());
        drop(talker);
        wait_for_end(&process);
    }
}

/// What tests below start this test program anew for: it puts `sh -c SCRIPT` on a machine, in
/// the foreground.
#[test]
#[ignore = "a part of other tests"]
fn helper() {
    let Some(script) = std::env::var_os("GPUEV_SIM_TEST_SCRIPT") else { return };
    let user = std::env::var_os("GPUEV_SIM_TEST_USER").is_some();
    let machine = SimMachine::new().unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    match Run::new(&machine).user_namespace(user).foreground(command) {
        Ok(status) => std::process::exit(exit_code(status).into()),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(99);
        }
    }
}

fn helper_command(script: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "helper", "--ignored", "--nocapture"]);
    command.env("GPUEV_SIM_TEST_SCRIPT", script);
    command
}

fn start_helper(script: &str, user: bool) -> (Child, BufReader<ChildStdout>) {
    let mut command = helper_command(script);
    if user {
        command.env("GPUEV_SIM_TEST_USER", "1");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

/// The rest of the first line in which this text is; the test harness leaves a line of its own
/// unfinished before it.
fn line_after(lines: &mut impl BufRead, start: &str) -> String {
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        if let Some(at) = line.find(start) {
            return line[at + start.len()..].trim().to_owned();
        }
        line.clear();
    }
    panic!("no line with {start:?}")
}

#[test]
fn a_killed_supervisor_leaves_nothing() {
    let machine = SimMachine::new().unwrap();
    for user in each_way!(&machine) {
        let (mut helper, mut lines) = start_helper("echo pid=$$; exec sleep 1000", user);
        let process = process_of(&line_after(&mut lines, "pid="));
        helper.kill().unwrap();
        helper.wait().unwrap();
        wait_for_end(&process);
    }
}

#[test]
fn signals_to_the_supervisor_reach_the_program() {
    let machine = SimMachine::new().unwrap();
    each_way!(&machine);
    for (name, signal) in [("TERM", Signal::TERM), ("INT", Signal::INT), ("USR1", Signal::USR1)] {
        let script = format!(
            "sleep 1000 & trap 'kill $!; exit 42' {name}; echo pid=$$; while :; do wait; done"
        );
        let (mut helper, mut lines) = start_helper(&script, false);
        line_after(&mut lines, "pid=");
        rustix::process::kill_process(Pid::from_child(&helper), signal).unwrap();
        assert_eq!(helper.wait().unwrap().code(), Some(42), "{name}");
    }
}

#[test]
fn ctrl_c_is_for_the_program_to_heed() {
    let machine = SimMachine::new().unwrap();
    each_way!(&machine);
    let (mut screen, theirs) = terminal();
    let script = "trap 'echo heeded; exit 42' INT; echo ready; while :; do read x; done";
    let mut command = helper_command(script);
    on_terminal(&mut command, &theirs);
    let start_session = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: two system calls.
    unsafe { command.pre_exec(start_session) };
    let mut helper = command.spawn().unwrap();
    drop((command, theirs));
    read_until(&mut screen, "ready");
    screen.write_all(b"\x03").unwrap();
    read_until(&mut screen, "heeded");
    assert_eq!(helper.wait().unwrap().code(), Some(42));
}

#[test]
fn one_machine_inside_another_is_refused() {
    let machine = SimMachine::new().unwrap();
    each_way!(&machine);
    let output = Run::new(&machine).output(helper_command("true")).unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(99), "{said}");
    let call = "seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER): Device or resource busy";
    assert!(said.contains(call), "{said}");
    assert!(said.contains("do not start one simulated machine inside another"), "{said}");
}

#[test]
fn without_any_namespace_it_says_what_is_missing() {
    let machine = SimMachine::new().unwrap();
    let possible = each_way!(&machine).contains(&true).then_some(());
    need!(possible, "no user namespaces");
    // A namespace that allows no further one, and in it a process that has lost its powers.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    command.arg(
        "echo 0 > /proc/sys/user/max_user_namespaces
         exec setpriv --bounding-set=-sys_admin \"$0\" --exact helper --ignored --nocapture",
    );
    command.arg(std::env::current_exe().unwrap());
    command.env("GPUEV_SIM_TEST_SCRIPT", "true");
    let output = need!(command.output().ok(), "no unshare (util-linux)");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(99), "{said}");
    assert!(said.contains("unshare(CLONE_NEWUSER | CLONE_NEWNS)"), "{said}");
    assert!(said.contains("/proc/sys/user/max_user_namespaces is 0"), "{said}");
    assert!(said.contains("run as root"), "{said}");
}

#[test]
fn an_ordinary_user_needs_no_root() {
    let machine = SimMachine::new().unwrap();
    let possible = each_way!(&machine).contains(&true).then_some(());
    need!(possible, "no user namespaces");
    let root = rustix::process::geteuid().is_root().then_some(());
    need!(root, "needs root, to become somebody else");
    let program = need!(Program::compile("kfd", &[]), "no C compiler");
    let mut command = helper_command(&format!("id -u; {} ask 0", program.path().display()));
    command.uid(65534).gid(65534).current_dir("/");
    let output = need!(command.output().ok(), "the test program is not readable by everybody");
    let seen = stdout(&output);
    assert!(seen.contains("65534\n") && seen.contains("version 1.23\n"), "{seen}");
}
