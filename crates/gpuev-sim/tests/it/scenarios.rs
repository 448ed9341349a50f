//! Stories: repeatable, plausible, in time, and with the truth about them.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::time::Duration;

use gpuev_sim::{
    Client, DriverEvent, Kernel, Scenario, ScenarioEvent, SimMachine, SpanKind, Story, Truth,
};

use crate::client::{drain, open};

fn some(story: Story) -> Vec<ScenarioEvent> {
    Scenario::new(story).seed(3).count(20_000).events(4).collect()
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for story in Story::ALL {
        assert_eq!(some(story), some(story));
        let other: Vec<_> = Scenario::new(story).seed(4).count(20_000).events(4).collect();
        assert!(story == Story::Idle || other != some(story), "{story:?}");
    }
}

#[test]
fn each_story_is_about_what_it_says() {
    let about: [(Story, &[u32]); 9] = [
        (Story::Idle, &[]),
        (Story::Thermal, &[2, 12]),
        (Story::Reset, &[3, 4, 12]),
        (Story::FaultStorm, &[1, 5, 6, 7, 8, 12]),
        (Story::MigrationThrash, &[5, 6, 11, 12]),
        (Story::EvictionCascade, &[9, 10, 12]),
        (Story::Training, &[2, 5, 6, 7, 8, 9, 10, 11, 12]),
        (Story::CrashLoop, &[1, 12]),
        (Story::Mixed, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ];
    for (story, ids) in about {
        let seen: HashSet<u32> = some(story).iter().map(|one| one.event.id()).collect();
        // Whether anybody's life ends in time is left to chance.
        let seen: HashSet<u32> = seen.into_iter().filter(|id| *id != 13).collect();
        assert_eq!(seen, ids.iter().copied().collect(), "{story:?}");
    }
}

#[test]
fn time_goes_forwards_and_starts_have_one_end() {
    for story in Story::ALL {
        let events = some(story);
        assert!(events.windows(2).all(|pair| pair[0].at_ns <= pair[1].at_ns));
        let mut open = HashSet::new();
        for one in &events {
            let pid = one.event.pid().map(|pid| pid.host);
            let (key, starts) = match one.event {
                DriverEvent::PreReset { sequence, .. } => ((3, u64::from(sequence)), true),
                DriverEvent::PostReset { sequence, .. } => ((3, u64::from(sequence)), false),
                DriverEvent::MigrateStart { page, .. } => ((5, page), true),
                DriverEvent::MigrateEnd { page, .. } => ((5, page), false),
                DriverEvent::PageFaultStart { page, .. } => ((7, page), true),
                DriverEvent::PageFaultEnd { page, .. } => ((7, page), false),
                DriverEvent::ProcessStart { .. } => ((12, 0), true),
                DriverEvent::ProcessEnd { .. } => ((12, 0), false),
                _ => continue,
            };
            let key = (one.gpu, pid, key);
            let fits = if starts { open.insert(key) } else { open.remove(&key) };
            assert!(fits, "{story:?}: {one:?}");
        }
    }
}

/// A process does nothing before it starts and after it ended.
#[test]
fn processes_act_while_they_live() {
    for story in Story::ALL {
        let mut alive = HashSet::new();
        for one in some(story) {
            let Some(pid) = one.event.pid() else { continue };
            match one.event {
                DriverEvent::ProcessStart { .. } => assert!(alive.insert((one.gpu, pid))),
                DriverEvent::ProcessEnd { .. } => assert!(alive.remove(&(one.gpu, pid))),
                event => assert!(alive.contains(&(one.gpu, pid)), "{story:?}: {event:?}"),
            }
        }
    }
}

/// Hundreds of short lines that a reader finds at once, more than it hands out at a time.
#[test]
fn a_burst_becomes_readable_at_once() {
    let machine = SimMachine::builder().gpus(2).build().unwrap();
    let files: Vec<_> = (0..2).map(|gpu| open(&machine, gpu, &Client::root(), u64::MAX)).collect();
    let crashes = Scenario::new(Story::CrashLoop).rate(1_000).burst(800).count(1_600);
    let mut at: Vec<u64> = crashes.events(2).map(|one| one.at_ns).collect();
    assert_eq!((at[0], at[799], at[800], at[1_599]), (0, 0, 800_000_000, 800_000_000));
    at.dedup();
    assert_eq!(at.len(), 2);
    let truth = machine.play(crashes.count(800)).unwrap().join();
    assert_eq!(truth.total(), 800);
    for (gpu, file) in files.iter().enumerate() {
        let text = drain(file);
        let lines = truth.count(gpu, 1) + truth.count(gpu, 12) + truth.count(gpu, 13);
        assert_eq!(text.lines().count() as u64, lines);
        assert!(lines > 256 && text.len() < 22 * text.lines().count());
    }
    // The pace of a story without a rate is its own, in steps.
    let own: Vec<u64> = crashes_at_own_pace().map(|one| one.at_ns).collect();
    assert!(own.chunks(100).all(|burst| burst.iter().all(|at| *at == burst[0])));
    assert!(own[100] > own[0]);
}

fn crashes_at_own_pace() -> impl Iterator<Item = ScenarioEvent> {
    Scenario::new(Story::CrashLoop).burst(100).count(1_000).events(1)
}

#[test]
fn migrations_fail_and_restores_are_tried_again() {
    let thrash = some(Story::MigrationThrash);
    let failed = |one: &ScenarioEvent| matches!(one.event, DriverEvent::MigrateEnd { error, .. } if error == -12);
    assert!(thrash.iter().any(failed));
    let cascade = some(Story::EvictionCascade);
    let again = |one: &ScenarioEvent| {
        matches!(one.event, DriverEvent::QueueRestore { rescheduled: true, .. })
    };
    assert!(cascade.iter().any(again));
    let truth = Truth::of(cascade);
    let tried = |span: &gpuev_sim::SpanTruth| matches!(span.kind, SpanKind::Eviction { rescheduled, .. } if rescheduled > 0);
    assert!(truth.spans.iter().any(tried));
}

#[test]
fn partitions_of_a_gpu_are_reset_together() {
    let machine = SimMachine::builder().gpus(2).partitions(4).build().unwrap();
    let files: Vec<_> = (0..8).map(|gpu| open(&machine, gpu, &Client::root(), 0b1100)).collect();
    let truth = machine.play(Scenario::new(Story::Reset).rate(100_000).count(500)).unwrap().join();
    let lines: Vec<String> = files.iter().map(drain).collect();
    for first in [0, 4] {
        assert!(truth.count(first, 3) > 0);
        let resets = |gpu: usize| lines[gpu].lines().filter(|line| line.starts_with("3 "));
        for partition in first + 1..first + 4 {
            // The count of events may end the story between two partitions.
            let told = resets(partition).count();
            assert!(told + 1 >= resets(first).count());
            assert!(resets(partition).eq(resets(first).take(told)));
        }
    }
}

#[test]
fn a_rate_spaces_events_evenly_and_a_length_ends_them() {
    let scenario = Scenario::by_name("mixed").unwrap().rate(1_000_000).count(1000);
    let times: Vec<u64> = scenario.events(2).map(|one| one.at_ns).collect();
    assert!(times.iter().enumerate().all(|(place, at)| *at == place as u64 * 1000));
    assert_eq!(times.len(), 1000);
    let scenario = Scenario::by_name("mixed").unwrap().rate(1000).duration(Duration::from_secs(2));
    assert_eq!(scenario.events(1).count(), 2000);
    assert_eq!(Scenario::new(Story::Mixed).count(10).events(0).count(), 0, "no GPU, no story");
}

#[test]
fn unknown_names_are_told_what_there_is() {
    let error = Scenario::by_name("fire").unwrap_err().to_string();
    assert!(Scenario::names().all(|name| error.contains(name)), "{error}");
    assert_eq!("training".parse::<Scenario>().unwrap().story(), Story::Training);
}

/// Every line that was written is one that the truth tells of, with the same stamp.
#[test]
fn what_is_played_is_what_was_told() {
    for kernel in [Kernel::V6_1, Kernel::V7_3] {
        let machine = SimMachine::builder().gpus(2).kernel(kernel).build().unwrap();
        let files: Vec<_> =
            (0..2).map(|gpu| open(&machine, gpu, &Client::root(), u64::MAX)).collect();
        let player = machine.play(Scenario::new(Story::Mixed).rate(4_000).count(2_000)).unwrap();
        let mut text = vec![String::new(); 2];
        let mut over = false;
        while !over {
            over = player.is_finished();
            for (gpu, file) in files.iter().enumerate() {
                text[gpu] += &drain(file);
            }
        }
        let truth = player.join();
        let mut counts = BTreeMap::new();
        for (gpu, text) in text.iter().enumerate() {
            for line in text.lines() {
                let id = u32::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
                *counts.entry((gpu, id)).or_default() += 1;
            }
        }
        let dropped: u64 = machine.event_files().iter().map(|file| file.dropped_lines).sum();
        if dropped == 0 {
            assert_eq!(counts, truth.counts, "{kernel}");
        }
        let lines: u64 = counts.values().sum();
        assert_eq!(lines + dropped, truth.total(), "{kernel}");
        let faults = truth.spans.iter().filter(|span| matches!(span.kind, SpanKind::Fault { .. }));
        let told = faults.filter(|span| {
            text[span.gpu].contains(&format!("7 {} -{} @", span.start_ns, span.pid))
        });
        assert!(told.count() as u64 + dropped >= truth.count_of(7));
    }
}

#[test]
fn nothing_goes_unaccounted_when_nobody_reads() {
    let machine = SimMachine::builder().gpus(1).build().unwrap();
    let file = open(&machine, 0, &Client::root(), u64::MAX);
    let storm = Scenario::new(Story::FaultStorm).rate(1_000_000).count(50_000);
    let truth = machine.play(storm).unwrap().join();
    assert_eq!(truth.total(), 50_000);
    let stats = machine.event_files()[0];
    assert_eq!(stats.accepted_lines + stats.dropped_lines, 50_000);
    assert_eq!(drain(&file).len() as u64, stats.accepted_bytes);
}

#[test]
fn a_story_is_stopped_and_ends_when_it_says() {
    let machine = SimMachine::new().unwrap();
    let player = machine.play(Scenario::new(Story::Thermal)).unwrap();
    assert!(!player.is_finished());
    let _ = player.stop();
    drop(machine.play(Scenario::new(Story::Mixed).rate(100)).unwrap());
    let idle = Scenario::new(Story::Idle).duration(Duration::from_millis(30));
    assert_eq!(machine.play(idle).unwrap().join().total(), 0);
}

#[test]
fn sensors_and_processes_follow_the_story() {
    let machine = SimMachine::new().unwrap();
    let hot = Scenario::new(Story::Thermal).rate(5_000).count(20);
    let truth = machine.play(hot).unwrap().join();
    assert!(truth.count(0, 2) > 0);
    let read = |path: &str| fs::read_to_string(machine.root().join(path)).unwrap();
    let junction: i32 = read("sys/class/hwmon/hwmon2/temp2_input").trim().parse().unwrap();
    assert!(junction > 43_000, "{junction}");
    let process = truth.spans.iter().find(|span| matches!(span.kind, SpanKind::Process { .. }));
    let process = process.unwrap();
    let SpanKind::Process { comm } = process.kind else { unreachable!() };
    if process.end_ns.is_none() {
        let shown = fs::read(machine.root().join(format!("proc/{}/comm", process.pid))).unwrap();
        assert_eq!(shown, [comm.as_bytes(), b"\n"].concat());
    }
}

#[test]
fn an_old_driver_does_not_tell_of_a_migration_that_failed() {
    let scenario = Scenario::new(Story::MigrationThrash).rate(1_000_000).count(5_000);
    let all = Truth::of(scenario.events(1));
    for (kernel, ends) in [(Kernel::V7_3, true), (Kernel::V6_12, false)] {
        let machine = SimMachine::builder().kernel(kernel).build().unwrap();
        let truth = machine.play(scenario).unwrap().join();
        assert_eq!(truth.count(0, 5), all.count(0, 5));
        assert_eq!(truth.count(0, 6) == all.count(0, 6), ends, "{kernel}");
    }
}

#[test]
fn a_listener_hears_what_the_driver_writes_and_in_that_order() {
    let machine = SimMachine::builder().gpus(2).build().unwrap();
    let files: Vec<_> = (0..2).map(|gpu| open(&machine, gpu, &Client::root(), u64::MAX)).collect();
    let (tell, told) = std::sync::mpsc::channel();
    let story = Scenario::new(Story::Mixed).rate(10_000).count(60);
    let listener = move |raised: gpuev_sim::Raised<'_>| {
        tell.send((raised.gpu, raised.event.id(), raised.message.to_vec())).unwrap();
    };
    let truth = machine.play_telling(story, listener).unwrap().join();
    let told: Vec<_> = told.iter().collect();
    assert_eq!(told.len() as u64, truth.total());
    for (gpu, file) in files.iter().enumerate() {
        let messages = told.iter().filter(|one| one.0 == gpu).map(|one| one.2.as_slice());
        assert_eq!(drain(file).into_bytes(), messages.collect::<Vec<_>>().concat());
    }
    assert!(told.iter().all(|(_, id, message)| message.starts_with(format!("{id:x} ").as_bytes())));
}
