//! From the kernel's type information to the offsets that the programs read by. A member that a kernel lacks turns
//! one signal off; only a few are indispensable.

use guard_common::config::{Member, NO_OFFSET, Offsets};

use super::{error::KernelError, offer::Offer};

/// How the cgroup of a task is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupSource {
    /// The default hierarchy (v2).
    Default,
    /// The hierarchy of the cpu controller (v1).
    CpuController,
}

/// Resolves all offsets of the running kernel.
///
/// # Errors
/// When a member is missing without which nothing can be measured.
pub(super) fn resolve(offer: &Offer<'_>, cgroups: CgroupSource) -> Result<Offsets, KernelError> {
    let registers = offer.registers();
    Offsets::resolve(|member| {
        Ok(match member {
            Member::Needed(name) => offer.indispensable(name)?,
            Member::Wanted(name) => offer.offset(name),
            Member::CgroupOfSet => match cgroups {
                CgroupSource::Default => offer.indispensable("css_set.dfl_cgrp")?,
                // An array of pointers, one per controller.
                CgroupSource::CpuController => {
                    offer.indispensable("css_set.subsys")? + offer.enumerator("cgroup_subsys_id.cpu_cgrp_id")? * 8
                }
            },
            Member::SystemCall => offer.offset(registers.number),
            Member::FirstArgument => offer.offset(registers.first),
            Member::SecondArgument => match offer.offset(registers.second) {
                NO_OFFSET => NO_OFFSET,
                offset => offset + registers.second_at,
            },
        })
    })
}
