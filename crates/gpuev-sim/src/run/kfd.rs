//! What the simulated `/dev/kfd` answers (`kfd_chardev.c`, `kfd_ioctl.h`).
//!
//! As in the driver an ioctl is told by its number's low byte, and a caller with shorter or
//! longer arguments than the driver knows is served with what both know.

use std::os::fd::{AsFd, OwnedFd};

use super::notice::Answer;
use super::supervisor::Call;
use crate::kfd::KfdProcess;

const GET_VERSION: u8 = 0x01;
const GET_CLOCK_COUNTERS: u8 = 0x05;
const GET_PROCESS_APERTURES_NEW: u8 = 0x14;
const ACQUIRE_VM: u8 = 0x15;
const SMI_EVENTS: u8 = 0x1F;
const AVAILABLE_MEMORY: u8 = 0x23;
/// First number that no driver up to 7.3 knows.
const BEYOND: u8 = 0x28;

/// Direction bits of an ioctl number: the caller gives, the caller takes.
const GIVES: u32 = 1 << 30;
const TAKES: u32 = 1 << 31;

/// Longest arguments of the ioctls answered here.
const ARGUMENTS: usize = 40;

/// One aperture record of `struct kfd_process_device_apertures`.
const APERTURE_BYTES: usize = 56;

/// An ioctl's arguments, as copied from the caller.
struct Arguments {
    bytes: [u8; ARGUMENTS],
    /// How much of it caller and driver share.
    len: usize,
}

impl Arguments {
    /// # Errors
    /// The errno of an address that cannot be read.
    fn fetch(call: &Call<'_>) -> Result<Self, i32> {
        let size = (call.ioctl.request >> 16 & 0x3FFF) as usize;
        let mut arguments = Arguments { bytes: [0; ARGUMENTS], len: size.min(ARGUMENTS) };
        if call.ioctl.request & GIVES != 0 {
            let target = &mut arguments.bytes[..arguments.len];
            call.caller.read(call.ioctl.argument, target).map_err(|_| libc::EFAULT)?;
        }
        Ok(arguments)
    }

    /// # Errors
    /// The errno of an address that cannot be written.
    fn give_back(&self, call: &Call<'_>) -> Result<(), i32> {
        if call.ioctl.request & TAKES == 0 {
            return Ok(());
        }
        call.caller.write(call.ioctl.argument, &self.bytes[..self.len]).map_err(|_| libc::EFAULT)
    }

    fn u32(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_ne_bytes(word)
    }

    fn u64(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
}

/// Answers an ioctl on `/dev/kfd`.
pub(super) fn answer(call: &Call<'_>, process: &KfdProcess) -> Answer {
    #[allow(clippy::cast_possible_truncation)] // the number is the low byte
    let number = call.ioctl.request as u8;
    if number >= BEYOND || number == 0 {
        return Answer::Fail(libc::ENOTTY);
    }
    let mut arguments = match Arguments::fetch(call) {
        Ok(arguments) => arguments,
        Err(errno) => return Answer::Fail(errno),
    };
    let done = match number {
        GET_VERSION => get_version(call, &mut arguments),
        GET_CLOCK_COUNTERS => get_clock_counters(process, &mut arguments),
        GET_PROCESS_APERTURES_NEW => get_apertures(call, process, &mut arguments),
        ACQUIRE_VM => known_gpu(process, arguments.u32(4)),
        SMI_EVENTS => smi_events(call, process, &mut arguments),
        AVAILABLE_MEMORY => available_memory(call, process, &mut arguments),
        // The GPUs of this machine have no engine that could run anything.
        _ => Err(libc::EINVAL),
    };
    // The driver copies its arguments back even when it failed.
    match arguments.give_back(call).and(done) {
        Ok(()) => Answer::Return(0),
        Err(errno) => Answer::Fail(errno),
    }
}

fn known_gpu(process: &KfdProcess, gpu_id: u32) -> Result<(), i32> {
    if process.gpu_ids().contains(&gpu_id) { Ok(()) } else { Err(libc::EINVAL) }
}

fn get_version(call: &Call<'_>, arguments: &mut Arguments) -> Result<(), i32> {
    let (major, minor) = call.driver.kfd_version();
    arguments.put_u32(0, major);
    arguments.put_u32(4, minor);
    Ok(())
}

fn get_clock_counters(process: &KfdProcess, arguments: &mut Arguments) -> Result<(), i32> {
    // A node without a GPU has no GPU clock, and the driver answers all the same.
    let now = crate::clock::boot_ns();
    let gpu = known_gpu(process, arguments.u32(32)).map_or(0, |()| now / 10);
    arguments.put_u64(0, gpu);
    arguments.put_u64(8, now);
    arguments.put_u64(16, now);
    arguments.put_u64(24, 1_000_000_000);
    Ok(())
}

/// The address ranges of GFX9 and later (`kfd_flat_memory.c`), the same for each GPU.
fn get_apertures(
    call: &Call<'_>,
    process: &KfdProcess,
    arguments: &mut Arguments,
) -> Result<(), i32> {
    let ids = process.gpu_ids();
    let (target, room) = (arguments.u64(0), arguments.u32(8));
    arguments.put_u32(8, u32::try_from(ids.len()).map_err(|_| libc::EINVAL)?);
    if room == 0 {
        return Ok(());
    }
    if (room as usize) < ids.len() {
        return Err(libc::EINVAL);
    }
    let ranges: [u64; 6] = [
        0x1_0000_0000_0000,
        0x1_0000_FFFF_FFFF,
        0x2_0000_0000_0000,
        0x2_0000_FFFF_FFFF,
        0x0100_0000,
        0x7FFF_FFFF_FFFF,
    ];
    for (offset, id) in (0u64..).step_by(APERTURE_BYTES).zip(ids) {
        let mut record = [0u8; APERTURE_BYTES];
        for (slot, value) in record.chunks_exact_mut(8).zip(ranges) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
        record[48..52].copy_from_slice(&id.to_ne_bytes());
        let at = target.wrapping_add(offset);
        call.caller.write(at, &record).map_err(|_| libc::EFAULT)?;
    }
    Ok(())
}

fn available_memory(
    call: &Call<'_>,
    process: &KfdProcess,
    arguments: &mut Arguments,
) -> Result<(), i32> {
    let gpu_id = arguments.u32(8);
    known_gpu(process, gpu_id)?;
    let free = call.driver.device_of(gpu_id).map_or(0, |device| {
        let total = device.number("mem_info_vram_total").unwrap_or(0);
        total.saturating_sub(device.number("mem_info_vram_used").unwrap_or(0))
    });
    arguments.put_u64(0, free);
    Ok(())
}

fn smi_events(call: &Call<'_>, process: &KfdProcess, arguments: &mut Arguments) -> Result<(), i32> {
    let file = open_events(call, process, arguments.u32(0))?;
    let number = call
        .listener
        .inject(&call.notice, file.as_fd())
        .map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))?;
    arguments.put_u32(4, number);
    Ok(())
}

fn open_events(call: &Call<'_>, process: &KfdProcess, gpu_id: u32) -> Result<OwnedFd, i32> {
    let identity = call.caller.identity().map_err(|_| libc::ESRCH)?;
    // What was read under the thread's number counts only if the thread is still the same.
    if !call.listener.still_waits(&call.notice) {
        return Err(libc::ESRCH);
    }
    process
        .open_events(gpu_id, &call.privilege.client(identity))
        .map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))
}
