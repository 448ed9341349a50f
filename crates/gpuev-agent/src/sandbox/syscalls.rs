//! System calls, by seccomp: what is not listed gives `EPERM`.
//!
//! The list is what a threaded program with files, sockets, timers and child processes uses (systemd's
//! `@system-service` without the calls for keys, priorities, users, NUMA and io_uring). Some are allowed with certain
//! arguments only: `ioctl` has no request of a GPU driver, `socket` no family but Unix, IP and the kernel's
//! announcements, `clone` makes no namespace.

use std::collections::BTreeMap;

use gpuev::{Error, ErrorKind, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Files and folders.
const FILES: &[i64] = &[
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Sockets, and waiting for anything.
const WAITING_AND_SOCKETS: &[i64] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_signalfd4,
    libc::SYS_socketpair,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
];

/// Memory, threads, time, signals, and what a process asks about itself.
const PROCESS: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_kill,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_memfd_create,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setitimer,
    libc::SYS_setrlimit,
    libc::SYS_setsid,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_settime,
    libc::SYS_times,
    libc::SYS_tkill,
    libc::SYS_uname,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// What x86-64 has besides, from the days before `*at`.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_inotify_init,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_signalfd,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utimes,
    libc::SYS_alarm,
    libc::SYS_creat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// To run a program that the plan names, and what ordinary programs and shells use: a folder and a process group of
/// their own, extended attributes (`ls`, `cp`), named pipes (`mkfifo`), their place in the scheduler. Those that the
/// agent starts are in this filter, too: they get no namespace, no other user and no device.
const EXECUTE: &[i64] = &[
    libc::SYS_chdir,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_getitimer,
    libc::SYS_getpriority,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_msync,
    libc::SYS_munlockall,
    libc::SYS_readahead,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_setaffinity,
    libc::SYS_setpgid,
    libc::SYS_tee,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime,
    libc::SYS_truncate,
    libc::SYS_vmsplice,
];

/// What x86-64 has besides: dash runs programs by `vfork`, older shells by `fork`.
#[cfg(target_arch = "x86_64")]
const EXECUTE_OLD: &[i64] =
    &[libc::SYS_chown, libc::SYS_fork, libc::SYS_lchown, libc::SYS_utime, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const EXECUTE_OLD: &[i64] = &[];

/// Requests that have nothing to do with a device.
const IOCTLS: [u64; 5] =
    [libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX, libc::TCGETS, libc::TIOCGWINSZ];

const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

const NAMESPACES: i32 = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// Puts the filters on all threads.
pub(super) fn restrict(may_execute: bool) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Io, format!("restrict system calls by seccomp: {error}"))
    };
    let clone3 = clone3_is_unknown().map_err(|error| failed(&error))?;
    let listed = only_what_is_listed(may_execute).map_err(|error| failed(&error))?;
    for filter in [clone3, listed] {
        seccompiler::apply_filter_all_threads(&filter).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// A filter cannot see the flags of `clone3`: without it the C library takes `clone`.
fn clone3_is_unknown() -> Built<BpfProgram> {
    let enosys = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let rules = Rules::from([(libc::SYS_clone3, Vec::new())]);
    SeccompFilter::new(rules, SeccompAction::Allow, enosys, ARCH)?.try_into()
}

fn only_what_is_listed(may_execute: bool) -> Built<BpfProgram> {
    let execute = if may_execute { [EXECUTE, EXECUTE_OLD].concat() } else { Vec::new() };
    let lists = [FILES, WAITING_AND_SOCKETS, PROCESS, OLD, &execute];
    let mut rules: Rules = lists.concat().into_iter().map(|call| (call, Vec::new())).collect();
    let one_of = |argument, values: &[u64]| -> Built<Vec<_>> {
        values
            .iter()
            .map(|value| {
                let is = SeccompCondition::new(
                    argument,
                    SeccompCmpArgLen::Dword,
                    SeccompCmpOp::Eq,
                    *value,
                )?;
                SeccompRule::new(vec![is])
            })
            .collect()
    };
    if may_execute {
        let kinds = [libc::S_IFREG, libc::S_IFIFO].map(u64::from);
        rules.insert(libc::SYS_mknodat, of_kind(2, &kinds)?);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_mknod, of_kind(1, &kinds)?);
    }
    rules.insert(libc::SYS_ioctl, one_of(1, &IOCTLS)?);
    rules.insert(libc::SYS_socket, one_of(0, &FAMILIES.map(|f| u64::from(f.unsigned_abs())))?);
    let namespaces = u64::from(NAMESPACES.unsigned_abs());
    let no_namespace =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(namespaces), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_namespace])?]);
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, eperm, SeccompAction::Allow, ARCH)?.try_into()
}

/// Where the file mode `argument` names one of these types of file.
fn of_kind(argument: u8, kinds: &[u64]) -> Built<Vec<SeccompRule>> {
    let mask = u64::from(libc::S_IFMT);
    let is = |kind: &u64| {
        let masked = SeccompCmpOp::MaskedEq(mask);
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, *kind)?;
        SeccompRule::new(vec![condition])
    };
    kinds.iter().map(is).collect()
}

type Built<T> = std::result::Result<T, seccompiler::BackendError>;
