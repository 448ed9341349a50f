//! Any bytes decode without a panic, and encode to themselves again.

#![no_main]

use gpuev_kfd::{Fields, decode, names};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check(data);
    // The captures hold many lines: each is a seed of its own.
    for line in data.split(|&byte| byte == b'\n') {
        check(line);
    }
});

fn check(line: &[u8]) {
    let record = decode(line);
    let mut encoded = Vec::with_capacity(line.len());
    record.encode(&mut encoded);
    assert_eq!(encoded, line, "{record:?}");

    assert!(record.stamp().is_none() || record.task().is_none(), "a message has one shape");
    match record.fields {
        Fields::Unknown { line: kept, .. } => assert_eq!(kept, line),
        _ => assert!(record.event_type().is_some(), "{record:?}"),
    }
    look_up_names(&record.fields);
}

/// The tables take any number and any text.
fn look_up_names(fields: &Fields<'_>) {
    match *fields {
        Fields::ThermalThrottle { throttlers, .. } => {
            let named = names::throttlers(throttlers).count();
            let unnamed = names::unnamed_throttlers(throttlers).count_ones();
            assert_eq!(named + unnamed as usize, throttlers.count_ones() as usize);
        }
        Fields::GpuPreReset(reset) | Fields::GpuPostReset(reset) => {
            let _name = reset.cause.and_then(names::reset_cause);
        }
        Fields::MigrateStart { trigger, .. } | Fields::MigrateEnd { trigger, .. } => {
            let _name = names::migrate_trigger(trigger);
        }
        Fields::QueueEviction { trigger, .. } => {
            let _name = names::eviction_trigger(trigger);
        }
        Fields::UnmapFromGpu { trigger, .. } => {
            let _name = names::unmap_trigger(trigger);
        }
        _ => {}
    }
}
