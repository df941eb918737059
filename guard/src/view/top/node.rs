//! The node: what each CPU was busy with, what guard can see here and what it costs.

use super::super::figures::{self, ABSENT};
use super::super::text;
use super::grid::{Align, Column, Grid, column, plain};
use super::page::Page;
use super::state::App;
use super::theme::Level;
use crate::snapshot::{Cpu, SignalName, SignalState, Snapshot, Stolen};
use ratatui::style::Style;

const COLUMNS: [Column; 9] = [
    column("cpu", Align::Right, 0),
    column("isolated", Align::Left, 6),
    column("busy", Align::Right, 1),
    column("hardirq", Align::Right, 0),
    column("longest", Align::Right, 4),
    column("softirq", Align::Right, 0),
    column("longest", Align::Right, 5),
    column("irqs while RT", Align::Right, 2),
    column("taken from RT", Align::Right, 3),
];

pub(super) fn page(app: &App, snapshot: &Snapshot, width: usize) -> Page {
    let theme = app.options.theme;
    let mut page = Page::default();
    page.section("CPUS", "shares of this interval; RT: while a real-time thread was runnable", theme);
    let irq = snapshot.sees(SignalName::Irq);
    let mut grid = Grid::new(&COLUMNS);
    for cpu in &snapshot.cpus {
        grid.push(plain(cells(cpu, snapshot, irq)));
    }
    let (head, rows) = grid.lines(width, theme.faint());
    page.body.push(head);
    page.body.extend(rows);

    page.section("NODE", "", theme);
    let node = &snapshot.node;
    let kind = if node.realtime { "PREEMPT_RT" } else { "not PREEMPT_RT" };
    page.wrapped(
        &format!("{}: kernel {} {}, {kind}, CPUs {}", node.hostname, node.kernel, node.arch, node.cpus),
        2,
        width,
        Style::new(),
    );
    page.wrapped(&node.cmdline, 2, width, theme.faint());
    if let Some(why) = &node.hands_off {
        page.wrapped(&format!("guard must not write here: {why}"), 2, width, theme.level(Level::Warn));
    }

    page.section("SIGNALS", "what guard sees here, and by which means", theme);
    for signal in &snapshot.signals {
        let (state, level) = match signal.state {
            SignalState::Active => ("seen", Level::Fine),
            SignalState::Degraded => ("in part", Level::Warn),
            SignalState::Unavailable => ("not seen", Level::Warn),
            SignalState::Off => ("off", Level::Fine),
        };
        let reason = signal.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        let line = format!("{:<15}{state:<9}{}{reason}", signal.name, signal.source);
        page.wrapped_hanging(&line, width, theme.level(level));
    }

    page.section("GUARD", "what it costs and what it lost", theme);
    let lost = text::lost(&snapshot.overhead.lost);
    let lost = if lost.is_empty() { "nothing lost".to_owned() } else { format!("lost: {lost}") };
    page.wrapped(&lost, 2, width, Style::new());
    let mut cost = String::new();
    text::cost(snapshot, &mut cost);
    page.wrapped(cost.trim_end(), 2, width, Style::new());
    page
}

fn cells(cpu: &Cpu, snapshot: &Snapshot, irq: bool) -> [String; 9] {
    #[allow(clippy::cast_precision_loss, reason = "shares for people")]
    let share = |ns: u64| {
        let of = snapshot.window.seconds * 1e9;
        if of > 0.0 { format!("{:.1} %", 100.0 * ns as f64 / of) } else { ABSENT.to_owned() }
    };
    let share_if = |ns: u64| if irq { share(ns) } else { ABSENT.to_owned() };
    let while_rt = cpu.hardirq.while_rt_ns.saturating_add(cpu.softirq.while_rt_ns);
    [
        cpu.cpu.to_string(),
        if cpu.isolated { "yes" } else { "" }.to_owned(),
        cpu.busy_ns.map_or(ABSENT.to_owned(), share),
        share_if(cpu.hardirq.total_ns),
        figures::time_if(irq && cpu.hardirq.count > 0, cpu.hardirq.max_ns),
        share_if(cpu.softirq.total_ns),
        figures::time_if(irq && cpu.softirq.count > 0, cpu.softirq.max_ns),
        figures::time_if(irq && while_rt > 0, while_rt),
        if snapshot.sees(SignalName::RtThrottle) { taken(cpu.rt_throttle, cpu.fair_server) } else { ABSENT.to_owned() },
    ]
}

/// Who took the CPU from real-time threads.
fn taken(rt_throttle: Stolen, fair_server: Stolen) -> String {
    let told = |what: &str, stolen: Stolen| {
        (stolen.count > 0).then(|| format!("{what} {}x {}", stolen.count, figures::time(stolen.total_ns)))
    };
    let all: Vec<String> =
        [told("throttling", rt_throttle), told("server", fair_server)].into_iter().flatten().collect();
    if all.is_empty() { "0".to_owned() } else { all.join(", ") }
}
