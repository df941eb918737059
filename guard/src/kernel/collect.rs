//! From the maps to a [`KernelSample`]: differences since the last one, summed over CPUs.

use std::mem::offset_of;

use guard_common::{
    comm,
    config::NO_OFFSET,
    event::Breach,
    hist::BUCKETS,
    maps::{CgroupKind, CpuState, Hist, PERIOD_SURE, ThreadKind, ThreadState, cgroup_hist, thread_hist, thread_state},
};

use super::{
    before::ThreadBefore,
    error::KernelError,
    flight::Flight,
    handle::Kernel,
    records::{Event, Records},
    sample::{CgroupSample, Hists, KernelSample, ThreadSample},
    sys,
};
use crate::sched::now_ns;
use crate::snapshot::{Cpu, Histogram, Interrupt, Lost, SignalName, Stolen, sees};

/// Breaches that are kept between two samples; more than a window shows.
const BREACHES_KEPT: usize = 16_384;

impl Kernel {
    /// What was counted since the last call, or since load.
    ///
    /// # Errors
    /// When a map cannot be written to.
    #[allow(clippy::cast_precision_loss, reason = "an interval and its events stay far below 2^53")]
    pub fn sample(&mut self) -> Result<KernelSample, KernelError> {
        // From here on the programs write the other half of the extremes.
        let half = (self.epoch & 1) as usize;
        self.epoch = self.epoch.wrapping_add(1);
        for cpu in 0..self.cpus.len() {
            self.cpus.write_field(cpu, offset_of!(CpuState, epoch), self.epoch);
        }

        let at_ns = now_ns();
        let elapsed_ns = at_ns.saturating_sub(self.before.at_ns);
        self.before.at_ns = at_ns;
        let mut sample = KernelSample {
            at_ns,
            seconds: elapsed_ns as f64 / 1e9,
            signals: self.signals.clone(),
            throttle_source: self.throttle_source,
            map_bytes: self.map_bytes,
            user_rest_ns: self.user_rest_ns,
            ..KernelSample::default()
        };
        sample.cgroups = self.sample_cgroups(half);
        sample.threads = self.sample_threads(half)?;
        let mut lost = self.sample_cpus(half, &mut sample.cpus);
        self.sample_programs(&mut sample, &mut lost);
        if lost.unwatched_threads > 0 || self.slots_wanted {
            // RT threads that found no slot try again, now that some may be free.
            self.slots_wanted = lost.unwatched_threads > 0;
            self.renew_slots();
        }
        sample.lost = lost;
        (self.flush_log)();
        sample.breaches = self.take_breaches();
        sample.stacks = std::mem::take(&mut self.stacks);
        sample.lost.breaches += std::mem::take(&mut self.lost_records);
        // After the breaches, so that all that led to them is in it.
        sample.flight = self.flight.as_mut().map(Flight::take).unwrap_or_default();
        hide_unseen(&mut sample);
        Ok(sample)
    }

    fn sample_cgroups(&mut self, half: usize) -> Vec<CgroupSample> {
        let slots = self.cgroup_slots.len();
        self.before.cgroups.resize(slots, bytemuck::Zeroable::zeroed());
        let o = &self.config.offsets;
        let of_futexes = [o.task_pi_blocked_on, o.rt_mutex_waiter_wake_state, o.regs_syscall, o.regs_argument];
        let sees_futexes = of_futexes.iter().all(|offset| *offset != NO_OFFSET);
        let mut samples = Vec::new();
        for slot in 0..slots {
            let now = self.cgroup_slots.read(slot);
            // Slot 0 is "other" and has no id.
            if slot != 0 && now.id == 0 {
                continue;
            }
            let before = std::mem::replace(&mut self.before.cgroups[slot], now);
            let same = before.id == now.id;
            let since = |now: u64, before: u64| if same { now.wrapping_sub(before) } else { now };
            #[allow(clippy::cast_possible_truncation, reason = "there are at most 2^32 slots")]
            let hists = Hists::new(|kind| self.take_hist(cgroup_hist(slot as u32, kind) as usize, half));
            let sample = CgroupSample {
                id: now.id,
                hists,
                throttles: since(now.throttles, before.throttles),
                throttled_time_ns: (self.config.throttle_by_period != 0 && now.bandwidth_seen != 0).then(|| {
                    // The first reading is where counting begins.
                    if before.bandwidth_seen == 0 { 0 } else { since(now.throttled_time_ns, before.throttled_time_ns) }
                }),
                boosts: since(now.boosts, before.boosts),
                futex_boosts: sees_futexes.then(|| since(now.futex_boosts, before.futex_boosts)),
                rt_seen: now.rt_seen != 0,
            };
            if !sample.is_empty() {
                samples.push(sample);
            }
        }
        samples
    }

    fn sample_threads(&mut self, half: usize) -> Result<Vec<ThreadSample>, KernelError> {
        self.before.threads.resize(self.threads.len(), ThreadBefore::default());
        let mut samples = Vec::new();
        for slot in 0..self.threads.len() {
            let state: u32 = self.threads.read_field(slot, offset_of!(ThreadState, state));
            if state == thread_state::FREE {
                continue;
            }
            let now = self.threads.read(slot);
            let counters = ThreadBefore {
                missed: now.missed,
                user_estimated: now.user_estimated,
                boosts: now.boosts,
                breaches: now.breaches,
            };
            let before = std::mem::replace(&mut self.before.threads[slot], counters);
            let cgroup_slots = self.config.cgroup_slots;
            #[allow(clippy::cast_possible_truncation, reason = "there are at most 2^16 thread slots")]
            let hists = Hists::new(|kind| self.take_hist(thread_hist(cgroup_slots, slot as u32, kind) as usize, half));
            let sample = ThreadSample {
                tid: now.tid,
                pid: now.tgid,
                comm: comm::text(&now.comm).to_string(),
                cgroup_id: now.cgroup_id,
                policy: now.policy,
                rt_priority: now.rt_priority,
                exited: now.state == thread_state::DEAD,
                period_ns: (now.period_hits >= PERIOD_SURE).then_some(now.period_ns),
                timer_kind: now.timer_kind,
                missed: now.missed.saturating_sub(before.missed),
                user_estimated: now.user_estimated.saturating_sub(before.user_estimated),
                hists,
                boosts: now.boosts.saturating_sub(before.boosts),
                breaches: now.breaches.saturating_sub(before.breaches),
                budget_ns: now.budget_ns,
            };
            if sample.exited {
                self.threads.write(slot, bytemuck::Zeroable::zeroed());
                self.before.threads[slot] = ThreadBefore::default();
                #[allow(clippy::cast_possible_truncation, reason = "there are at most 2^16 thread slots")]
                self.free_threads
                    .push(slot as u32, 0)
                    .map_err(|e| KernelError::bpf(format!("freeing the slot of thread {}", sample.tid), e))?;
            }
            samples.push(sample);
        }
        Ok(samples)
    }

    /// Sum of all user stages of the thread in `slot`, ns, and one more for each.
    #[allow(clippy::cast_possible_truncation, reason = "there are at most 2^16 thread slots")]
    pub(super) fn user_stage_sum(&self, slot: usize) -> u64 {
        let index = thread_hist(self.config.cgroup_slots, slot as u32, ThreadKind::TimerUser) as usize;
        let per_cpu = self.before.hists.len();
        (0..self.before.cpus.len())
            .map(|cpu| self.hists.read_field::<u64>(cpu * per_cpu + index, offset_of!(Hist, sum_ns)))
            .fold(0, u64::wrapping_add)
    }

    /// The difference of histogram `index` since it was last taken, summed over CPUs.
    fn take_hist(&mut self, index: usize, half: usize) -> Histogram {
        let per_cpu = self.before.hists.len();
        let mut out = Histogram::default();
        let field = |cpu: usize, offset| self.hists.read_field::<u64>(cpu * per_cpu + index, offset);
        let cpus = self.before.cpus.len();
        // Sums first: a bucket that is then read is at least as new.
        let sum_ns = (0..cpus).map(|cpu| field(cpu, offset_of!(Hist, sum_ns))).fold(0, u64::wrapping_add);
        let before = &mut self.before.hists[index];
        if sum_ns == before.sum_ns {
            return out;
        }
        let mut buckets = Box::new([0u32; BUCKETS]);
        for cpu in 0..cpus {
            let at = cpu * per_cpu + index;
            if self.hists.read_field::<u64>(at, offset_of!(Hist, sum_ns)) == 0 {
                continue;
            }
            let hist = self.hists.read(at);
            for (sum, n) in buckets.iter_mut().zip(hist.buckets) {
                *sum = sum.wrapping_add(n);
            }
            if hist.max_ns[half] != 0 || hist.not_min_ns[half] != 0 {
                out.widen(!hist.not_min_ns[half], hist.max_ns[half]);
                self.hists.write_field(at, offset_of!(Hist, max_ns) + half * 8, 0u64);
                self.hists.write_field(at, offset_of!(Hist, not_min_ns) + half * 8, 0u64);
            }
        }
        let old = before.buckets.get_or_insert_with(|| Box::new([0; BUCKETS]));
        for (i, (new, old)) in buckets.iter().zip(old.iter()).enumerate() {
            out.add_count(i, u64::from(new.wrapping_sub(*old)));
        }
        out.add_sum(sum_ns.wrapping_sub(before.sum_ns).saturating_sub(out.count()));
        before.sum_ns = sum_ns;
        before.buckets = Some(buckets);
        out
    }

    fn sample_cpus(&mut self, half: usize, out: &mut Vec<Cpu>) -> Lost {
        let mut lost = Lost::default();
        for index in 0..self.cpus.len() {
            let now = self.cpus.read(index);
            let before = std::mem::replace(&mut self.before.cpus[index], now);
            self.cpus.write_field(index, offset_of!(CpuState, hardirq_max_ns) + half * 8, 0u64);
            self.cpus.write_field(index, offset_of!(CpuState, softirq_max_ns) + half * 8, 0u64);
            lost.missed_events += now.lost_switches - before.lost_switches;
            lost.missed_events += now.lost_throttles - before.lost_throttles;
            lost.past_timers += now.past_timers - before.past_timers;
            lost.collisions += now.lost_collisions - before.lost_collisions;
            lost.other_cgroups += now.other_cgroups - before.other_cgroups;
            lost.unwatched_threads += now.unwatched_threads - before.unwatched_threads;
            lost.breaches += now.lost_events - before.lost_events;
            lost.failed_reads += now.failed_reads - before.failed_reads;
            #[allow(clippy::cast_possible_truncation, reason = "CPU numbers are 32 bits wide in the kernel")]
            let cpu = index as u32;
            if !self.online_cpus.contains(&cpu) && now.hardirq_count == before.hardirq_count {
                continue;
            }
            out.push(Cpu {
                cpu,
                hardirq: Interrupt {
                    count: now.hardirq_count - before.hardirq_count,
                    total_ns: now.hardirq_ns - before.hardirq_ns,
                    while_rt_ns: now.hardirq_rt_ns - before.hardirq_rt_ns,
                    max_ns: now.hardirq_max_ns[half],
                },
                softirq: Interrupt {
                    count: now.softirq_count - before.softirq_count,
                    total_ns: now.softirq_ns - before.softirq_ns,
                    while_rt_ns: now.softirq_rt_ns - before.softirq_rt_ns,
                    max_ns: now.softirq_max_ns[half],
                },
                rt_throttle: Stolen {
                    count: now.rt_throttle_count - before.rt_throttle_count,
                    total_ns: now.rt_throttle_ns - before.rt_throttle_ns,
                },
                fair_server: Stolen {
                    count: now.fair_server_count - before.fair_server_count,
                    total_ns: now.fair_server_ns - before.fair_server_ns,
                },
                ..Cpu::default()
            });
        }
        lost
    }

    #[allow(clippy::cast_precision_loss, reason = "run times of an interval stay far below 2^53 ns")]
    fn sample_programs(&mut self, sample: &mut KernelSample, lost: &mut Lost) {
        let (mut missed, mut count, mut time_ns) = (0u64, 0u64, 0u64);
        for name in &self.attached {
            let Some(Ok(fd)) = self.ebpf.program(name).map(aya::programs::Program::fd) else { continue };
            if let Ok(info) = sys::run_info(fd) {
                missed += info.missed;
                count += info.run_count;
                time_ns += info.run_time_ns;
            }
        }
        lost.missed_events += missed.saturating_sub(self.before.missed);
        self.before.missed = missed;
        if self.run_time_stats.is_some() {
            let (events, time) = (count.saturating_sub(self.before.run.0), time_ns.saturating_sub(self.before.run.1));
            if events > 0 {
                sample.events = Some((events, time as f64 / events as f64));
            }
            self.before.run = (count, time_ns);
        }
    }

    /// What happened since the last call, oldest first. Breaches are kept for the next sample, too.
    pub fn events(&mut self) -> Vec<Event> {
        let Records { breaches, others: mut events, .. } = self.drain();
        events.extend(breaches.iter().map(|breach| Event::Late(*breach)));
        events.sort_by_key(Event::at_ns);
        self.stacks.truncate(BREACHES_KEPT);
        let room = BREACHES_KEPT.saturating_sub(self.breaches.len());
        self.lost_records += breaches.len().saturating_sub(room) as u64;
        self.breaches.extend(breaches.into_iter().take(room));
        events
    }

    /// Breaches since the last sample, oldest first.
    fn take_breaches(&mut self) -> Vec<Breach> {
        let Records { breaches, .. } = self.drain();
        let mut all = std::mem::take(&mut self.breaches);
        all.extend(breaches);
        all.sort_by_key(|b| b.switched_in_ns);
        all
    }

    /// Takes all records out of the ring buffer. Stacks are kept for the next sample.
    fn drain(&mut self) -> Records {
        let mut records = Records::default();
        while let Some(record) = self.ring.next() {
            records.add(&record);
        }
        self.lost_records += records.unknown;
        self.stacks.append(&mut records.stacks);
        records
    }
}

/// Removes what was counted for signals that are not seen: sched_switch counts some of it whatever else is attached.
fn hide_unseen(sample: &mut KernelSample) {
    if !sees(&sample.signals, SignalName::Lock) {
        for cgroup in &mut sample.cgroups {
            cgroup.hists.take(CgroupKind::Lock);
            (cgroup.boosts, cgroup.futex_boosts) = (0, None);
        }
        for thread in &mut sample.threads {
            thread.hists.take(ThreadKind::Lock);
            thread.boosts = 0;
        }
    }
    if !sees(&sample.signals, SignalName::ThrottledWait) {
        for cgroup in &mut sample.cgroups {
            cgroup.hists.take(CgroupKind::ThrottledWait);
        }
    }
}

impl CgroupSample {
    fn is_empty(&self) -> bool {
        self.hists.is_empty() && self.throttles == 0 && self.boosts == 0
    }
}
