//! Screens as reviewed pictures, and keys in any order.

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::*;
use crate::snapshot::{Bandwidth, Budget, Cgroup, Class, Knobs, Snapshot};
use crate::view::samples;

fn app(theme: Theme, size: (u16, u16)) -> App {
    let options = AppOptions { kind: SourceKind::Live, limit_ns: 1_000_000, speed: 1.0, theme, size };
    App::new(options, SourceState::Loading("Loading guard's programs into the kernel".into()))
}

fn drawn(app: &App) -> Buffer {
    let (columns, rows) = app.options.size;
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| render(frame, app)).unwrap();
    terminal.backend().buffer().clone()
}

/// The screen's text, without blanks at the ends of lines.
fn screen(app: &App) -> String {
    let buffer = drawn(app);
    let rows = buffer.content.chunks(usize::from(buffer.area.width).max(1));
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    rows.map(|cells| line(cells).trim_end().to_owned() + "\n").collect()
}

fn press(app: &mut App, keys: &str) -> Vec<Effect> {
    keys.chars()
        .flat_map(|c| {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '<' => KeyCode::Left,
                '>' => KeyCode::Right,
                'v' => KeyCode::Down,
                _ => KeyCode::Char(c),
            };
            app.update(AppEvent::Key(KeyEvent::new(code, KeyModifiers::NONE)))
        })
        .collect()
}

fn take(app: &mut App, snapshot: Snapshot) -> Vec<Effect> {
    app.update(AppEvent::Snapshot(Box::new(snapshot)))
}

/// Interval `n` of a node with three workloads; every fourth interval the PLC is late.
fn interval(n: u64) -> Snapshot {
    let mut snapshot = samples::full();
    snapshot.window.start = format!("2026-11-22T00:{:02}:{:02}Z", n / 60, n % 60);
    snapshot.window.seconds = 1.0;
    snapshot.cgroups[0].timer.user.record(200_000 * (n % 5 + 1));
    snapshot.cgroups[0].budgets = vec![Budget { metric: "timer.p99".into(), limit_ns: 2_000_000 }];
    let quota = Bandwidth { quota_us: Some(20_000), period_us: 100_000 };
    snapshot.cgroups[1].knobs = Some(Knobs { quota: Some(quota), ..Knobs::default() });
    if n % 4 != 3 {
        snapshot.breaches.clear();
        snapshot.actions.clear();
        snapshot.threads[0].breaches = 0;
        snapshot.cgroups[0].throttle.by = None;
    }
    snapshot
}

fn after(intervals: u64, size: (u16, u16)) -> App {
    let mut app = app(Theme::Colour, size);
    (0..intervals).for_each(|n| _ = take(&mut app, interval(n)));
    app
}

fn crowd(n: u64) -> Snapshot {
    let mut snapshot = samples::full();
    let cgroup = |id| {
        let mut cgroup = Cgroup { path: format!("/kubepods/pod-{id:03}"), id, class: Class::Be, ..Cgroup::default() };
        cgroup.wakeup.fair.record(10_000 + id * 1_000);
        cgroup
    };
    snapshot.cgroups.extend((1_000..1_000 + n).map(cgroup));
    snapshot
}

#[test]
fn the_overview_on_screens_of_three_sizes() {
    insta::assert_snapshot!("overview_wide", screen(&after(12, (200, 60))));
    insta::assert_snapshot!("overview", screen(&after(12, (80, 24))));
    insta::assert_snapshot!("overview_small", screen(&after(12, (40, 10))));
}

#[test]
fn every_other_view() {
    for (key, name) in [("\n", "workload"), ("c", "causes"), ("a", "actions"), ("n", "node"), ("?", "help")] {
        let mut app = after(12, (100, 48));
        press(&mut app, key);
        insta::assert_snapshot!(name, screen(&app));
    }
}

/// A report of doctor with a finding of each kind.
fn examined() -> crate::doctor::DoctorReport {
    use crate::doctor::{DoctorReport, Evidence, Finding, Remedy, RemedyStep, ReportNode, SCHEMA, Severity};
    let finding = |id: &str, severity, title: &str| Finding {
        id: id.into(),
        severity,
        title: title.into(),
        evidence: vec![Evidence { source: "/sys/fs/cgroup/plc/cpu.max".into(), value: "20000 100000".into() }],
        why: "A quota stops the threads that a loop waits for.".into(),
        link: "https://docs.kernel.org".into(),
        remedy: Some(Remedy {
            commands: vec![RemedyStep {
                change: "echo max > /sys/fs/cgroup/plc/cpu.max".into(),
                undo: "echo 1".into(),
            }],
            by_hand: Vec::new(),
            reboot: false,
        }),
    };
    DoctorReport {
        schema: SCHEMA,
        node: ReportNode {
            hostname: "cell-7".into(),
            kernel: "6.1".into(),
            realtime: true,
            cgroup: crate::snapshot::CgroupLayout::V2,
            cpus: "0-3".parse().unwrap(),
            rt_cpus: "1".parse().unwrap(),
            realtime_processes: 1,
        },
        findings: vec![
            finding("quota-above-rt", Severity::Critical, "a quota stands above a real-time process"),
            finding("governor", Severity::Warning, "CPUs change their frequency"),
            Finding { remedy: None, ..finding("smi", Severity::Unknown, "cannot be read without root") },
            finding("fine", Severity::Ok, "nothing wrong"),
        ],
    }
}

#[test]
fn doctor_is_asked_once_and_shown_and_asked_again_on_request() {
    let mut app = after(1, (100, 30));
    assert_eq!(press(&mut app, "d"), [Effect::Examine]);
    assert!(screen(&app).contains("Looking at this node"), "{}", screen(&app));
    assert_eq!(press(&mut app, "od"), [], "it is looking already");
    app.update(AppEvent::Examined(Box::new(examined())));
    insta::assert_snapshot!("doctor", screen(&app));
    assert_eq!(press(&mut app, "o6"), []);
    assert_eq!(press(&mut app, "r"), [Effect::Examine]);
    assert!(screen(&app).contains("(looking)"));
    let mut replayed = after(1, (100, 30));
    replayed.options.kind = SourceKind::Replay;
    assert_eq!(press(&mut replayed, "d"), []);
    assert!(screen(&replayed).contains("A recording does not have"));
}

#[test]
fn five_hundred_workloads_scroll_with_the_cursor() {
    let mut app = app(Theme::Colour, (80, 24));
    take(&mut app, crowd(500));
    insta::assert_snapshot!("crowd", screen(&app));
    (0..503).for_each(|_| _ = press(&mut app, "v"));
    assert!(screen(&app).contains("pod-1499"), "{}", screen(&app));
    press(&mut app, "/POD-1234\n");
    let text = screen(&app);
    assert!(text.contains("pod-1234") && !text.contains("pod-1235") && text.contains("filter: POD-1234"), "{text}");
    press(&mut app, "\n");
    assert!(screen(&app).contains("/kubepods/pod-1234"));
}

#[test]
fn before_the_first_interval_and_with_nothing_to_show() {
    let mut app = app(Theme::Colour, (80, 24));
    insta::assert_snapshot!("loading", screen(&app));
    take(&mut app, samples::empty());
    insta::assert_snapshot!("empty", screen(&app));
    for key in ["w", "c", "a", "n", "d"] {
        press(&mut app, key);
        assert!(screen(&app).lines().count() == 24);
    }
}

#[test]
fn without_colours_signs_say_the_same() {
    let (mut plain, coloured) = (after(4, (80, 24)), after(4, (80, 24)));
    plain.options.theme = Theme::Plain;
    assert_eq!(screen(&plain), screen(&coloured));
    assert!(screen(&plain).lines().nth(1).unwrap().starts_with("!! "));
    assert!(drawn(&plain).content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(drawn(&coloured).content.iter().any(|cell| cell.fg == theme::ORANGE));
}

#[test]
fn time_can_be_held_and_walked() {
    let mut app = after(3, (80, 24));
    press(&mut app, " ");
    take(&mut app, interval(3));
    assert!(screen(&app).contains("LIVE HELD -1") && screen(&app).contains("00:00:02"));
    press(&mut app, "<<<<");
    assert!(screen(&app).contains("HELD -3") && screen(&app).contains("00:00:00"));
    press(&mut app, ">");
    assert!(screen(&app).contains("00:00:01"));
    press(&mut app, " ");
    assert!(screen(&app).contains("00:00:03") && !screen(&app).contains("HELD"));
}

#[test]
fn it_stops_by_itself_at_a_late_wake_up() {
    let mut app = after(1, (80, 24));
    press(&mut app, "f");
    assert!(screen(&app).contains("will stop"));
    take(&mut app, interval(1));
    take(&mut app, interval(3));
    take(&mut app, interval(4));
    assert!(screen(&app).contains("HELD -1") && screen(&app).contains("00:00:03"), "{}", screen(&app));
}

#[test]
fn a_replay_is_told_to_pause_step_and_hurry() {
    let mut app = after(1, (80, 24));
    app.options.kind = SourceKind::Replay;
    assert_eq!(press(&mut app, " "), [Effect::Order(Order::Pause)]);
    assert_eq!(press(&mut app, ">"), [Effect::Order(Order::Step)]);
    assert_eq!(press(&mut app, "<"), []);
    assert_eq!(press(&mut app, " "), [Effect::Order(Order::Resume)]);
    assert_eq!(press(&mut app, "+"), [Effect::Order(Order::Speed(2.0))]);
    assert!(screen(&app).contains("REPLAY x2"));
}

#[test]
fn the_limit_is_typed_and_told_to_who_measures() {
    let mut app = after(1, (80, 24));
    let effects = press(&mut app, "t200us\n");
    assert_eq!(effects, [Effect::Order(Order::Threshold(std::time::Duration::from_micros(200)))]);
    assert_eq!(press(&mut app, "t5\n"), []);
    assert!(screen(&app).contains("\"5\" is no time"), "{}", screen(&app));
    app.options.kind = SourceKind::Socket;
    assert_eq!(press(&mut app, "t1ms\n"), []);
}

#[test]
fn the_interval_that_is_shown_is_the_one_that_is_saved() {
    let mut app = after(3, (80, 24));
    press(&mut app, "<");
    assert_eq!(press(&mut app, "p"), [Effect::Save(Box::new(interval(1)))]);
}

#[test]
fn nothing_is_drawn_when_nothing_changed() {
    let mut app = after(1, (80, 24));
    assert!(app.take_changed());
    assert!(!app.take_changed());
    app.update(AppEvent::Source(SourceState::Running));
    assert!(!app.take_changed());
    app.update(AppEvent::Source(SourceState::Ended));
    assert!(app.take_changed());
}

#[test]
fn a_lost_controller_is_told_and_what_was_seen_stays() {
    let mut app = after(2, (100, 24));
    app.update(AppEvent::Source(SourceState::Lost("/run/guard/guard.sock: the controller is gone".into())));
    let text = screen(&app);
    assert!(text.contains("LOST") && text.contains("the controller is gone") && text.contains("plc-1"), "{text}");
}

fn any_event() -> impl Strategy<Value = AppEvent> {
    let code = prop_oneof![
        6 => prop::char::range(' ', '~').prop_map(KeyCode::Char),
        1 => any::<char>().prop_map(KeyCode::Char),
        4 => prop::sample::select(vec![
            KeyCode::Up, KeyCode::Down, KeyCode::Left, KeyCode::Right, KeyCode::Enter, KeyCode::Esc, KeyCode::Tab,
            KeyCode::BackTab, KeyCode::PageUp, KeyCode::PageDown, KeyCode::Home, KeyCode::End, KeyCode::Backspace,
            KeyCode::Delete, KeyCode::F(1),
        ]),
    ];
    prop_oneof![
        8 => code.prop_map(|code| AppEvent::Key(KeyEvent::new(code, KeyModifiers::NONE))),
        1 => (0_u16..220, 0_u16..70).prop_map(|(columns, rows)| AppEvent::Resize(columns, rows)),
        1 => samples::any_snapshot().prop_map(|s| AppEvent::Snapshot(Box::new(s))),
        2 => (0..9_u64).prop_map(|n| AppEvent::Snapshot(Box::new(interval(n)))),
        1 => any::<bool>().prop_map(|_| AppEvent::Source(SourceState::Lost("gone".into()))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_keys_in_no_order_panic_and_q_always_ends(events in prop::collection::vec(any_event(), 0..40)) {
        let mut app = app(Theme::Colour, (80, 24));
        for event in events {
            app.update(event);
            let _ = drawn(&app);
        }
        let control_c = AppEvent::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        prop_assert_eq!(app.update(control_c), [Effect::Quit]);
        let quits = press(&mut app, "\u{1b}q").contains(&Effect::Quit);
        prop_assert!(quits);
    }
}
