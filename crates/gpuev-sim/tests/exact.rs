//! Event files by FUSE: what the genuine driver was measured to do.
//!
//! The tests of event files as sockets are run once more on exact ones, by section; what only
//! exact files do stands below, named by the section and its statement. They need access to
//! `/dev/fuse`, and root or a user namespace. Where that is missing the tests are passed over,
//! unless `GPUEV_SIM_REQUIRE_ALL` is set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use gpuev_sim::run::Run;
use gpuev_sim::{Builder, Client, DriverEvent, Kernel, SimMachine};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

#[path = "it/client.rs"]
mod client;
#[path = "it/close.rs"]
mod close;
#[path = "it/files.rs"]
mod files;
#[path = "it/mask.rs"]
mod mask;
#[path = "it/overflow.rs"]
mod overflow;
#[path = "it/poll.rs"]
mod poll;
#[path = "it/read.rs"]
mod read;
#[path = "it/scope.rs"]
mod scope;

use client::{
    KERNELS, THERMAL, THERMAL_LINE, drain, flags, machine, open, open_all, read, readable,
    set_mask, state,
};

/// Whether there is FUSE for this user.
static POSSIBLE: LazyLock<bool> = LazyLock::new(|| {
    let Err(error) = SimMachine::builder().exact_files(true).build() else { return true };
    assert!(std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_none(), "{error}");
    eprintln!("passed over: {error}");
    false
});

/// How the machines of the tests in other files are made; those hold for sockets, too.
fn builder() -> Builder {
    SimMachine::builder().exact_files(*POSSIBLE)
}

fn written(file: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::io::write(file, bytes)
}

/// The errno of a `write()` from an address where nothing is.
fn write_from_nowhere(file: &OwnedFd) -> i32 {
    // SAFETY: the kernel checks the address, which is no memory of this process.
    let done = unsafe { libc::write(file.as_raw_fd(), std::ptr::without_provenance(8), 8) };
    assert_eq!(done, -1);
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

#[test]
fn section_3_an_empty_file_is_eagain_with_and_without_nonblock() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    for flag in [rustix::fs::OFlags::empty(), rustix::fs::OFlags::NONBLOCK] {
        rustix::fs::fcntl_setfl(&file, flag).unwrap();
        assert_eq!(read(&file, 8192), Err(Errno::AGAIN));
    }
    assert!(flags(&file).1.is_empty(), "no FD_CLOEXEC");
}

#[test]
fn section_3_a_read_returns_min_of_size_and_held_cut_anywhere() {
    if !*POSSIBLE {
        return;
    }
    for kernel in KERNELS {
        for size in [1, 8, 16, 64, 100, 1000, 8192, 1 << 20] {
            let machine = machine(kernel);
            let file = open_all(&machine, 0);
            for _ in 0..2000 {
                machine.emit(0, &THERMAL);
            }
            let capacity = kernel.fifo_bytes();
            assert_eq!(read(&file, size).unwrap().len(), size.min(capacity));
            let rest = drain(&file);
            assert_eq!(rest.len(), capacity - size.min(capacity));
            assert!(THERMAL_LINE.repeat(1024).ends_with(&rest));
        }
    }
}

#[test]
fn section_3_readv_is_a_row_of_reads() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    machine.emit(0, &THERMAL);
    let (mut first, mut second) = ([0; 3], [0; 100]);
    let mut buffers = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(rustix::io::readv(&file, &mut buffers), Ok(8));
    assert_eq!((&first, &second[..5]), (b"2 4", &b"00:7\n"[..]));
}

#[test]
fn section_3_the_oldest_driver_gives_8_bytes_a_read() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::Oldest);
    let file = open_all(&machine, 0);
    machine.emit(0, &DriverEvent::Thermal { throttlers: 0x12345, count: 9 });
    assert_eq!(read(&file, 8192).unwrap(), b"2 12345:");
    assert_eq!(read(&file, 3).unwrap(), b"9\n");
    assert_eq!(read(&file, 8192), Err(Errno::AGAIN));
}

#[test]
fn section_3_other_ioctls_are_enotty() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    assert_eq!(rustix::termios::tcgetattr(&file).err(), Some(Errno::NOTTY));
}

#[test]
fn section_4_less_than_8_bytes_is_efault_and_leaves_the_mask() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    for len in [1, 4, 7] {
        assert_eq!(written(&file, &vec![0; len]), Err(Errno::FAULT));
    }
    assert_eq!(write_from_nowhere(&file), libc::EFAULT);
    assert_eq!(machine.event_files()[0].mask, u64::MAX);
    machine.emit(0, &THERMAL);
    assert_eq!(drain(&file), THERMAL_LINE);
}

#[test]
fn section_4_of_more_bytes_the_first_8_are_used_and_8_returned() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let file = open(&machine, 0, &Client::root(), 0);
    for len in [9, 12, 16, 4096, 10_000] {
        set_mask(&file, 0);
        let mut bytes = vec![0xFF; len];
        bytes[..8].copy_from_slice(&2u64.to_ne_bytes());
        assert_eq!(written(&file, &bytes), Ok(8), "{len}");
        assert_eq!(machine.event_files()[0].mask, 2, "{len}");
    }
}

#[test]
fn section_4_a_write_all_sends_the_rest_as_a_new_mask() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let file = open(&machine, 0, &Client::root(), 0);
    let mut rest = &[2u64.to_ne_bytes(), 4u64.to_ne_bytes()].concat()[..];
    while !rest.is_empty() {
        rest = &rest[written(&file, rest).unwrap()..];
    }
    assert_eq!(machine.event_files()[0].mask, 4);
}

#[test]
fn section_5_a_full_file_holds_as_many_as_the_genuine_one() {
    if !*POSSIBLE {
        return;
    }
    for (kernel, bytes) in [(Kernel::V6_1, 1024), (Kernel::V7_3, 8192)] {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        for _ in 0..3000 {
            machine.emit(0, &THERMAL);
        }
        let stats = machine.event_files()[0];
        assert_eq!((stats.accepted_bytes, stats.dropped_lines), (bytes, 3000 - bytes / 8));
        assert_eq!(drain(&file).len() as u64, bytes);
    }
}

#[test]
fn section_6_it_is_readable_and_never_anything_else() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    let poll = || {
        let mut fds = [PollFd::new(&file, PollFlags::all())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)).unwrap();
        fds[0].revents()
    };
    assert_eq!(poll(), PollFlags::empty());
    machine.emit(0, &THERMAL);
    assert_eq!(poll().bits(), 0x41);
    read(&file, 7).unwrap();
    assert_eq!(poll().bits(), 0x41, "one byte is left");
    read(&file, 1).unwrap();
    assert_eq!(poll(), PollFlags::empty());
}

#[test]
fn a_gpu_that_goes_hangs_its_files_up() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    machine.emit(0, &THERMAL);
    machine.remove_gpu(0).unwrap();
    assert_eq!(drain(&file), THERMAL_LINE);
    assert_eq!(read(&file, 100), Ok(Vec::new()));
    assert!(state(&file).contains(PollFlags::HUP));
}

#[test]
fn a_machine_that_goes_fails_its_files() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    drop(machine);
    let error = read(&file, 100).unwrap_err();
    assert!([Errno::NOTCONN, Errno::CONNABORTED].contains(&error), "{error}");
    let bytes = u64::MAX.to_ne_bytes();
    assert!(rustix::io::writev(&file, &[IoSlice::new(&bytes)]).is_err());
}

/// The part of the next tests that runs in a process of its own: threads read, poll and write
/// masks without end, and the process ends, or is ended, in the middle of it.
#[test]
#[ignore = "a part of other tests"]
fn helper() {
    let Some(how) = std::env::var_os("GPUEV_SIM_TEST_HELPER") else { return };
    let machine = match SimMachine::builder().exact_files(true).build() {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(99);
        }
    };
    if how == "probe" {
        let file = open_all(&machine, 0);
        machine.emit(0, &THERMAL);
        assert!(readable(&file));
        assert_eq!(drain(&file), THERMAL_LINE);
        std::process::exit(0);
    }
    for _ in 0..3 {
        let file = open_all(&machine, 0);
        std::thread::spawn(move || {
            loop {
                state(&file);
                let _ = read(&file, 100);
                set_mask(&file, u64::MAX);
            }
        });
    }
    for _ in 0..100 {
        machine.emit(0, &THERMAL);
    }
    println!("busy");
    if how == "exit" {
        std::process::exit(7);
    }
    loop {
        machine.emit(0, &THERMAL);
    }
}

fn helper_command(how: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "helper", "--ignored", "--nocapture"]);
    command.env("GPUEV_SIM_TEST_HELPER", how).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[test]
fn a_process_in_the_middle_of_its_own_requests_can_exit() {
    if !*POSSIBLE {
        return;
    }
    for _ in 0..20 {
        let output = helper_command("exit").output().unwrap();
        assert_eq!(output.status.code(), Some(7));
    }
}

#[test]
fn a_process_in_the_middle_of_its_own_requests_can_be_killed() {
    use std::io::{BufRead, BufReader};
    if !*POSSIBLE {
        return;
    }
    for _ in 0..20 {
        let mut child = helper_command("loop").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("busy")));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}

/// Starts the helper in a user namespace that owns no mount namespace: as root there, it may not
/// mount and has to make namespaces of its own.
#[test]
fn whoever_may_not_mount_takes_a_user_namespace() {
    if !*POSSIBLE {
        return;
    }
    let helper = helper_command("probe");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(helper.get_program()).args(helper.get_args());
    command.env("GPUEV_SIM_TEST_HELPER", "probe");
    let Ok(output) = command.output() else { return eprintln!("passed over: no unshare") };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") {
        return eprintln!("passed over: {said}");
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn where_there_is_no_fuse_it_says_what_is_missing() {
    let mut command = Command::new("unshare");
    // A directory of our own in the place of /dev, in which there is no fuse.
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command
        .arg("mount -t tmpfs none /dev && exec \"$0\" --exact helper --ignored --nocapture 2>&1");
    command.arg(std::env::current_exe().unwrap()).env("GPUEV_SIM_TEST_HELPER", "probe");
    let Ok(output) = command.output() else { return eprintln!("passed over: no unshare") };
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() != Some(99) {
        return eprintln!("passed over: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(said.contains("exact event files need FUSE: open /dev/fuse: No such file"), "{said}");
    assert!(said.contains("modprobe fuse"), "{said}");
}

#[test]
fn programs_on_the_machine_get_exact_files_too() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let script = format!(
        "import fcntl, os, select, struct\n\
         kfd = os.open('/dev/kfd', os.O_RDWR)\n\
         args = bytearray(struct.pack('II', {}, 0))\n\
         fcntl.ioctl(kfd, 0xC0084B1F, args)\n\
         fd = struct.unpack('II', args)[1]\n\
         try: os.write(fd, b'1234')\n\
         except OSError as error: print(error.errno)\n\
         print(os.write(fd, struct.pack('QQ', 2, 0)), flush=True)\n\
         print(select.select([fd], [fd], [])[:2] == ([fd], []))\n\
         print(os.read(fd, 8192))\n",
        machine.kfd_gpu_id(0).unwrap()
    );
    for user_namespace in [false, true] {
        let mut command = Command::new("python3");
        command.args(["-c", &script]).stdout(Stdio::piped());
        let run = Run::new(&machine).user_namespace(user_namespace);
        let mut running = match run.spawn(command) {
            Ok(running) => running,
            Err(error) => return eprintln!("passed over: {error}"),
        };
        while !machine.event_files().iter().any(|file| !file.closed && file.mask == 2) {
            assert!(running.child().try_wait().unwrap().is_none(), "it ended early");
            std::thread::yield_now();
        }
        machine.emit(0, &THERMAL);
        let output = running.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, format!("{}\n8\nTrue\nb'2 400:7\\n'\n", libc::EFAULT));
    }
}

#[test]
fn a_read_that_fails_once_leaves_what_is_held() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::V7_3);
    let (file, other) = (open_all(&machine, 0), open_all(&machine, 1));
    machine.emit(0, &THERMAL);
    machine.emit(1, &THERMAL);
    for errno in [Errno::NOMEM, Errno::INTR] {
        machine.fail_next_read(0, errno.raw_os_error()).unwrap();
        assert_eq!(read(&file, 8192), Err(errno));
        assert!(readable(&file));
    }
    assert_eq!(read(&file, 8192).unwrap(), THERMAL_LINE.as_bytes());
    assert_eq!(read(&file, 8192), Err(Errno::AGAIN));
    assert_eq!(read(&other, 8192).unwrap(), THERMAL_LINE.as_bytes());
}

/// What AMD's patch does: the line with the number of drops is put in by the read that follows
/// them, for the next one, and wakes nobody.
#[test]
fn amd_s_own_driver_tells_of_drops_without_waking_anybody() {
    use rustix::event::epoll;
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::Dkms);
    let file = open_all(&machine, 0);
    let edges = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&edges, &file, epoll::EventData::new_u64(1), flags).unwrap();
    let edge = || {
        let mut ready = Vec::with_capacity(4);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&edges, rustix::buffer::spare_capacity(&mut ready), Some(&now)).unwrap()
    };
    machine.emit_batch(0, &vec![THERMAL; 1030]);
    assert_eq!(edge(), 1);
    assert_eq!(read(&file, 8192).unwrap().len(), 8192);
    assert_eq!(edge(), 0, "nobody is told that there is more");
    let told = String::from_utf8(read(&file, 8192).unwrap()).unwrap();
    assert!(told.starts_with("e ") && told.ends_with(" 6\n"), "{told}");
    machine.emit(0, &THERMAL);
    assert_eq!((edge(), drain(&file)), (1, THERMAL_LINE.to_owned()));
    let stats = machine.event_files()[0];
    assert_eq!((stats.accepted_lines, stats.dropped_lines, stats.drop_reports), (1026, 6, 1));
}

/// Until the drops are told of, whatever comes is dropped too, however much room there is.
#[test]
fn amd_s_own_driver_drops_until_it_has_told() {
    if !*POSSIBLE {
        return;
    }
    let machine = machine(Kernel::Dkms);
    let file = open_all(&machine, 0);
    machine.emit_batch(0, &vec![THERMAL; 1025]);
    // Too little room for the line: it waits for the next read.
    assert_eq!(read(&file, 8).unwrap().len(), 8);
    machine.emit(0, &THERMAL);
    let rest = drain(&file);
    assert_eq!(rest.matches(THERMAL_LINE).count(), 1023);
    assert!(rest.ends_with(" 2\n"), "{rest}");
    machine.emit(0, &THERMAL);
    assert_eq!(drain(&file), THERMAL_LINE);
}
