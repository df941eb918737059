//! The list of what guard can set. A knob is a file of this room, which says everything about it, and a place in this list;
//! who reads the list knows what guard can touch on a machine. A small family shares a file and a line.

/// Hands the list to another macro: file, then variant, what a setting of it carries, and the row.
macro_rules! knobs {
    ($then:ident) => {
        $then! {
            bandwidth { Quota(Bandwidth) = QUOTA, Burst(u64) = BURST }
            shares { Shares(u64) = SHARES, Idle(bool) = IDLE }
            cpuset { Cpus(CpuList) = CPUS, Mems(CpuList) = MEMS, Partition(Partition) = PARTITION }
            uclamp { UclampMin(u32) = MIN, UclampMax(u32) = MAX }
            rt_runtime { RtRuntime(i64) = RT_RUNTIME }
            pids { PidsMax(Option<u64>) = PIDS_MAX }
            oom { OomScoreAdj(i64) = OOM_SCORE_ADJ }
        }
    };
}
