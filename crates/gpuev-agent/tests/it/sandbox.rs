//! The sandbox, from inside: what is entered cannot be left, so it is entered by a process of its own, which
//! is this test program again.

mod sinks;

use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use gpuev_agent::sandbox::{Plan, keep_only_sys_admin};

/// Tells the program that it is the one to enter, and where it may write.
const INSIDE: &str = "GPUEV_TEST_SANDBOX";

/// Runs the test `name` of this module in a process of its own, which finds itself to be [`inside`].
fn enter(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    fs::write(dir.path().join("secret"), "not for you").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("sandbox::{name}"), "--nocapture", "--test-threads=1"])
        .env(INSIDE, dir.path())
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

fn is_denied<T: std::fmt::Debug>(result: std::io::Result<T>) {
    let error = result.unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(1 | 13)), "it should be EPERM or EACCES: {error}");
}

fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn what_is_not_planned_fails_and_what_is_works() {
    let Some(dir) = inside() else {
        return enter("what_is_not_planned_fails_and_what_is_works");
    };
    let state = dir.join("state");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let taken = Plan::new().with_system_files().write(&state).bind(free).enter().unwrap();
    assert!(taken.to_string().starts_with("sandbox: no capabilities, system calls filtered"));

    // A thread that is started later is in it, too.
    std::thread::spawn(move || {
        nothing_is_executed();
        no_capability_is_left();
        odd_calls_are_refused();
        work_goes_on(&state, address);
        if taken.files {
            files_of_others_are_closed(&dir);
        }
        if taken.ports {
            is_denied(TcpListener::bind("127.0.0.1:1"));
            is_denied(TcpListener::bind("127.0.0.1:0"));
            TcpListener::bind(("127.0.0.1", free)).unwrap();
        }
    })
    .join()
    .unwrap();
    if std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_some() {
        assert!(taken.files, "a kernel with Landlock is required");
    }
}

fn nothing_is_executed() {
    is_denied(Command::new("/bin/true").status());
    is_denied(Command::new("/proc/self/exe").status());
}

fn no_capability_is_left() {
    for field in ["CapEff", "CapPrm", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status(field), 16), Ok(0), "{field}");
    }
    assert_eq!(status("NoNewPrivs"), "1");
    assert_eq!(status("Seccomp"), "2");
}

fn odd_calls_are_refused() {
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType};
    use rustix::process::{Pid, getppid};
    assert_eq!(rustix::process::chroot("/"), Err(Errno::PERM));
    assert_eq!(
        rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None).unwrap_err(),
        Errno::PERM
    );
    assert!(rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None).is_ok());
    let parent: Pid = getppid().unwrap();
    let spy = fs::read(format!("/proc/{}/environ", parent.as_raw_nonzero()));
    assert!(spy.is_err(), "it should not look into other processes");
}

/// What the agent does all day.
fn work_goes_on(state: &Path, address: std::net::SocketAddr) {
    let file = state.join("history.db");
    let mut open = File::create(&file).unwrap();
    open.write_all(b"facts").unwrap();
    open.sync_all().unwrap();
    fs::create_dir(state.join("spool")).unwrap();
    fs::rename(&file, state.join("spool/moved")).unwrap();
    assert_eq!(fs::read(state.join("spool/moved")).unwrap(), b"facts");
    fs::remove_dir_all(state.join("spool")).unwrap();
    assert!(fs::read_to_string("/proc/self/cgroup").is_ok());
    assert!(fs::read_dir("/sys/class").unwrap().count() > 0);
    TcpStream::connect(address).unwrap();
    let socket = state.join("agent.sock");
    UnixListener::bind(&socket).unwrap();
    fs::remove_file(socket).unwrap();
    UnixDatagram::unbound().unwrap();
    let pidfd = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    );
    assert!(pidfd.is_ok());
    assert!(std::time::Instant::now().elapsed() < std::time::Duration::MAX);
}

fn files_of_others_are_closed(dir: &Path) {
    is_denied(fs::read(dir.join("secret")));
    is_denied(fs::write(dir.join("new"), "x"));
    is_denied(fs::write("/etc/gpuev-test", "x"));
    is_denied(File::open("/dev/zero"));
    is_denied(fs::read_dir("/root"));
}

#[test]
fn a_program_that_is_planned_can_be_run_and_no_other() {
    let Some(dir) = inside() else {
        return enter("a_program_that_is_planned_can_be_run_and_no_other");
    };
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let loader_and_libraries = ["/lib", "/lib64", "/usr/lib"];
    let plan = Plan::new().with_system_files().write(dir.join("state")).execute(&shell);
    let taken = loader_and_libraries.iter().fold(plan, Plan::execute).enter().unwrap();
    let script = format!("echo done > {}/state/out", dir.display());
    assert!(Command::new(&shell).args(["-c", &script]).status().unwrap().success());
    assert_eq!(fs::read(dir.join("state/out")).unwrap(), b"done\n");
    if taken.files {
        is_denied(Command::new("/usr/bin/env").status());
    }
    // What it runs is in the same box.
    let spy = Command::new(&shell).args(["-c", "read x < /var/lib/dpkg/status"]).status().unwrap();
    assert!(!spy.success());
}

#[test]
fn the_keeper_keeps_one_capability_at_most() {
    if inside().is_none() {
        return enter("the_keeper_keeps_one_capability_at_most");
    }
    const SYS_ADMIN: u64 = 1 << 21;
    let had = u64::from_str_radix(&status("CapEff"), 16).unwrap();
    keep_only_sys_admin().unwrap();
    assert_eq!(u64::from_str_radix(&status("CapEff"), 16), Ok(had & SYS_ADMIN));
    assert_eq!(u64::from_str_radix(&status("CapPrm"), 16), Ok(had & SYS_ADMIN));
    assert_eq!(status("NoNewPrivs"), "1");
    // Again, with nothing left to give up.
    keep_only_sys_admin().unwrap();
}
