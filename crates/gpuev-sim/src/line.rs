//! Writing an event as the driver of a given kernel writes it (`kfd_smi_events.c`,
//! `KFD_EVENT_FMT_*` of `kfd_ioctl.h`).

use crate::event::{DriverEvent, Pid, ResetCause};
use crate::kernel::Kernel;

/// `KFD_SMI_EVENT_MSG_SIZE`: the driver's buffer for one message, its NUL included.
const MESSAGE_BYTES: usize = 96;

/// Room for the longest message any event can make, before the driver's buffer cuts it.
const LINE_BYTES: usize = 192;

/// What lies behind the driver's message buffer on its stack; drivers up to 7.2 send it when
/// a message is over-long. The first byte is that of a stack protector's canary.
const STACK: [u8; 32] = [
    0x00, 0xc3, 0x2a, 0x2b, 0xd4, 0x9b, 0xeb, 0x41, 0x00, 0x9c, 0xf0, 0x83, 0x05, 0x88, 0xff, 0xff,
    0x28, 0x5e, 0x11, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x60, 0x9c, 0xf0, 0x83, 0x05, 0x88, 0xff, 0xff,
];

/// One message under construction; never allocates.
pub(crate) struct Line {
    len: usize,
    bytes: [u8; LINE_BYTES],
}

impl Line {
    pub(crate) const fn new() -> Self {
        Line { len: 0, bytes: [0; LINE_BYTES] }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        let end = (self.len + text.len()).min(LINE_BYTES);
        let room = end - self.len;
        self.bytes[self.len..end].copy_from_slice(&text[..room]);
        self.len = end;
        self
    }

    fn dec(&mut self, value: impl Into<u64>) -> &mut Self {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = value.into();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.text(&digits[at..])
    }

    fn signed(&mut self, value: i32) -> &mut Self {
        if value < 0 {
            self.text(b"-");
        }
        self.dec(value.unsigned_abs())
    }

    fn hex(&mut self, value: impl Into<u64>) -> &mut Self {
        let mut digits = [0u8; 16];
        let mut at = digits.len();
        let mut rest = value.into();
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(rest & 0xf) as usize];
            rest >>= 4;
            if rest == 0 {
                break;
            }
        }
        self.text(&digits[at..])
    }

    /// `%lld -%d `: the driver's time and the process.
    fn stamp(&mut self, ns: u64, pid: u32) -> &mut Self {
        self.text(b" ").dec(ns).text(b" -").dec(pid).text(b" ")
    }

    /// `@%lx(%lx)`: an address and what stands with it.
    fn at(&mut self, page: u64, paren: impl Into<u64>) -> &mut Self {
        self.text(b"@").hex(page).text(b"(").hex(paren).text(b")")
    }

    /// Writes `event` as this kernel's driver does, raised at `ns` (`CLOCK_BOOTTIME`) by the GPU
    /// `gpu_id`. Nothing is written for an event that this driver does not have.
    pub(crate) fn write(&mut self, kernel: Kernel, gpu_id: u32, ns: u64, event: &DriverEvent) {
        self.len = 0;
        if !kernel.has_event(event.id()) {
            return;
        }
        self.hex(event.id());
        let shown =
            |pid: &Pid| if kernel.prints_namespaced_pid() { pid.namespaced } else { pid.host };
        match event {
            DriverEvent::VmFault { pid, comm } => {
                if pid.host == 0 {
                    self.len = 0;
                    return;
                }
                self.text(b" ").hex(shown(pid)).text(b":").text(comm.as_bytes());
            }
            DriverEvent::ProcessStart { pid, comm } | DriverEvent::ProcessEnd { pid, comm } => {
                self.text(b" ").hex(shown(pid)).text(b" ").text(comm.as_bytes());
            }
            DriverEvent::Thermal { throttlers, count } => {
                // `%x:%llx` of the first drivers: a mask of 32 bits.
                let wide = if kernel == Kernel::Oldest { 0xffff_ffff } else { u64::MAX };
                self.text(b" ").hex(throttlers & wide).text(b":").hex(*count);
            }
            DriverEvent::PreReset { sequence, cause }
            | DriverEvent::PostReset { sequence, cause } => {
                self.text(b" ").hex(*sequence);
                if kernel.reset_has_cause() {
                    let (text, ring) = cause.as_ref().map_or(("", &b""[..]), ResetCause::text);
                    self.text(b" ").text(text.as_bytes()).text(ring);
                }
            }
            _ => self.write_stamped(
                kernel,
                gpu_id,
                ns,
                event,
                shown(&event.pid().unwrap_or_default()),
            ),
        }
        self.text(b"\n");
        self.overflow(kernel);
    }

    fn write_stamped(
        &mut self,
        kernel: Kernel,
        gpu_id: u32,
        ns: u64,
        event: &DriverEvent,
        pid: u32,
    ) {
        self.stamp(ns, pid);
        match event {
            DriverEvent::MigrateStart {
                page,
                pages,
                from,
                to,
                prefetch,
                preferred,
                trigger,
                ..
            } => {
                self.at(*page, *pages).text(b" ").hex(*from).text(b"->").hex(*to);
                self.text(b" ")
                    .hex(*prefetch)
                    .text(b":")
                    .hex(*preferred)
                    .text(b" ")
                    .signed(*trigger);
            }
            DriverEvent::MigrateEnd { page, pages, from, to, trigger, error, .. } => {
                self.at(*page, *pages).text(b" ").hex(*from).text(b"->").hex(*to);
                self.text(b" ").signed(*trigger);
                if kernel.migration_has_error() {
                    self.text(b" ").signed(*error);
                }
            }
            DriverEvent::PageFaultStart { page, write, .. } => {
                self.at(*page, gpu_id).text(if *write { b" W" } else { b" R" });
            }
            DriverEvent::PageFaultEnd { page, migrated, .. } => {
                self.at(*page, gpu_id).text(if *migrated { b" M" } else { b" U" });
            }
            DriverEvent::QueueEviction { trigger, .. } => {
                self.hex(gpu_id).text(b" ").signed(*trigger);
            }
            DriverEvent::QueueRestore { rescheduled, .. } => {
                self.hex(gpu_id).text(if *rescheduled { b" R" } else { kernel.plain_restore() });
            }
            DriverEvent::UnmapFromGpu { page, pages, trigger, .. } => {
                self.at(*page, *pages).text(b" ").hex(gpu_id).text(b" ").signed(*trigger);
            }
            _ => {}
        }
    }

    /// AMD's own driver tells of drops: `e NS -PID COUNT`.
    pub(crate) fn write_dropped(&mut self, ns: u64, pid: u32, count: u64) {
        self.len = 0;
        self.text(b"e").stamp(ns, pid).dec(count).text(b"\n");
    }

    /// What becomes of a message that does not fit the driver's buffer.
    ///
    /// Up to 7.2 the driver takes the length that `snprintf` *would* have written, and so sends
    /// the text, its NUL, and what lies behind the buffer.
    fn overflow(&mut self, kernel: Kernel) {
        if self.len < MESSAGE_BYTES {
            return;
        }
        if kernel.cuts_long_messages() {
            self.len = MESSAGE_BYTES - 1;
            return;
        }
        self.bytes[MESSAGE_BYTES - 1] = 0;
        let behind = self.len - MESSAGE_BYTES;
        for (slot, byte) in
            self.bytes[MESSAGE_BYTES..][..behind].iter_mut().zip(STACK.iter().cycle())
        {
            *slot = *byte;
        }
    }
}
