//! What a text seems to be that holds nothing to import.

/// What a file is by its first bytes, and what to do with it.
#[must_use]
pub fn kind_of_file(beginning: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 10] = [
        (b"\x1f\x8b", "it is compressed with gzip: zcat FILE | gpuev import -"),
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: zstdcat FILE | gpuev import -"),
        (b"\xfd7zXZ\0", "it is compressed with xz: xzcat FILE | gpuev import -"),
        (b"BZh", "it is compressed with bzip2: bzcat FILE | gpuev import -"),
        (b"SQLite format 3\0", "it is no text, but maybe a history already: gpuev report FILE"),
        (b"PAR1", "it is Parquet, which gpuev writes and does not read"),
        (b"PK\x03\x04", "it is a zip archive: unpack it first"),
        (b"\x7fELF", "it is a program"),
        (
            b"LPKSHHRH",
            "it is a file of the journal: journalctl --file FILE -o json | gpuev import -",
        ),
        (b"%PDF", "it is a PDF document"),
    ];
    if beginning.starts_with(b"\xff\xfe") || beginning.starts_with(b"\xfe\xff") {
        return Some("it is UTF-16: iconv -f UTF-16 -t UTF-8 FILE | gpuev import -");
    }
    KINDS.iter().find(|(magic, _)| beginning.starts_with(magic)).map(|(_, what)| *what)
}

/// What a line is of that is no event, by its words.
pub(super) fn kind_of_line(text: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 14] = [
        (b"v,record,", "gpuev's own CSV, which it does not read: import ndjson"),
        (b"+----", "a table of amd-smi or rocm-smi: not its events (amd-smi event)"),
        (b"====", "a table of rocm-smi: not its events"),
        (b"GPU  ", "a table of amd-smi: not its events (amd-smi event)"),
        (b"NVRM", "the kernel log of an NVIDIA driver"),
        (b"<!DOCTYPE", "a page (HTML)"),
        (b"<html", "a page (HTML)"),
        (b"amdgpu ", KERNEL_LOG),
        (b"amdgpu: ", KERNEL_LOG),
        (b"[drm", KERNEL_LOG),
        (b"drm", KERNEL_LOG),
        (b"kfd", KERNEL_LOG),
        (b"[{", "a JSON array: gpuev reads one object a line (jq -c '.[]')"),
        (b"ROCr HMM event error", "a profile of the ROCm runtime that holds no event"),
    ];
    if [&b"mce_record:"[..], b"non_standard_event:", b"mc_event:", b"aer_event:"]
        .iter()
        .any(|word| text.windows(word.len()).any(|window| window == *word))
    {
        return Some("a log of rasdaemon");
    }
    KINDS.iter().find(|(word, _)| text.starts_with(word)).map(|(_, what)| *what)
}

const KERNEL_LOG: &str =
    "the kernel log: what amdgpu writes there are no events of the driver's interface";
