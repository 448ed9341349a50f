//! Who is behind a pid, and what he uses.

use std::path::Path;
use std::time::Duration;

use gpuev::Comm;
use gpuev::health::{Bytes, Percent};
use gpuev::process::{Attribution, NameCache, PodQos, Processes, Resolution, Runtime};
use proptest::prelude::*;

use crate::tree::{Node, Tree};

const ID: &str = "4f5e3c2b1a09f8e7d6c5b4a3928170615f4e3d2c1b0a9f8e7d6c5b4a39281706";
const UID: &str = "3f2b9c1e-8a4d-4c6f-9b7a-0d1e2f3a4b5c";

/// A process with a name, and its pids from the outermost namespace in.
fn process(tree: &Tree, pids: &[u32], name: &str) {
    let dir = format!("proc/{}", pids[0]);
    tree.write(format!("{dir}/comm"), format!("{name}\n"));
    let inner: Vec<_> = pids.iter().map(u32::to_string).collect();
    let status =
        format!("Name:\t{name}\nUid:\t1000\t1000\t1000\t1000\nNSpid:\t{}\n", inner.join("\t"));
    tree.write(format!("{dir}/status"), status);
}

fn kfd(tree: &Tree, pid: u32) {
    tree.write(format!("sys/class/kfd/kfd/proc/{pid}/vram_1000"), "4096\n");
}

fn kernel(tree: &Tree, release: &str) {
    tree.write("proc/sys/kernel/osrelease", format!("{release}\n"));
}

fn open_file(tree: &Tree, pid: u32, fd: u32, target: &str, fdinfo: &str) {
    tree.link(format!("proc/{pid}/fd/{fd}"), target);
    tree.write(format!("proc/{pid}/fdinfo/{fd}"), fdinfo);
}

#[test]
fn a_process_is_described() {
    let tree = Tree::new();
    process(&tree, &[4242, 7], "python3");
    tree.write("proc/4242/cmdline", b"python3\0train.py\0\0--name=\xff\0");
    tree.write("proc/4242/stat", "4242 (a) b ) S 1 1 1 0 -1 4 0 0 0 0 5 6 0 0 20 0 1 0 181003 9 9");
    tree.write("proc/4242/cgroup", "0::/system.slice/ollama.service\n");
    tree.link("proc/4242/exe", "/usr/bin/python3.13");
    tree.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\n");
    let found = Processes::of(&tree.machine()).describe(4242).unwrap();
    assert_eq!(found.pid, 4242);
    assert_eq!(found.namespace_pids, [4242, 7]);
    assert_eq!(found.name, Comm::new(b"python3"));
    let command: [&[u8]; 4] = [b"python3", b"train.py", b"", b"--name=\xff"];
    assert_eq!(found.command, command);
    assert_eq!(found.exe.as_deref(), Some(Path::new("/usr/bin/python3.13")));
    assert_eq!((found.uid, found.user.as_deref()), (Some(1000), Some("ana")));
    assert_eq!(found.start_boot_ns, Some(1_810_030_000_000));
    assert_eq!(found.attribution.unit.as_deref(), Some("ollama.service"));
}

#[test]
fn a_process_that_hides_is_described_as_far_as_it_goes() {
    let tree = Tree::new();
    tree.write("proc/5/comm", "kworker\n");
    let processes = Processes::of(&tree.machine());
    let found = processes.describe(5).unwrap();
    assert!(found.command.is_empty());
    assert_eq!((found.uid, found.exe, found.start_boot_ns), (None, None, None));
    assert_eq!(processes.describe(6), None);
    assert_eq!(processes.name(6), None);
}

#[test]
fn a_name_keeps_its_own_newlines() {
    let tree = Tree::new();
    process(&tree, &[9], "a\n3 1 HWS\n");
    assert_eq!(Processes::of(&tree.machine()).name(9), Some(Comm::new(b"a\n3 1 HWS\n")));
    tree.write("proc/9/comm", b"\xff\xfe\n");
    assert_eq!(Processes::of(&tree.machine()).name(9), Some(Comm::new(b"\xff\xfe")));
}

#[test]
fn names_are_kept_for_a_second() {
    let tree = Tree::new();
    process(&tree, &[9], "old");
    let mut names = NameCache::new(&tree.machine());
    assert_eq!(names.name(9, 100), Comm::new(b"old"));
    tree.write("proc/9/comm", "new\n");
    assert_eq!(names.name(9, 1_000_000_099), Comm::new(b"old"));
    assert_eq!(names.look_up(9), Some(Comm::new(b"new")));
    assert_eq!(names.name(9, 1_000_000_100), Comm::new(b"new"));
    tree.remove("proc/9");
    names.forget(9);
    assert_eq!(names.name(9, 1_000_000_200), Comm::NONE);
    process(&tree, &[9], "again");
    assert_eq!(names.name(9, 1_000_000_300), Comm::NONE, "that there is none is kept as well");
    names.learn(9, Comm::new(b"told"), 1_000_000_400);
    assert_eq!(names.name(9, 1_000_000_500), Comm::new(b"told"));
    names.clear();
    assert_eq!(names.name(9, 1_000_000_600), Comm::new(b"again"));
}

#[test]
fn a_clock_that_runs_backwards_does_not_keep_a_name_for_ever() {
    let tree = Tree::new();
    process(&tree, &[9], "old");
    let mut names = NameCache::new(&tree.machine());
    names.name(9, u64::MAX);
    tree.write("proc/9/comm", "new\n");
    assert_eq!(names.name(9, 5), Comm::new(b"new"));
}

#[test]
fn pids_that_share_a_place_are_told_apart() {
    let tree = Tree::new();
    let mut names = NameCache::new(&tree.machine());
    let pids: Vec<u32> = (0..6).map(|n| 3 + n * 256).collect();
    for pid in &pids {
        process(&tree, &[*pid], &format!("p{pid}"));
    }
    for now in 0..3 {
        for pid in &pids {
            assert_eq!(names.name(*pid, now), Comm::new(format!("p{pid}").as_bytes()));
        }
    }
}

#[test]
fn older_kernels_carry_the_hosts_pids() {
    let tree = Tree::new();
    kernel(&tree, "6.12.95+deb12-amd64");
    process(&tree, &[140, 1], "python3");
    process(&tree, &[1], "systemd");
    let processes = Processes::of(&tree.machine());
    assert_eq!(processes.resolve(140, Comm::new(b"python3")), Resolution::Exact(140));
    assert_eq!(processes.resolve(140, Comm::NONE), Resolution::Exact(140));
    assert_eq!(processes.resolve(1, Comm::NONE), Resolution::Exact(1));
    // Renamed since, or the number is used again: nobody knows.
    let renamed = processes.resolve(140, Comm::new(b"other"));
    assert_eq!(renamed, Resolution::Candidates(vec![140]));
    assert_eq!(processes.resolve(141, Comm::NONE), Resolution::Unknown);
}

#[test]
fn newer_kernels_carry_the_containers_pids() {
    let tree = Tree::new();
    kernel(&tree, "7.2.13+deb14-amd64");
    process(&tree, &[1], "systemd");
    for (pid, name) in [(166, "python3"), (266, "train"), (366, "idle"), (466, "train")] {
        process(&tree, &[pid, 1], name);
    }
    // The last one computes nothing, so it causes no events.
    for pid in [166, 266, 366] {
        kfd(&tree, pid);
    }
    let processes = Processes::of(&tree.machine());
    assert_eq!(processes.resolve(1, Comm::new(b"train")), Resolution::Exact(266));
    assert_eq!(processes.resolve(1, Comm::NONE), Resolution::Candidates(vec![166, 266, 366]));
    let unknown = processes.resolve(1, Comm::new(b"gone"));
    assert_eq!(unknown, Resolution::Candidates(vec![166, 266, 366]));
    assert_eq!(processes.resolve(2, Comm::NONE), Resolution::Unknown);
    // Nor does a process that bears the number and computes nothing, init least of all.
    process(&tree, &[999, 77], "shell");
    assert_eq!(processes.resolve(77, Comm::NONE), Resolution::Unknown);
    kfd(&tree, 466);
    let twins = processes.resolve(1, Comm::new(b"train"));
    assert_eq!(twins, Resolution::Candidates(vec![266, 466]));
    for pid in [166, 266, 366, 466] {
        tree.remove(format!("sys/class/kfd/kfd/proc/{pid}"));
    }
    assert_eq!(processes.resolve(1, Comm::NONE), Resolution::Unknown);
    // Without a list of KFD, everybody comes into question.
    tree.remove("sys/class/kfd/kfd/proc");
    assert_eq!(processes.resolve(1, Comm::new(b"python3")), Resolution::Exact(166));
    let all = Resolution::Candidates(vec![1, 166, 266, 366, 466]);
    assert_eq!(processes.resolve(1, Comm::NONE), all);
}

#[test]
fn kernels_that_may_do_either_are_taken_to_do_both() {
    let tree = Tree::new();
    process(&tree, &[140, 1], "python3");
    process(&tree, &[150, 140], "train");
    for pid in [140, 150] {
        kfd(&tree, pid);
    }
    let processes = Processes::of(&tree.machine());
    for (release, version, expected) in [
        ("6.1.176", None, Resolution::Exact(140)),
        ("6.12.95", None, Resolution::Exact(140)),
        ("6.12.95", Some("6.14.14"), Resolution::Candidates(vec![140, 150])),
        ("5.14.0-570.12.1.el9_6.x86_64", None, Resolution::Candidates(vec![140, 150])),
        ("6.12.0-55.el10_0.x86_64", None, Resolution::Candidates(vec![140, 150])),
        ("6.16.0", None, Resolution::Candidates(vec![140, 150])),
        ("nonsense", None, Resolution::Candidates(vec![140, 150])),
    ] {
        kernel(&tree, release);
        if let Some(version) = version {
            tree.write("sys/module/amdgpu/version", version);
        }
        assert_eq!(processes.resolve(140, Comm::NONE), expected, "{release} {version:?}");
        if version.is_some() {
            tree.remove("sys/module/amdgpu/version");
        }
    }
}

#[test]
fn no_process_is_shown_under_the_name_of_another() {
    let tree = Tree::new();
    kernel(&tree, "7.2.13");
    process(&tree, &[1], "systemd");
    process(&tree, &[166, 1], "python3");
    process(&tree, &[20], "sshd");
    tree.write("sys/class/kfd/kfd/proc/.keep", "");
    let mut names = NameCache::new(&tree.machine());
    assert_eq!(names.name(1, 0), Comm::NONE, "init computes nothing");
    assert_eq!(names.name(20, 0), Comm::NONE);
    assert_eq!(names.look_up(1), None);
    kfd(&tree, 166);
    assert_eq!(names.look_up(1), Some(Comm::new(b"python3")));
    assert_eq!(names.name(1, 0), Comm::NONE, "kept for a second");
    assert_eq!(names.name(1, 1_000_000_000), Comm::new(b"python3"));
    assert_eq!(names.name(166, 1_000_000_000), Comm::new(b"python3"));
    // Another container's first process: as long as it is called so too, the name is right.
    process(&tree, &[266, 1], "python3");
    kfd(&tree, 266);
    assert_eq!(names.look_up(1), Some(Comm::new(b"python3")));
    tree.write("proc/266/comm", "train\n");
    assert_eq!(names.look_up(1), None);
    tree.remove("proc/266");
    assert_eq!(names.look_up(1), Some(Comm::new(b"python3")), "what is gone has no number inside");
}

#[test]
fn a_new_process_has_a_name_at_once() {
    let tree = Tree::new();
    process(&tree, &[10], "first");
    kfd(&tree, 10);
    let mut names = NameCache::new(&tree.machine());
    assert_eq!(names.name(10, 5), Comm::new(b"first"));
    process(&tree, &[11], "second");
    kfd(&tree, 11);
    assert_eq!(names.name(11, 6), Comm::new(b"second"));
}

#[test]
fn a_container_has_other_numbers_than_the_driver() {
    let tree = Tree::new();
    process(&tree, &[7], "python3");
    kfd(&tree, 7);
    tree.link("proc/self/ns/pid", "pid:[4026532999]");
    tree.write("proc/self/status", "NSpid:\t7\n");
    let machine = tree.machine();
    assert_eq!(NameCache::new(&machine).name(7, 0), Comm::NONE);
    let resolve = |pid| Processes::of(&machine).resolve(pid, Comm::NONE);
    assert_eq!(resolve(7), Resolution::Candidates(vec![7]));
    assert_eq!(resolve(8), Resolution::Unknown);
    // The machine's own `/proc`, mounted in a container.
    tree.write("proc/self/status", "NSpid:\t4242\t7\n");
    assert_eq!(NameCache::new(&machine).name(7, 0), Comm::new(b"python3"));
    tree.remove("proc/self/ns/pid");
    tree.link("proc/self/ns/pid", "pid:[4026531836]");
    tree.write("proc/self/status", "NSpid:\t7\n");
    assert_eq!(resolve(7), Resolution::Exact(7));
}

/// A thread of the process `pid`, as `/proc` shows it.
fn thread(tree: &Tree, tid: u32, pid: u32) {
    tree.write(format!("proc/{tid}/status"), format!("Tgid:\t{pid}\nNSpid:\t{tid}\n"));
}

#[test]
fn the_number_of_a_thread_stands_for_its_process() {
    let tree = Tree::new();
    kernel(&tree, "7.2.13");
    process(&tree, &[400, 20], "python3");
    kfd(&tree, 400);
    thread(&tree, 401, 400);
    thread(&tree, 400, 400);
    thread(&tree, 501, 500);
    let resolve = |tid| Processes::of(&tree.machine()).resolve_thread(tid);
    assert_eq!(resolve(401), Resolution::Exact(400));
    assert_eq!(resolve(400), Resolution::Exact(400));
    assert_eq!(resolve(501), Resolution::Unknown, "its process computes nothing");
    assert_eq!(resolve(20), Resolution::Unknown, "the number within a container");
    assert_eq!(resolve(402), Resolution::Unknown);
    // A container's `/proc` has other numbers than the driver.
    tree.link("proc/self/ns/pid", "pid:[4026532000]");
    tree.write("proc/self/status", "NSpid:\t7\n");
    assert_eq!(resolve(401), Resolution::Unknown);
}

#[test]
fn an_event_may_name_a_thread() {
    let tree = Tree::new();
    kernel(&tree, "7.3.4");
    process(&tree, &[300, 20], "python3");
    process(&tree, &[400, 20], "python3");
    kfd(&tree, 300);
    kfd(&tree, 400);
    tree.write("proc/400/task/401/comm", "pt_autograd_0\n");
    let processes = Processes::of(&tree.machine());
    assert_eq!(processes.resolve(20, Comm::new(b"pt_autograd_0")), Resolution::Exact(400));
}

#[test]
fn slurm_jobs() {
    for (path, job, step, task) in [
        ("/slurm/uid_1000/job_123/step_0/task_3", 123, Some("0"), Some("3")),
        ("/slurm_node7/uid_1000/job_8/step_batch", 8, Some("batch"), None),
        (
            "/system.slice/slurmstepd.scope/job_123/step_batch/user/task_0",
            123,
            Some("batch"),
            Some("0"),
        ),
        (
            "/system.slice/node7_slurmstepd.scope/job_5/step_extern/user/task_special",
            5,
            Some("extern"),
            Some("special"),
        ),
        ("/slurm/uid_0/job_99", 99, None, None),
    ] {
        let slurm = Attribution::from_cgroup_path(path).slurm.unwrap();
        assert_eq!(slurm.job, job, "{path}");
        assert_eq!((slurm.step.as_deref(), slurm.task.as_deref()), (step, task), "{path}");
    }
    for path in ["/system.slice/slurmd.service", "/job_1/step_0", "/slurm/job_x/step_0", "/"] {
        assert_eq!(Attribution::from_cgroup_path(path).slurm, None, "{path}");
    }
}

#[test]
fn kubernetes_pods() {
    let under = UID.replace('-', "_");
    let plain = "0123456789abcdef0123456789abcdef";
    for (path, uid, qos, runtime) in [
        (format!("/kubepods/burstable/pod{UID}/{ID}"), UID, PodQos::Burstable, None),
        (format!("/kubepods/pod{UID}/{ID}"), UID, PodQos::Guaranteed, None),
        (format!("/kubepods/besteffort/pod{plain}/{ID}"), plain, PodQos::BestEffort, None),
        (
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"
            ),
            UID,
            PodQos::Burstable,
            Some(Runtime::Containerd),
        ),
        (
            format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope"),
            UID,
            PodQos::Guaranteed,
            Some(Runtime::CriO),
        ),
        (
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{under}.slice/docker-{ID}.scope"
            ),
            UID,
            PodQos::BestEffort,
            Some(Runtime::Docker),
        ),
        (
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{ID}"
            ),
            UID,
            PodQos::Burstable,
            Some(Runtime::Containerd),
        ),
    ] {
        let found = Attribution::from_cgroup_path(&path);
        let pod = found.kubernetes.unwrap();
        assert_eq!((pod.uid.as_str(), pod.qos), (uid, qos), "{path}");
        let container = found.container.unwrap();
        assert_eq!((container.id.as_str(), container.runtime), (ID, runtime), "{path}");
    }
}

#[test]
fn containers_and_units() {
    let rootless = format!(
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
    );
    for (path, runtime, unit, user_unit) in [
        (
            format!("/system.slice/docker-{ID}.scope"),
            Some(Runtime::Docker),
            Some(format!("docker-{ID}.scope")),
            None,
        ),
        (format!("/docker/{ID}"), Some(Runtime::Docker), None, None),
        (
            format!("/machine.slice/libpod-{ID}.scope/container"),
            Some(Runtime::Podman),
            Some(format!("libpod-{ID}.scope")),
            None,
        ),
        (
            rootless,
            Some(Runtime::Podman),
            Some("user@1000.service".to_owned()),
            Some(format!("libpod-{ID}.scope")),
        ),
    ] {
        let found = Attribution::from_cgroup_path(&path);
        let container = found.container.unwrap();
        assert_eq!((container.id.as_str(), container.runtime), (ID, runtime), "{path}");
        assert_eq!((found.unit, found.user_unit), (unit, user_unit), "{path}");
        assert_eq!(found.kubernetes, None);
    }
    let conmon = format!("/machine.slice/libpod-conmon-{ID}.scope");
    assert_eq!(Attribution::from_cgroup_path(&conmon).container, None);
    let session = Attribution::from_cgroup_path("/user.slice/user-1000.slice/session-3.scope");
    assert_eq!(session.unit.as_deref(), Some("session-3.scope"));
    let app = "/user.slice/user-1000.slice/user@1000.service/app.slice/jupyter.service";
    assert_eq!(Attribution::from_cgroup_path(app).user_unit.as_deref(), Some("jupyter.service"));
}

#[test]
fn version_1_has_many_lines() {
    let text = "12:memory:/slurm/uid_1000/job_7/step_1/task_2\n11:cpu,cpuacct:/\n\
                1:name=systemd:/system.slice/slurmd.service\n0::/\n";
    let found = Attribution::from_cgroup_file(text);
    assert_eq!(found.slurm.unwrap().job, 7);
    assert_eq!(found.unit.as_deref(), Some("slurmd.service"));
    assert_eq!(found.cgroup.as_deref(), Some("/system.slice/slurmd.service"));
    assert_eq!(Attribution::from_cgroup_file("0::/\n").cgroup.as_deref(), Some("/"));
    assert_eq!(Attribution::from_cgroup_file(""), Attribution::default());
}

#[test]
fn compute_processes() {
    let tree = Tree::new();
    let dir = "sys/class/kfd/kfd/proc/4242";
    for (file, content) in [
        ("vram_2000", "8192"),
        ("vram_1000", "1073741824"),
        ("sdma_1000", "1500"),
        ("stats_1000/evicted_ms", "20"),
        ("stats_1000/cu_occupancy", "152"),
        ("counters_1000/faults", "5"),
        ("counters_1000/page_in", "6"),
        ("counters_1000/page_out", "7"),
        ("queues/0/gpuid", "1000"),
        ("queues/3/gpuid", "1000"),
        ("pasid", "32770"),
    ] {
        tree.write(format!("{dir}/{file}"), format!("{content}\n"));
    }
    tree.gpu(0);
    let gpu = &tree.machine().gpus().unwrap()[0];
    let processes = Processes::of(&tree.machine());
    assert_eq!(processes.sdma_busy(4242, gpu), Some(Duration::from_micros(1500)));
    assert_eq!(processes.sdma_busy(1, gpu), None);
    let found = processes.kfd();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].pid, found[0].queues), (4242, 2));
    let first = &found[0].gpus[0];
    assert_eq!((first.kfd_id, first.vram), (1000, Some(Bytes(1 << 30))));
    assert_eq!(first.evicted, Some(Duration::from_millis(20)));
    assert_eq!(first.busy_compute_units, Some(152));
    let pages = first.pages.unwrap();
    assert_eq!((pages.faults, pages.page_in, pages.page_out), (5, 6, 7));
    let second = &found[0].gpus[1];
    assert_eq!((second.kfd_id, second.vram, second.pages), (2000, Some(Bytes(8192)), None));
    assert!(Processes::of(&Tree::bare().machine()).kfd().is_empty());
}

#[test]
fn a_process_is_all_its_contexts() {
    let tree = Tree::new();
    let properties = "location_id 768\nsimd_count 160\nsimd_per_cu 4\ndrm_render_minor 128\n";
    tree.write("sys/class/kfd/kfd/topology/nodes/1/gpu_id", "1000\n");
    tree.write("sys/class/kfd/kfd/topology/nodes/1/properties", properties);
    process(&tree, &[8123], "multi_ctx");
    for (file, content) in [
        ("vram_1000", "1073741824"),
        ("sdma_1000", "5"),
        ("stats_1000/cu_occupancy", "10"),
        ("stats_1000/evicted_ms", "0"),
        ("queues/0/type", "0"),
        ("context_0/vram_1000", "2147483648"),
        ("context_0/sdma_1000", "7"),
        ("context_0/stats_1000/cu_occupancy", "20"),
        ("context_0/stats_1000/evicted_ms", "5"),
        ("context_0/queues/0/type", "0"),
        ("context_0/queues/1/type", "0"),
        ("context_12/vram_2000", "4096"),
        ("context_none/vram_1000", "1"),
    ] {
        tree.write(format!("sys/class/kfd/kfd/proc/8123/{file}"), format!("{content}\n"));
    }
    let processes = Processes::of(&tree.machine());
    let found = &processes.kfd()[0];
    assert_eq!(found.queues, 3);
    assert_eq!(found.gpus[0].vram, Some(Bytes(3 << 30)));
    assert_eq!(found.gpus[0].evicted, Some(Duration::from_millis(5)));
    assert_eq!((found.gpus[1].kfd_id, found.gpus[1].vram), (2000, Some(Bytes(4096))));
    let gpu = &tree.machine().gpus().unwrap()[0];
    assert_eq!(processes.sdma_busy(8123, gpu), Some(Duration::from_micros(12)));
    let user = &processes.using(gpu)[0];
    assert_eq!((user.memory.vram, user.compute_occupancy), (Bytes(3 << 30), Some(Percent(75))));
}

#[test]
fn a_bystander_in_a_container_has_nothing_of_another_process() {
    let tree = Tree::new();
    tree.gpu(0);
    process(&tree, &[7], "bash");
    kfd(&tree, 7);
    let using = || {
        let machine = tree.machine();
        Processes::of(&machine).using(&machine.gpus().unwrap()[0])
    };
    assert_eq!(using()[0].memory.vram, Bytes(4096));
    // `/proc` has a container's numbers, KFD's list the machine's.
    tree.link("proc/self/ns/pid", "pid:[4026532000]");
    tree.write("proc/self/status", "NSpid:\t7\n");
    assert!(using().is_empty(), "{:?}", using());
}

#[test]
fn who_is_hidden_from_us_is_known_by_kfd() {
    let tree = Tree::new();
    tree.gpu(0);
    kfd(&tree, 4242);
    let machine = tree.machine();
    let users = Processes::of(&machine).using(&machine.gpus().unwrap()[0]);
    assert_eq!(
        (users[0].pid, users[0].name, users[0].memory.vram),
        (4242, Comm::NONE, Bytes(4096))
    );
}

fn fdinfo(bdf: &str, client: u64, vram_kib: u64) -> String {
    format!(
        "pos:\t0\nflags:\t02100002\ndrm-driver:\tamdgpu\ndrm-client-id:\t{client}\ndrm-pdev:\t{bdf}\n\
         pasid:\t32771\ndrm-memory-vram:\t{vram_kib} KiB\ndrm-memory-gtt: \t16 KiB\n\
         drm-memory-cpu: \t4 KiB\ndrm-engine-capacity-gfx:\t1\ndrm-engine-gfx:\t1500 ns\n\
         drm-engine-enc:\t70 ns\n"
    )
}

#[test]
fn who_uses_a_gpu() {
    let tree = Tree::new();
    tree.gpu(0);
    tree.gpu(1);
    let (first, second) = ("0000:03:00.0", "0000:04:00.0");
    for (pid, name) in [(10, "train"), (20, "blender"), (30, "shell"), (40, "hidden")] {
        process(&tree, &[pid], name);
    }
    open_file(&tree, 10, 3, "/dev/dri/renderD128", &fdinfo(first, 1, 100));
    // One file, two descriptors; another file; another GPU.
    open_file(&tree, 10, 4, "/dev/dri/renderD128", &fdinfo(first, 1, 100));
    open_file(&tree, 10, 5, "/dev/dri/card1", &fdinfo(first, 2, 20));
    open_file(&tree, 10, 6, "/dev/dri/renderD129", &fdinfo(second, 3, 999));
    open_file(&tree, 20, 3, "/dev/dri/renderD129", &fdinfo(second, 4, 7));
    open_file(&tree, 30, 3, "/dev/null", &fdinfo(first, 5, 1));
    let kfd = "sys/class/kfd/kfd/proc";
    tree.write(format!("{kfd}/10/vram_1000"), "4096\n");
    tree.write(format!("{kfd}/10/stats_1000/cu_occupancy"), "152\n");
    tree.write(format!("{kfd}/40/vram_1000"), "1048576\n");
    // KFD lists every process under every GPU.
    tree.write(format!("{kfd}/30/vram_1000"), "0\n");
    let gpus = tree.machine().gpus().unwrap();
    let processes = Processes::of(&tree.machine());
    let using = processes.using(&gpus[0]);
    let pids: Vec<_> = using.iter().map(|process| process.pid).collect();
    assert_eq!(pids, [10, 40]);
    let train = &using[0];
    assert_eq!(train.name, Comm::new(b"train"));
    assert_eq!(train.memory.vram, Bytes(120 << 10));
    assert_eq!(train.memory.gtt, Bytes(32 << 10));
    assert_eq!(train.memory.cpu, Bytes(8 << 10));
    assert_eq!(train.engine("gfx"), Duration::from_nanos(3000));
    assert_eq!(train.engine("enc"), Duration::from_nanos(140));
    assert_eq!(train.engine("dec"), Duration::ZERO);
    assert_eq!(train.engines.len(), 2);
    assert_eq!(train.compute_occupancy, Some(Percent(50)));
    assert_eq!(using[1].memory.vram, Bytes(1 << 20), "KFD tells where fdinfo may not be read");
    let pids: Vec<_> = processes.using(&gpus[1]).iter().map(|process| process.pid).collect();
    assert_eq!(pids, [10, 20]);
}

#[test]
fn partitions_are_told_apart_by_their_render_nodes() {
    let tree = Tree::new();
    tree.gpu(0);
    for part in 0..2 {
        let (node, gpu_id) = (1 + part, 50 + part);
        let (location_id, render_minor) = (0x300 | part, 128 + part);
        tree.node(Node { node, gpu_id, location_id, render_minor, unique_id: 1 });
    }
    process(&tree, &[10], "a");
    process(&tree, &[20], "b");
    open_file(&tree, 10, 3, "/dev/dri/renderD128", &fdinfo("0000:03:00.0", 1, 1));
    open_file(&tree, 20, 3, "/dev/dri/renderD129", &fdinfo("0000:03:00.0", 2, 1));
    let gpus = tree.machine().gpus().unwrap();
    let processes = Processes::of(&tree.machine());
    for (gpu, pid) in gpus.iter().zip([10, 20]) {
        let pids: Vec<_> = processes.using(gpu).iter().map(|process| process.pid).collect();
        assert_eq!(pids, [pid]);
    }
}

#[test]
fn who_keeps_the_driver() {
    let tree = Tree::new();
    for (pid, name) in [(10, "exporter"), (20, "gpuev"), (30, "shell")] {
        process(&tree, &[pid], name);
    }
    open_file(&tree, 10, 3, "/dev/kfd", "");
    open_file(&tree, 20, 3, "anon_inode:kfd_smi_ev", "");
    open_file(&tree, 20, 4, "anon_inode:[kfd_smi_ev]", "");
    open_file(&tree, 30, 3, "/dev/kfd.old", "");
    let holders = Processes::of(&tree.machine()).holders();
    let found: Vec<_> =
        holders.found.iter().map(|h| (h.pid, h.name, h.devices, h.event_files)).collect();
    let expected = [(10, Comm::new(b"exporter"), 1, 0), (20, Comm::new(b"gpuev"), 0, 2)];
    assert_eq!(found, expected);
    assert_eq!(holders.hidden, 0);
}

#[test]
fn this_process_on_this_machine() {
    let processes = Processes::of(&gpuev::Machine::host());
    let found = processes.describe(std::process::id()).unwrap();
    assert!(!found.command.is_empty() && found.exe.is_some() && found.start_boot_ns.is_some());
    assert_eq!(found.namespace_pids.first(), Some(&std::process::id()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_cgroup_is_read(text in "([0-9]:[a-z]*:|/|slurm|job_|step_|kubepods|pod|-|libpod|[0-9a-f]{64}|\\.scope|\n|[^a]){0,12}") {
        let _ = format!("{:?}", Attribution::from_cgroup_file(&text));
    }

    #[test]
    fn any_process_is_read(
        file in prop::sample::select(vec!["comm", "status", "stat", "cmdline", "cgroup", "fdinfo/3"]),
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let tree = Tree::new();
        tree.gpu(0);
        process(&tree, &[10], "a");
        open_file(&tree, 10, 3, "/dev/dri/renderD128", &fdinfo("0000:03:00.0", 1, 1));
        tree.write(format!("proc/10/{file}"), garbage);
        let processes = Processes::of(&tree.machine());
        prop_assert_eq!(processes.describe(10).unwrap().pid, 10);
        let gpu = &tree.machine().gpus().unwrap()[0];
        prop_assert!(processes.using(gpu).len() <= 1);
        let _ = processes.resolve(10, Comm::new(b"a"));
    }
}
