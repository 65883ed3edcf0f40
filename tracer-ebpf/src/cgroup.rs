//! Cgroups that are made or entered: new pods, known at once.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use tracer_common::CgroupRecord;

use crate::maps::CGROUPS;

/// Tells a cgroup's path. Without room, the next regular look finds it.
#[inline(always)]
pub fn changed(path: u64) {
    let Some(mut slot) = CGROUPS.reserve::<CgroupRecord>(0) else { return };
    // SAFETY: the slot is as large as a record, and any bytes are one.
    let record: &mut CgroupRecord = unsafe { slot.assume_init_mut() };
    record.path[0] = 0;
    // SAFETY: the destination is as long as it is said to be; what cannot be read leaves it empty.
    unsafe {
        bpf_probe_read_kernel_str(
            record.path.as_mut_ptr().cast(),
            CgroupRecord::PATH as u32,
            path as *const _,
        )
    };
    slot.submit(0);
}
