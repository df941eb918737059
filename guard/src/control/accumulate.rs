//! Sums kernel samples of consecutive intervals into one of the whole window. A long report samples every second all
//! the same: that frees the slots of threads that ended, empties the ring buffer and meets short-lived cgroups while
//! their names can still be read.

use std::collections::HashMap;

use guard_common::maps::{CgroupKind, ThreadKind};

use super::accounts::{Accounted, Key};
use crate::kernel::sample::{CgroupSample, KernelSample, ThreadSample};
use crate::snapshot::order;

/// Breach records kept of one window; later ones count as lost.
const BREACHES_MAX: usize = 10_000;
/// Ended threads, and ended cgroups, kept apart in one window: the worst. At some 14 KB, and 23 KB, at most for each.
const ENDED_MAX: usize = 1_000;
/// Id of the sum of all cgroups that are not kept apart.
const OTHER: u64 = 0;

/// By what ended cgroups, and threads, are ranked.
const CGROUP_RANK: [CgroupKind; 5] = [
    CgroupKind::TimerUser,
    CgroupKind::TimerThread,
    CgroupKind::WakeRt,
    CgroupKind::ThrottledWait,
    CgroupKind::WakeFair,
];
const THREAD_RANK: [ThreadKind; 3] = [ThreadKind::TimerUser, ThreadKind::TimerThread, ThreadKind::Wake];

/// What was counted in a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    /// The sum of its samples. Threads that ended may be missing, and are counted as lost then.
    pub(super) sample: KernelSample,
    /// Skipped cycles by cgroup id, of all threads.
    pub(super) missed: HashMap<u64, u64>,
    /// Accounts of its breaches, as far as there are any.
    pub(super) accounts: HashMap<Key, Accounted>,
}

/// The sum of the samples so far.
#[derive(Debug, Default)]
pub(super) struct Accumulator {
    /// Cgroups and threads apart, they stand in the maps below.
    sum: Sum,
    cgroups: HashMap<u64, CgroupSample>,
    ended_cgroups: Vec<([u64; 4], u64)>,
    /// Threads that have not exited: a tid can come again afterwards.
    threads: HashMap<u32, ThreadSample>,
    ended_threads: Vec<([u64; 2], ThreadSample)>,
    /// Threads that the user named: kept in any case.
    named: Vec<u32>,
}

impl Accumulator {
    /// Begins the first window.
    pub(super) fn new(named: Vec<u32>) -> Self {
        Self { named, ..Self::default() }
    }

    /// Adds the sample of the next interval.
    pub(super) fn add(&mut self, next: KernelSample) {
        let sum = &mut self.sum.sample;
        sum.at_ns = next.at_ns;
        sum.seconds += next.seconds;
        sum.signals = next.signals;
        sum.throttle_source = next.throttle_source;
        sum.map_bytes = next.map_bytes;
        sum.user_rest_ns = next.user_rest_ns;
        sum.events = add_events(sum.events, next.events);
        sum.lost.absorb(&next.lost);

        let room = BREACHES_MAX - sum.breaches.len();
        add(&mut sum.lost.breaches, next.breaches.len().saturating_sub(room) as u64);
        sum.breaches.extend(next.breaches.into_iter().take(room));

        for cpu in next.cpus {
            match sum.cpus.iter_mut().find(|c| c.cpu == cpu.cpu) {
                Some(mine) => mine.absorb(&cpu),
                None => sum.cpus.push(cpu),
            }
        }
        for cgroup in next.cgroups {
            self.add_cgroup(cgroup);
        }
        for thread in next.threads {
            if thread.missed > 0 {
                add(self.sum.missed.entry(thread.cgroup_id).or_default(), thread.missed);
            }
            let (tid, exited) = (thread.tid, thread.exited);
            let thread = match self.threads.remove(&tid) {
                Some(before) => add_thread(&before, thread),
                None => thread,
            };
            if exited {
                self.end_thread(thread);
            } else {
                self.threads.insert(tid, thread);
            }
        }
    }

    /// Adds accounts of breaches of the sample that was added last.
    pub(super) fn account(&mut self, accounts: HashMap<Key, Accounted>) {
        let room = BREACHES_MAX.saturating_sub(self.sum.accounts.len());
        self.sum.accounts.extend(accounts.into_iter().take(room));
    }

    /// Says that a cgroup has gone and its last counts were added. Of very many only the worst stay apart.
    pub(super) fn end_cgroup(&mut self, id: u64) {
        let Some(c) = self.cgroups.get(&id).filter(|c| c.id != OTHER) else { return };
        let rank = order::cgroup_rank(CGROUP_RANK.map(|kind| &c.hists[kind]));
        self.ended_cgroups.retain(|(_, ended)| *ended != id);
        self.ended_cgroups.push((rank, id));
        if self.ended_cgroups.len() <= ENDED_MAX {
            return;
        }
        let least = self.ended_cgroups.iter().enumerate().min_by_key(|(_, (rank, _))| *rank).map(|(at, _)| at);
        let folded = least.map(|at| self.ended_cgroups.swap_remove(at).1).and_then(|id| self.cgroups.remove(&id));
        let Some(folded) = folded else { return };
        for kind in [CgroupKind::WakeFair, CgroupKind::WakeRt] {
            add(&mut self.sum.sample.lost.other_cgroups, folded.hists[kind].count());
        }
        if let Some(missed) = self.sum.missed.remove(&folded.id) {
            add(self.sum.missed.entry(OTHER).or_default(), missed);
        }
        self.add_cgroup(CgroupSample { id: OTHER, ..folded });
    }

    fn add_cgroup(&mut self, cgroup: CgroupSample) {
        match self.cgroups.get_mut(&cgroup.id) {
            Some(mine) => add_cgroup(mine, &cgroup),
            None => {
                self.cgroups.insert(cgroup.id, cgroup);
            }
        }
    }

    /// Keeps an ended thread. Of very many only the worst stay; what the others counted stands in their cgroups.
    fn end_thread(&mut self, thread: ThreadSample) {
        let rank = order::thread_rank(THREAD_RANK.map(|kind| &thread.hists[kind]));
        self.ended_threads.push((rank, thread));
        if self.ended_threads.len() <= ENDED_MAX {
            return;
        }
        let unnamed = self.ended_threads.iter().enumerate().filter(|(_, (_, t))| !self.named.contains(&t.tid));
        if let Some((least, _)) = unnamed.min_by_key(|(_, (rank, _))| *rank) {
            self.ended_threads.swap_remove(least);
            self.sum.sample.lost.dropped_threads += 1;
        }
    }

    /// The sum; the next window starts from nothing.
    pub(super) fn take(&mut self) -> Sum {
        let next = Self::new(std::mem::take(&mut self.named));
        let Self { mut sum, cgroups, threads, ended_threads, .. } = std::mem::replace(self, next);
        sum.sample.cpus.sort_by_key(|c| c.cpu);
        sum.sample.cgroups = cgroups.into_values().collect();
        sum.sample.threads = ended_threads.into_iter().map(|(_, t)| t).chain(threads.into_values()).collect();
        sum
    }
}

fn add_events(a: Option<(u64, f64)>, b: Option<(u64, f64)>) -> Option<(u64, f64)> {
    match (a, b) {
        (Some((n, ns)), Some((m, ms))) => {
            #[allow(clippy::cast_precision_loss, reason = "a mean for people")]
            let (weight_n, weight_m) = (n as f64, m as f64);
            let all = weight_n + weight_m;
            Some((n.saturating_add(m), if all > 0.0 { (ns * weight_n + ms * weight_m) / all } else { 0.0 }))
        }
        (a, b) => a.or(b),
    }
}

/// Adds counts of later samples. Sums stay at the largest number instead of beginning again at 0.
fn add(sum: &mut u64, n: u64) {
    *sum = sum.saturating_add(n);
}

/// The sum of what was seen.
fn add_seen(sum: &mut Option<u64>, n: Option<u64>) {
    *sum = sum.map_or(n, |sum| Some(sum.saturating_add(n.unwrap_or(0))));
}

fn add_cgroup(a: &mut CgroupSample, b: &CgroupSample) {
    a.hists.merge(&b.hists);
    add(&mut a.throttles, b.throttles);
    add_seen(&mut a.throttled_time_ns, b.throttled_time_ns);
    add(&mut a.boosts, b.boosts);
    add_seen(&mut a.futex_boosts, b.futex_boosts);
    a.rt_seen |= b.rt_seen;
}

/// The counts of both; what the thread *is* comes from its later sample.
fn add_thread(a: &ThreadSample, b: ThreadSample) -> ThreadSample {
    let mut sum = b;
    sum.hists.merge(&a.hists);
    add(&mut sum.missed, a.missed);
    add(&mut sum.user_estimated, a.user_estimated);
    add(&mut sum.boosts, a.boosts);
    add(&mut sum.breaches, a.breaches);
    sum
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use guard_common::event::Breach;

    use super::*;
    use crate::snapshot::{Cpu, Histogram, Interrupt, Lost};

    fn thread(tid: u32, ns: u64) -> ThreadSample {
        ThreadSample {
            tid,
            comm: format!("t{ns}"),
            hists: [(ThreadKind::TimerUser, Histogram::of(&[ns]))].into(),
            missed: 1,
            breaches: 2,
            ..ThreadSample::default()
        }
    }

    fn sum(samples: Vec<KernelSample>) -> KernelSample {
        let mut all = Accumulator::default();
        samples.into_iter().for_each(|s| all.add(s));
        all.take().sample
    }

    #[test]
    fn counts_add_up_and_states_come_from_the_last_sample() {
        let sample = |ns: u64, at_ns| KernelSample {
            at_ns,
            seconds: 1.0,
            cgroups: vec![CgroupSample {
                id: 7,
                hists: [(CgroupKind::WakeRt, Histogram::of(&[ns]))].into(),
                throttles: 1,
                throttled_time_ns: Some(10),
                rt_seen: ns == 5,
                ..CgroupSample::default()
            }],
            threads: vec![thread(3, ns)],
            cpus: vec![Cpu {
                cpu: 1,
                hardirq: Interrupt { count: 1, total_ns: ns, while_rt_ns: 1, max_ns: ns },
                ..Cpu::default()
            }],
            lost: Lost { collisions: 2, ..Lost::default() },
            events: Some((10, ns as f64)),
            ..KernelSample::default()
        };
        let all = sum(vec![sample(5, 100), sample(7, 200)]);
        assert_eq!((all.at_ns, all.seconds, all.lost.collisions), (200, 2.0, 4));
        assert_eq!(all.events, Some((20, 6.0)));
        assert_eq!(all.cgroups.len(), 1);
        assert_eq!((all.cgroups[0].hists[CgroupKind::WakeRt].count(), all.cgroups[0].throttles), (2, 2));
        assert_eq!((all.cgroups[0].throttled_time_ns, all.cgroups[0].rt_seen), (Some(20), true));
        assert_eq!(all.threads.len(), 1);
        assert_eq!((all.threads[0].missed, all.threads[0].breaches, all.threads[0].comm.as_str()), (2, 4, "t7"));
        let timer = &all.threads[0].hists[ThreadKind::TimerUser];
        assert_eq!((timer.min_ns(), timer.max_ns()), (5, 7));
        assert_eq!(all.cpus[0].hardirq, Interrupt { count: 2, total_ns: 12, while_rt_ns: 2, max_ns: 7 });
    }

    #[test]
    fn a_tid_that_comes_again_is_another_thread() {
        let sample = |ns, exited| KernelSample {
            threads: vec![ThreadSample { exited, ..thread(3, ns) }],
            ..KernelSample::default()
        };
        let all = sum(vec![sample(5, false), sample(6, true), sample(7, false)]);
        let counts: Vec<_> = all.threads.iter().map(|t| (t.hists[ThreadKind::TimerUser].count(), t.exited)).collect();
        assert_eq!(counts, [(2, true), (1, false)]);
    }

    #[test]
    fn breaches_beyond_the_room_are_counted_as_lost() {
        let sample = || KernelSample { breaches: vec![Breach::zeroed(); BREACHES_MAX - 1], ..KernelSample::default() };
        let all = sum(vec![sample(), sample()]);
        assert_eq!(all.breaches.len(), BREACHES_MAX);
        assert_eq!(all.lost.breaches, BREACHES_MAX as u64 - 2);
    }

    #[test]
    fn taking_starts_anew() {
        let mut all = Accumulator::default();
        all.add(KernelSample { threads: vec![thread(3, 5)], seconds: 1.0, ..KernelSample::default() });
        assert_eq!(all.take().sample.threads.len(), 1);
        all.add(KernelSample { threads: vec![thread(3, 6)], seconds: 1.0, ..KernelSample::default() });
        let second = all.take().sample;
        assert_eq!((second.threads[0].hists[ThreadKind::TimerUser].count(), second.seconds), (1, 1.0));
    }

    #[test]
    fn of_very_many_ended_threads_the_worst_and_the_named_stay_and_the_others_are_counted() {
        let mut all = Accumulator::new(vec![1]);
        let ended = |tid: u32| ThreadSample { exited: true, cgroup_id: 9, ..thread(tid, u64::from(tid) * 1_000) };
        let most = u32::try_from(ENDED_MAX).unwrap();
        for tid in 1..=most + 5 {
            all.add(KernelSample { threads: vec![ended(tid)], ..KernelSample::default() });
        }
        all.add(KernelSample { threads: vec![thread(7_777, 1)], ..KernelSample::default() });
        let sum = all.take();
        assert_eq!(sum.sample.lost.dropped_threads, 5);
        let mut tids: Vec<u32> = sum.sample.threads.iter().map(|t| t.tid).collect();
        tids.sort_unstable();
        let kept: Vec<u32> = std::iter::once(1).chain(7..=most + 5).chain([7_777]).collect();
        assert_eq!(tids, kept);
        assert_eq!(sum.missed[&9], u64::from(most) + 5, "the cycles that dropped threads skipped");
    }

    #[test]
    fn of_very_many_ended_cgroups_the_worst_stay_apart_and_the_others_are_summed() {
        let mut all = Accumulator::default();
        let most = ENDED_MAX as u64;
        for id in 1..=most + 3 {
            let cgroup = CgroupSample {
                id,
                hists: [(CgroupKind::WakeFair, Histogram::of(&[id * 1_000, 500]))].into(),
                boosts: 1,
                ..CgroupSample::default()
            };
            let skipped = ThreadSample { cgroup_id: id, ..thread(5, 1) };
            all.add(KernelSample { cgroups: vec![cgroup], threads: vec![skipped], ..KernelSample::default() });
            all.end_cgroup(id);
            all.end_cgroup(id);
        }
        let sum = all.take();
        assert_eq!(sum.sample.cgroups.len(), ENDED_MAX + 1);
        let other = sum.sample.cgroups.iter().find(|c| c.id == 0).unwrap();
        let fair = &other.hists[CgroupKind::WakeFair];
        assert_eq!((fair.count(), fair.max_ns(), other.boosts), (6, 3_000, 3));
        assert_eq!((sum.sample.lost.other_cgroups, sum.missed[&0], sum.missed.get(&1)), (6, 3, None));
    }

    #[test]
    fn the_last_counts_of_an_ended_cgroup_join_the_earlier_ones() {
        let mut all = Accumulator::default();
        let sample = |ns| KernelSample {
            cgroups: vec![CgroupSample {
                id: 7,
                hists: [(CgroupKind::WakeRt, Histogram::of(&[ns]))].into(),
                ..CgroupSample::default()
            }],
            ..KernelSample::default()
        };
        all.add(sample(5));
        all.end_cgroup(7);
        all.add(sample(6));
        let cgroups = all.take().sample.cgroups;
        assert_eq!((cgroups.len(), cgroups[0].hists[CgroupKind::WakeRt].count()), (1, 2));
    }

    #[test]
    fn sums_beyond_the_largest_number_stay_at_it() {
        let most = u64::MAX - 1;
        let sample = || KernelSample {
            cgroups: vec![CgroupSample {
                id: 7,
                throttles: most,
                throttled_time_ns: Some(most),
                boosts: most,
                futex_boosts: Some(most),
                ..CgroupSample::default()
            }],
            threads: vec![ThreadSample { missed: most, boosts: most, breaches: most, ..thread(3, 5) }],
            cpus: vec![Cpu {
                hardirq: Interrupt { count: most, total_ns: most, while_rt_ns: most, max_ns: most },
                ..Cpu::default()
            }],
            lost: Lost { collisions: most, breaches: most, ..Lost::default() },
            events: Some((most, 1.0)),
            ..KernelSample::default()
        };
        let all = sum(vec![sample(), sample()]);
        let (cgroup, thread, cpu) = (&all.cgroups[0], &all.threads[0], &all.cpus[0]);
        assert_eq!((cgroup.throttles, cgroup.boosts), (u64::MAX, u64::MAX));
        assert_eq!((cgroup.throttled_time_ns, cgroup.futex_boosts), (Some(u64::MAX), Some(u64::MAX)));
        assert_eq!((thread.missed, thread.boosts, thread.breaches), (u64::MAX, u64::MAX, u64::MAX));
        assert_eq!((cpu.hardirq.count, cpu.hardirq.while_rt_ns), (u64::MAX, u64::MAX));
        assert_eq!((all.lost.collisions, all.lost.breaches), (u64::MAX, u64::MAX));
        assert_eq!(all.events, Some((u64::MAX, 1.0)));
    }

    #[test]
    fn named_threads_stay_named_in_the_next_window() {
        let mut all = Accumulator::new(vec![3]);
        all.take();
        assert_eq!(all.named, [3]);
    }
}
