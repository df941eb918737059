//! Attaches the programs of one signal after the other and says of each how far it is seen.

use super::{
    programs::{self, Probe},
    sources::{NO_QUOTA_SEEN, Sight, Sources, Throttle},
};
use crate::snapshot::{Signal, SignalState};

use guard_common::config::throttled_time;

/// All signals. `attach` attaches all of the programs that it is given, or says why none.
pub(super) fn attach(
    sources: &Sources,
    explain: bool,
    mut attach: impl FnMut(&[Probe]) -> Result<(), String>,
) -> Vec<Signal> {
    let mut seen = |sight: &Sight, probes: &[Probe]| -> Sight {
        let missing = sight.clone()?;
        attach(probes).map(|()| missing)
    };
    let timer = seen(&sources.timer, &programs::TIMER);
    let mut signals = vec![
        signal("wakeup", "tp_btf sched_waking, sched_switch", Ok(Vec::new())),
        throttle(&sources.throttle, &timer),
        signal("timer", "tp_btf hrtimer_expire_entry, sched_waking, sched_switch", timer.clone()),
    ];
    let user = timer.as_ref().map_err(|reason| format!("it follows the timer signal: {reason}"));
    signals.push(signal("user", "tp_btf rseq_update", user.and_then(|_| seen(&sources.user, &programs::USER))));
    signals.push(throttled_wait(sources, &timer, seen(&sources.throttled_wait, &programs::MIGRATE)));
    signals.push(signal(
        "rt_throttle",
        "tp_btf sched_switch: a runnable RT task gives way to a fair one",
        sources.rt_throttle.clone(),
    ));
    signals.push(signal(
        "lock",
        "tp_btf contention_begin, contention_end, sched_pi_setprio; pi_blocked_on",
        seen(&sources.lock, &programs::LOCK),
    ));
    signals.push(irq(seen(&sources.irq, &programs::IRQ), &sources.vectors, &mut attach));
    signals.push(signal("breach", "ring buffer", sources.breach.clone()));
    if explain {
        let more = sources.flight_probes.iter().filter_map(|probe| attach(std::slice::from_ref(probe)).err());
        let flight = sources.flight.clone().map(|missing| missing.into_iter().chain(more).collect());
        signals.push(signal(
            "flight",
            "per-CPU rings of switches, wake-ups, moves, interrupts and page faults",
            flight,
        ));
    }
    signals
}

fn signal(name: &str, source: &str, sight: Sight) -> Signal {
    let (state, reason) = match sight {
        Ok(missing) if missing.is_empty() => (SignalState::Active, None),
        Ok(missing) => (SignalState::Degraded, Some(missing.join("; "))),
        Err(reason) => (SignalState::Unavailable, Some(reason)),
    };
    Signal { name: name.into(), source: source.to_owned(), state, reason }
}

fn throttle(source: &Throttle, timer: &Sight) -> Signal {
    let cpu_stat = |reason: &str| {
        signal("throttle", "cpu.stat", Ok(vec![format!("durations are not known, for lack of fentry: {reason}")]))
    };
    match (source, timer) {
        (Throttle::Nowhere(reason), _) => signal("throttle", "cpu.stat", Err(reason.clone())),
        (Throttle::Fentry, _) => {
            signal("throttle", "fexit throttle_cfs_rq, fentry unthrottle_cfs_rq; cpu.stat", Ok(Vec::new()))
        }
        (Throttle::PeriodTimer(reason), Ok(_)) => signal(
            "throttle",
            "tp_btf hrtimer_expire_entry of sched_cfs_period_timer; cpu.stat",
            Ok(vec![format!("durations are means of a period, for lack of fentry: {reason}")]),
        ),
        (Throttle::PeriodTimer(reason), Err(timer)) => cpu_stat(&format!("{reason}; nor by the period timer: {timer}")),
        (Throttle::CpuStat(reason), _) => cpu_stat(reason),
    }
}

fn throttled_wait(sources: &Sources, timer: &Sight, migrate: Sight) -> Signal {
    let source = if sources.config.throttled_time == throttled_time::FENTRY {
        "fentry tg_throttle_down, tg_unthrottle_up"
    } else {
        "cfs_rq.throttled_clock_self_time at sched_waking, sched_migrate_task, sched_switch"
    };
    // Without either, the programs never learn that there are quotas.
    let quota_seen = match (&sources.throttle, timer) {
        (Throttle::Fentry, _) | (_, Ok(_)) => Ok(()),
        (_, Err(reason)) => Err(format!("{NO_QUOTA_SEEN}: {reason}")),
    };
    signal("throttled_wait", source, migrate.and_then(|missing| quota_seen.map(|()| missing)))
}

fn irq(sight: Sight, vectors: &[[Probe; 2]], mut attach: impl FnMut(&[Probe]) -> Result<(), String>) -> Signal {
    let mut source = "tp_btf irq_handler, softirq".to_owned();
    let sight = sight.map(|mut missing| {
        for vector in vectors {
            match attach(vector) {
                Ok(()) => {
                    source += ", ";
                    source += vector[1].program.trim_end_matches("_entry");
                }
                Err(reason) => missing.push(reason),
            }
        }
        missing
    });
    signal("irq", &source, sight)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kernel::{
        KernelError, LoadOptions,
        offer::{Asked, Lack, Offer, System},
        offsets::CgroupSource,
        pretence::Pretence,
        sources::Refused,
    };

    fn options(missing: &[&str]) -> LoadOptions {
        LoadOptions {
            breach_ns: 1,
            cgroups: CgroupSource::Default,
            cgroup_slots: 64,
            thread_slots: 64,
            own_cgroup: None,
            online_cpus: vec![0],
            preempt_rt: true,
            act: true,
            flight: true,
            stacks: true,
            run_time_stats: false,
            pretence: Pretence::parse(&missing.join(",")).unwrap(),
        }
    }

    /// The signals where the kernel takes every program, and what it was asked for.
    fn without(system: &System, missing: &[&str]) -> Result<(Vec<Signal>, BTreeMap<String, Asked>), KernelError> {
        let options = options(missing);
        let offer = Offer::new(system, &options.pretence);
        let sources = Sources::new(&offer, &options, 1, &Refused::default())?;
        Ok((attach(&sources, true, |_| Ok(())), offer.asked()))
    }

    /// The signals that are not as they were; each says that one of `missing` is.
    fn changed(before: &[Signal], after: &[Signal], missing: &[&str]) -> Vec<String> {
        let pairs = before.iter().zip(after).filter(|(before, after)| before != after);
        let changed = pairs.map(|(_, signal)| {
            let reason = signal.reason.as_deref().unwrap_or_default();
            let names = missing.iter().any(|name| reason.contains(name)) && reason.contains("(pretended)");
            assert!(signal.state == SignalState::Active || names, "without {missing:?}: {signal:?}");
            signal.name.to_string()
        });
        changed.collect()
    }

    #[test]
    fn whatever_this_kernel_would_lack_is_told_by_the_signals_that_need_it() {
        let system = match System::read() {
            Ok(system) => system,
            Err(error) => return println!("SKIPPED: {error}"),
        };
        let (all, asked) = without(&system, &[]).unwrap();
        let mut optional = Vec::new();
        for (name, Asked { lack, .. }) in asked.iter().filter(|(_, asked)| asked.there) {
            match without(&system, &[name]) {
                Ok((signals, _)) => {
                    let changed = changed(&all, &signals, &[name]);
                    assert_eq!(changed.is_empty(), *lack == Lack::Nothing, "without {name}: {changed:?}");
                    optional.push((name.as_str(), changed));
                }
                Err(error) => {
                    assert!(*lack == Lack::Start && error.is_node(), "without {name}: {error}");
                    assert!(error.to_string().contains(name.as_str()), "without {name}: {error}");
                }
            }
        }
        assert!(optional.len() > 40, "only {} things were asked for", optional.len());
        for (at, (one, first)) in optional.iter().enumerate() {
            for (other, second) in &optional[at + 1..] {
                let missing = [*one, *other];
                let (signals, _) = without(&system, &missing).unwrap();
                let both = changed(&all, &signals, &missing);
                for name in first.iter().chain(second) {
                    assert!(both.contains(name), "without {missing:?} {name} is as with all");
                }
            }
        }
    }

    #[test]
    fn a_refused_program_costs_its_own_signal() {
        let system = match System::read() {
            Ok(system) => system,
            Err(error) => return println!("SKIPPED: {error}"),
        };
        let options = options(&[]);
        let offer = Offer::new(&system, &options.pretence);
        let sources = Sources::new(&offer, &options, 1, &Refused::default()).unwrap();
        let all = attach(&sources, true, |_| Ok(()));
        let mut programs = Vec::new();
        attach(&sources, true, |probes| {
            programs.extend(probes.iter().map(|probe| probe.program));
            Ok(())
        });
        for refused in programs {
            let signals = attach(&sources, true, |probes| match probes.iter().any(|probe| probe.program == refused) {
                true => Err(format!("{refused}: no")),
                false => Ok(()),
            });
            let unlike: Vec<&Signal> = all.iter().zip(&signals).filter(|(a, b)| a != b).map(|(_, b)| b).collect();
            assert!(!unlike.is_empty(), "without {refused}");
            for signal in unlike {
                assert!(signal.reason.as_ref().is_some_and(|reason| reason.contains(refused)), "{signal:?}");
            }
        }
    }
}
