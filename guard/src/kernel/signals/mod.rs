//! The signals: a row for each, in a file of its own, named as the file of its programs in guard-ebpf where they have one.
//! A source that this kernel lacks or refuses is reported with the reason; a new signal is a new row.

mod breach;
mod flight;
mod irq;
mod lock;
mod row;
mod rt_throttle;
mod throttle;
mod throttled_wait;
mod timer;
mod user;
mod wakeup;

use guard_common::config::Config;
pub(super) use row::{Ask, Decided, Group, Row};

use super::{error::KernelError, programs::Probe, refusal::Refusal};
use crate::snapshot::{SignalName, ThrottleSource};

/// All signals, in the order in which they are shown, and attached.
static SIGNALS: [&Row; 10] = [
    &wakeup::WAKEUP,
    &throttle::THROTTLE,
    &timer::TIMER,
    &user::USER,
    &throttled_wait::THROTTLED_WAIT,
    &rt_throttle::RT_THROTTLE,
    &lock::LOCK,
    &irq::IRQ,
    &breach::BREACH,
    &flight::FLIGHT,
];

/// Decides by which source each signal is seen; with those that `explain` late wake-ups, where that is wanted.
///
/// # Errors
/// When an indispensable one cannot be seen.
pub(super) fn decide(ask: &Ask<'_>, explain: bool) -> Result<Vec<Decided>, KernelError> {
    let rows = SIGNALS.iter().filter(|row| explain || !row.explains);
    let decided = rows.map(|row| match row.decide(ask) {
        Decided { sight: Err(reason), .. } if row.indispensable => Err(KernelError::Lacking(reason)),
        decided => Ok(decided),
    });
    decided.collect()
}

/// Switches on in the programs what was decided.
pub(super) fn configure(decided: &[Decided], config: &mut Config) {
    decided.iter().filter_map(Decided::source).for_each(|source| (source.configure)(config));
}

/// Programs to attach before all others; see [`row::Source::frozen`].
pub(super) fn frozen(decided: &[Decided]) -> impl Iterator<Item = Group> {
    decided.iter().filter_map(Decided::source).map(|source| source.frozen)
}

/// All programs that any kernel may be asked to take.
pub(super) fn probes() -> impl Iterator<Item = &'static Probe> {
    let groups = |source: &'static row::Source| {
        [source.frozen, source.probes].into_iter().chain(source.named.iter().chain(source.further).copied())
    };
    SIGNALS.iter().flat_map(|row| row.sources).flat_map(groups).flatten()
}

/// Attaches what was decided, signal by signal, and decides again after a refusal. `attach` attaches all of the programs
/// that it is given, or says which is refused.
///
/// # Errors
/// When a program of an indispensable signal is refused.
pub(super) fn attach(
    ask: &mut Ask<'_>,
    decided: &mut [Decided],
    mut attach: impl FnMut(&[Probe]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for at in 0..decided.len() {
        for group in decided[at].groups.clone() {
            // A refusal may have taken away what this one builds on.
            if !decided[at].groups.contains(&group) {
                continue;
            }
            match attach(group) {
                Ok(()) => {}
                Err(refusal) if decided[at].row.indispensable => return Err(refusal),
                Err(refusal) => {
                    ask.refuse(&refusal);
                    decided.iter_mut().for_each(|signal| decide_again(ask, signal));
                }
            }
        }
    }
    Ok(())
}

/// Decides once more after a refusal. A signal that cannot be seen any more keeps the name of its source.
fn decide_again(ask: &Ask<'_>, signal: &mut Decided) {
    let mut again = signal.row.decide(ask);
    if again.by.is_none() {
        again.words = signal.source().map_or_else(|| signal.words.clone(), |source| source.words.to_owned());
    }
    *signal = again;
}

/// Where throttles are counted.
pub(super) fn throttle_source(decided: &[Decided]) -> ThrottleSource {
    let throttle = decided.iter().find(|signal| signal.row.name == SignalName::Throttle);
    throttle::counted_by(throttle.and_then(|signal| signal.by))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io};

    use super::*;
    use crate::kernel::{
        config,
        offer::{Asked, Lack, Offer, System},
        offsets::CgroupSource,
        options::LoadOptions,
        pretence::Pretence,
    };
    use crate::snapshot::{Signal, SignalState};

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
        config::config(&offer, &options, 1)?;
        let decided = attached(&offer, |_| Ok(())).map(Result::unwrap)?;
        Ok((signals(decided), offer.asked()))
    }

    fn attached(
        offer: &Offer<'_>,
        attach_all: impl FnMut(&[Probe]) -> Result<(), Refusal>,
    ) -> Result<Result<Vec<Decided>, Refusal>, KernelError> {
        let mut ask = Ask::new(offer);
        let mut decided = decide(&ask, true)?;
        Ok(attach(&mut ask, &mut decided, attach_all).map(|()| decided))
    }

    fn signals(decided: Vec<Decided>) -> Vec<Signal> {
        decided.into_iter().map(Decided::signal).collect()
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
        let mut programs = Vec::new();
        let all = attached(&offer, |probes| {
            programs.extend(probes.iter().map(|probe| probe.program));
            Ok(())
        });
        let all = signals(all.unwrap().unwrap());
        let indispensable = wakeup::WAKEUP.sources[0].probes;
        for refused in programs {
            let attached = attached(&offer, |probes| match probes.iter().any(|probe| probe.program == refused) {
                true => Err((refused, io::Error::other("no")).into()),
                false => Ok(()),
            });
            let Ok(signals) = attached.unwrap().map(signals) else {
                assert!(indispensable.iter().any(|probe| probe.program == refused), "without {refused}");
                continue;
            };
            let unlike: Vec<&Signal> = all.iter().zip(&signals).filter(|(a, b)| a != b).map(|(_, b)| b).collect();
            assert!(!unlike.is_empty(), "without {refused}");
            for signal in unlike {
                assert!(signal.reason.as_ref().is_some_and(|reason| reason.contains(refused)), "{signal:?}");
            }
        }
    }

    #[test]
    fn throttles_are_counted_by_the_source_that_the_signal_names() {
        let system = match System::read() {
            Ok(system) => system,
            Err(error) => return println!("SKIPPED: {error}"),
        };
        let pretence = Pretence::default();
        let offer = Offer::new(&system, &pretence);
        for refused in [&[][..], &["throttle_cfs_rq"], &["throttle_cfs_rq", "hrtimer_expire_exit"]] {
            let mut ask = Ask::new(&offer);
            refused.iter().for_each(|program| ask.refuse(&(*program, io::Error::other("no")).into()));
            let decided = decide(&ask, true).unwrap();
            let counted_by = throttle_source(&decided);
            let signal = signals(decided).into_iter().find(|signal| signal.name == SignalName::Throttle).unwrap();
            let named = match signal.source.split(' ').next() {
                Some("fexit") => ThrottleSource::Fentry,
                Some("tp_btf") => ThrottleSource::PeriodTimer,
                _ => ThrottleSource::CpuStat,
            };
            assert_eq!(counted_by, named, "without {refused:?}: {signal:?}");
        }
    }
}
