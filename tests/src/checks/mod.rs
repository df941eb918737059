//! The checks: what a user of guard can rely on, each tried with a workload that knows the truth itself.

mod act;
mod container;
mod couplings;
mod doctor;
mod events;
mod explain;
mod field;
mod gate;
mod html;
mod lab;
mod lacking;
mod limits;
mod lock;
mod long_waits;
mod machine;
mod metrics;
mod osnoise;
mod panics;
mod probe;
mod quota;
mod restore;
mod rtla;
mod scale;
mod taken;
mod timer;
mod top;
mod wakeup;

use crate::scenario::{Scenario, Verdict};

const fn loads(name: &'static str, check: fn() -> anyhow::Result<Verdict>) -> Scenario {
    Scenario { name, loads: true, by_name: None, times: false, check }
}

/// As [`loads`], and what it compares are times.
const fn times(name: &'static str, check: fn() -> anyhow::Result<Verdict>) -> Scenario {
    Scenario { name, loads: true, by_name: None, times: true, check }
}

const fn refuses(name: &'static str, check: fn() -> anyhow::Result<Verdict>) -> Scenario {
    Scenario { name, loads: false, by_name: None, times: false, check }
}

/// As it is elsewhere, but only run when it is asked for by name.
const fn by_name(scenario: Scenario, reason: &'static str) -> Scenario {
    Scenario { by_name: Some(reason), ..scenario }
}

/// What guard is to keep and does not keep everywhere yet.
const OPEN: &str = "open: guard does not keep this everywhere yet";
/// What the default suite does not need an emulated guest for.
const ELSEWHERE: &str = "the suite has the like of it on the host or in a field guest";
/// What takes an emulated guest many minutes.
const LONG: &str = "takes an emulated guest a quarter of an hour";

/// Checks whose outcome may depend on the kernel: of what it shows, and of what becomes of it.
const BY_KERNEL: &[Scenario] = &[
    loads("a cgroup shows the wake-ups of its threads", wakeup::cgroup_shows_wakeups),
    times("a cyclic FIFO thread is found, counted and makes its cgroup a PLC", timer::cyclic_thread_is_found),
    times("every way to wait for time has its stages and its kind", timer::every_wait_is_seen),
    times("missed cycles are counted", timer::missed_cycles_are_counted),
    times("throttles reconcile with cpu.stat", quota::throttles_reconcile),
    loads("the ancestor whose quota throttles is named", quota::ancestor_is_named),
    loads("a throttle of a protected cgroup is told at once", events::throttles_are_told),
    times("waiting for quota is not waiting for a CPU", quota::throttled_wait_is_apart),
    times("CPU time taken from a FIFO thread is seen and attributed", taken::fifo_hog),
    times("a FIFO thread on a contended PI lock shows waits and boosts", lock::pi_boosts),
    times("a FIFO thread on a contended kernel lock shows waits", lock::kernel_lock),
    times("late wake-ups made on purpose have their causes named", explain::causes_are_named),
    times("a wait behind a hog that the recorder forgets is shared out as it was", long_waits::behind_a_hog),
    times("a chain of two locks is shown down to the quota of another cgroup", explain::chain_is_whole),
    loads("a thread may end while it is watched", limits::thread_ends),
    loads("tids that are used again bring no absurd latencies", limits::churn),
    loads("guard killed at work leaves nothing in the kernel", limits::killed),
    loads("whatever a kernel lacks costs the signals that need it, which say so", lacking::everything_may_be_missing),
];

/// Checks of what must hold on every kernel alike.
const EVERYWHERE: &[Scenario] = &[
    times("the owner of a plain mutex is named by its word, with the stacks of both", explain::futex_owner),
    loads("what was recorded is explained again, and a trace can be written", explain::replayed_and_traced),
    loads("the report follows its published schema", limits::schema),
    loads("the gate judges reports of this machine by their budgets", gate::budgets_and_baselines),
    loads("a cgroup pattern that matches nothing is wrong usage", limits::no_such_cgroup),
    loads("a thread that does not exist is wrong usage", limits::no_such_thread),
    refuses("without root guard says what it needs", limits::not_root),
    loads("a program that the kernel refuses costs its own signal", lacking::a_refused_program_costs_its_signal),
    loads("what is only pretended to be missing is said aloud", lacking::pretended_aloud),
];

/// What the kernel takes back differs between cgroup v1, which the host may have, and v2, which guests have.
const KILLED: Scenario = loads(
    "killed again and again while others write too, guard restore loses nothing",
    restore::killed_while_others_write,
);

/// Some thousand programs for the verifier.
const VERIFIER: Scenario =
    loads("without each thing and each pair the verifier takes what is left", lacking::the_verifier_takes_what_is_left);

/// How fast events come, and not which kernel it is, decides whether the recorder is overrun.
const STORM: Scenario =
    times("a wait behind a storm that overruns the recorder is shared out as it was", long_waits::behind_a_storm);

/// The hazard that `guard lab` is there for.
const QUOTA_LOCK: Scenario =
    times("guard lab quota-lock: guard lifts the quota that stops a lock's holder", lab::quota_lock);

/// Its other hazards, each with what guard promises about it. An emulated machine takes half a minute for each, and adds
/// nothing to what the others show of its kernel.
const LAB: [Scenario; 6] = [
    times("guard lab quota-none: without a quota guard changes nothing", lab::quota_none),
    times("guard lab quota-pi: priority inheritance keeps the harm away", lab::quota_pi),
    times("guard lab quota-fallback: a loop that was refused FIFO is protected by configuration", lab::quota_fallback),
    times("guard lab quota-co-thread: the thread that makes the loop's data is protected", lab::quota_co_thread),
    times("guard lab noisy-be: best-effort work gives way", lab::noisy_be),
    times("guard lab rt-throttle: what is taken from a FIFO hog is told", lab::rt_throttle),
];

/// Checks for this machine.
#[must_use]
pub fn on_host() -> Vec<Scenario> {
    let mut all = [BY_KERNEL, EVERYWHERE].concat();
    all.push(STORM);
    all.push(loads("guard run without --enforce writes to no cgroup file", act::nothing_is_written_without_enforce));
    all.push(loads(
        "a PLC is protected before guard's programs are loaded, also where the kernel refuses them",
        act::a_kernel_that_refuses_guard_finds_it_has_protected_and_put_back,
    ));
    all.push(loads("a lifted quota is back after a stop, and the audit log says why", act::a_stop_puts_the_quota_back));
    all.push(loads("a lifted quota is back after a kill and guard restore", act::a_kill_leaves_what_restore_puts_back));
    all.push(loads(
        "a panic of what protects ends guard, all of it put back, with exit code 70",
        panics::of_what_protects,
    ));
    all.push(loads("a panic of who puts back leaves the rest to guard restore", panics::of_who_puts_back));
    all.push(loads("a panic of what only shows does not end the protection", panics::of_what_only_shows));
    all.push(refuses("the dashboard without a terminal says what to use instead", top::needs_a_terminal));
    all.push(loads("a recording survives the death of its writer", top::recording_survives_kill));
    all.push(loads("a full disk ends a recording and not guard", top::full_disk));
    all.push(refuses("the dashboard shows each view by its key and fits every size", top::keys_and_sizes));
    all.push(refuses("the dashboard shows 500 workloads, and nothing", top::crowd_and_desert));
    all.push(refuses("signals end the dashboard and give the terminal back", top::signals_restore));
    all.push(loads("the dashboard opens and shows this machine", top::live));
    all.push(refuses("the dashboard shows what doctor says of this machine", top::doctor));
    all.push(refuses("a panic gives the terminal back before it is told", top::panic_restores));
    all.push(refuses("a terminal that vanishes ends the dashboard", top::lost_terminal));
    all.push(refuses("an HTML report fits a browser's window, in light and dark", html::looks_right));
    all.push(loads("what was measured here opens as an HTML report", html::of_this_machine));
    all.push(refuses("guard probe prints what cyclictest prints", probe::lines_are_cyclictests));
    all.push(refuses("one script reads cyclictest's output and guard probe's", probe::scripts_read_both));
    all.push(refuses("guard probe names what it cannot do", probe::refuses));
    all.push(refuses("guard probe measures in the cgroup that is named", probe::in_a_cgroup));
    all.push(loads("guard probe shows the kernel's view of its own threads", probe::passive_beside));
    all.push(refuses("damaged, foreign and newer recordings are told and never a panic", top::damaged_recordings));
    all.push(loads("a controller that dies while it is watched is told and found again", top::controller_dies));
    all.push(loads("Prometheus scrapes guard, in text and with native histograms", metrics::real_prometheus));
    all.push(refuses("the alert rules fire on what they are for and on nothing else", metrics::alert_rules));
    all.push(refuses("metrics are shown to no other machine unless that is asked for", metrics::remote_is_refused));
    all.push(loads("clients of the metrics hold nothing up", metrics::hostile_clients));
    all.push(times("what threads time themselves is what guard says", timer::agreement));
    all.push(loads("2000 cgroups and 10000 threads are counted, the surplus as other", scale::crowd));
    all.push(refuses("what doctor says is well-formed, for root and for nobody", doctor::well_formed));
    all.push(loads("doctor finds the quota above a FIFO process, and its command lifts it", doctor::quota));
    all.push(refuses("guard lab leaves nothing behind when it is interrupted", lab::interrupted));
    all.push(refuses("what a killed lab left behind goes with the next one", lab::killed));
    all.push(refuses("guard lab says that it needs root", lab::not_root));
    all.push(loads("cgroups by the thousand that come and go are no trouble while guard enforces", scale::churn));
    all.push(KILLED);
    all.push(VERIFIER);
    all.push(QUOTA_LOCK);
    all.extend(LAB);
    all
}

/// Checks for a booted field guest: systemd, Docker, containerd, podman; with `brief` those only in which its kernel has a part.
#[must_use]
pub fn in_field(brief: bool) -> Vec<Scenario> {
    field::all(brief)
}

/// Checks for a booted PREEMPT_RT guest; with `brief` those only whose outcome may depend on its kernel.
#[must_use]
pub fn in_guest(brief: bool) -> Vec<Scenario> {
    let mut all = BY_KERNEL.to_vec();
    all.push(loads("timerfd and nanosleep loops wake by different stages on PREEMPT_RT", timer::stages_differ));
    all.push(times("irq and thread stages agree with rtla timerlat", rtla::timerlat));
    all.push(loads("a lifted quota is back after a stop, and the audit log says why", act::a_stop_puts_the_quota_back));
    all.push(QUOTA_LOCK);
    if !brief {
        all.push(KILLED);
        all.push(STORM);
        all.push(loads("every command of doctor runs, mends what it is for, and can be undone", doctor::commands_mend));
        all.push(times(
            "couplings are found where one thing makes the other, and nowhere else",
            couplings::what_goes_together,
        ));
        all.push(loads(
            "a lifted quota is back after a kill and guard restore",
            act::a_kill_leaves_what_restore_puts_back,
        ));
        let elsewhere = [
            loads("guard run without --enforce writes to no cgroup file", act::nothing_is_written_without_enforce),
            loads("a podman container with a FIFO loop appears by name as PLC", container::podman),
            times("a podman container with --cpus 0.2 keeps its cycles without any configuration", lab::container),
            refuses("the examples for pipelines measure, judge and end as they say", gate::pipelines),
        ];
        let osnoise = times("the parts of a late wake-up agree with the kernel's osnoise events", osnoise::parts_agree);
        all.extend([osnoise, VERIFIER].map(|scenario| by_name(scenario, LONG)));
        all.extend(EVERYWHERE.iter().chain(&elsewhere).map(|scenario| by_name(*scenario, ELSEWHERE)));
    }
    // Near the end: interrupts stay away from a CPU that has come back.
    all.push(times("a clock that is set makes nobody late", machine::clock_steps));
    all.push(times("a CPU that goes and comes back costs no cycle and no sense", machine::hotplug));
    if !brief {
        all.extend(LAB.map(|scenario| by_name(scenario, OPEN)));
    }
    all
}
