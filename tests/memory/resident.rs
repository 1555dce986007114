//! The memory of this process, as Linux tells it.

/// Resident memory now, in bytes.
pub(crate) fn resident() -> u64 {
    field("VmRSS:")
}

/// What of it are pages of files: the code that has run so far.
pub(crate) fn code() -> u64 {
    field("RssFile:")
}

/// The most resident memory since [`reset_peak`].
pub(crate) fn peak() -> u64 {
    field("VmHWM:")
}

/// Begins to look for the peak anew.
pub(crate) fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn field(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}
