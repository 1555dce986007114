//! What can be proved of the hot path without a clock: a call neither allocates nor frees.
//!
//! A binary of its own, because the counter takes the place of its allocator. It counts what the
//! measured thread does, and no other.

mod calls;
mod swaps;

use allocation_counter::AllocationInfo;

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 100])));
    assert_eq!((allocations(counted), frees(counted), counted.bytes_total), (1, 1, 100));
    assert_ne!(NONE, allocations_and_frees(counted));
}

/// No allocation and no free.
const NONE: (u64, u64) = (0, 0);

fn allocations_and_frees(counted: AllocationInfo) -> (u64, u64) {
    (allocations(counted), frees(counted))
}

fn allocations(counted: AllocationInfo) -> u64 {
    counted.count_total
}

fn frees(counted: AllocationInfo) -> u64 {
    counted.count_total.checked_add_signed(-counted.count_current).unwrap()
}
