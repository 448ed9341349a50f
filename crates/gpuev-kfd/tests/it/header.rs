//! What this crate says equals what the C header says, where one is installed.

use std::io::Write;
use std::process::{Command, Stdio};

use gpuev_kfd::ioctl::{GET_VERSION, SMI_EVENTS};

const PROGRAM: &str = r#"
#include <linux/kfd_ioctl.h>
#include <stdio.h>
int main(void) {
    printf("%lu %lu %zu %zu %d\n", (unsigned long)AMDKFD_IOC_GET_VERSION,
           (unsigned long)AMDKFD_IOC_SMI_EVENTS, sizeof(struct kfd_ioctl_get_version_args),
           sizeof(struct kfd_ioctl_smi_events_args), KFD_SMI_EVENT_MSG_SIZE);
    return 0;
}
"#;

/// Needs a C compiler and the kernel's headers (`linux-libc-dev`); says so and passes without.
#[test]
fn ioctl_numbers_and_sizes_equal_the_kernels_header() {
    let program = std::env::temp_dir().join(format!("gpuev-header-{}", std::process::id()));
    let compiler = Command::new("cc")
        .args(["-x", "c", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut compiler) = compiler else {
        eprintln!("skipped: needs a C compiler");
        return;
    };
    compiler.stdin.take().unwrap().write_all(PROGRAM.as_bytes()).unwrap();
    if !compiler.wait().unwrap().success() {
        eprintln!("skipped: needs linux/kfd_ioctl.h with SMI events");
        return;
    }
    let output = Command::new(&program).output().unwrap().stdout;
    std::fs::remove_file(&program).unwrap();
    let expected = format!("{GET_VERSION} {SMI_EVENTS} 8 8 96\n");
    assert_eq!(String::from_utf8_lossy(&output), expected);
}
