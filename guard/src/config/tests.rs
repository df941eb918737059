//! Each kind of mistake with its message and line, and the sample file against the defaults.

use std::collections::BTreeSet;

use super::*;
use crate::snapshot::Class;

const SAMPLE: &str = include_str!("../../../deploy/guard.toml");

fn parse(text: &str) -> Result<Config, Mistake> {
    Config::parse(text, Path::new("guard.toml"))
}

fn message(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn a_file_is_understood() {
    let config = parse(
        "[node]\nreserved_cpus = \"0-1\"\ninterval = \"500ms\"\n\n[[workload]]\nmatch.cgroup = \"/plc*\"\nclass = \"PLC\"\n\
         wakeup.p999 = \"100us\"\ntimer.max = \"1ms\"\nrequest = 0.5\nlimit = 2\n\n[[workload]]\nmatch = { unit = \"backup.service\" }\n\
         managed = false\n",
    )
    .unwrap();
    assert_eq!((config.node.reserved_cpus.to_string(), config.node.interval.ns()), ("0-1".into(), 500_000_000));
    let [plc, backup] = &config.workloads[..] else { panic!("{:?}", config.workloads) };
    assert_eq!((plc.class, plc.is_managed()), (Some(Class::Plc), true));
    assert_eq!((plc.request.unwrap().milli, plc.limit.unwrap().milli), (500, 2_000));
    assert_eq!(plc.late_ns(), Some(100_000));
    assert_eq!((backup.class, backup.is_managed()), (None, false));
}

#[test]
fn a_text_that_is_no_toml_names_the_line() {
    let text = message("[node]\ninterval = \"1s\"\ninterval 5\n");
    assert!(text.starts_with("guard.toml:3: "), "{text}");
    let text = message("[node]\ninterval = \"1s\"\n[node]\n");
    assert!(text.starts_with("guard.toml:3: ") && text.contains("duplicate"), "{text}");
}

#[test]
fn unknown_keys_and_sections_are_named_with_the_known_ones() {
    let text = message("[node]\ninterval = \"1s\"\nintervall = \"1s\"\n");
    assert!(text.starts_with("guard.toml:3: node.intervall") && text.contains("`interval`"), "{text}");
    let text = message("\n[supress]\n");
    assert!(text.starts_with("guard.toml:2: supress: ") && text.contains("`suppress`"), "{text}");
    let text = message("[[workload]]\nmatch.cgroup = \"/a\"\nwakeup.p98 = \"1ms\"\n");
    assert!(text.starts_with("guard.toml:3: workload[1].wakeup.p98 = \"1ms\": ") && text.contains("`p99`"), "{text}");
    for section in ["suppress", "burst", "protect", "cpuset", "metrics"] {
        let text = message(&format!("[{section}]\nno_such_key = 1\n"));
        assert!(text.starts_with(&format!("guard.toml:2: {section}.no_such_key = 1: unknown field")), "{text}");
    }
}

#[test]
fn values_of_the_wrong_kind_say_what_is_wanted() {
    for (text, says) in [
        (
            "[node]\ninterval = 5\n",
            "guard.toml:2: node.interval = 5: invalid type: integer `5`, expected a time with its unit in quotes, such as \"10s\", \"500ms\" or \"100us\"",
        ),
        (
            "[node]\ninterval = \"5\"\n",
            "guard.toml:2: node.interval = \"5\": want a number and a unit, such as 10s, 500ms or 100us",
        ),
        (
            "[node]\nreserved_cpus = \"a-b\"\n",
            "guard.toml:2: node.reserved_cpus = \"a-b\": expected a CPU list such as 0-3,8, found \"a-b\"",
        ),
        (
            "[[workload]]\nmatch.cgroup = \"/a\"\nclass = \"FAST\"\n",
            "guard.toml:3: workload[1].class = \"FAST\": unknown variant `FAST`, expected one of `PLC`, `LSE`, `LSR`, `LS`, `BE`, `SYSTEM`",
        ),
        (
            "[[workload]]\nmatch.cgroup = \"/a\"\nrequest = -1\n",
            "guard.toml:3: workload[1].request = -1: want a number of CPUs from 0.001 to 8192",
        ),
        (
            "[[workload]]\nmatch.cgroup = \"/a\"\nmanaged = \"no\"\n",
            "guard.toml:3: workload[1].managed = \"no\": invalid type: string \"no\", expected a boolean",
        ),
    ] {
        assert_eq!(message(text), says);
    }
}

#[test]
fn impossible_values_say_what_is_possible() {
    for (text, says) in [
        ("[node]\ninterval = \"1ms\"\n", "guard.toml:2: node.interval = \"1ms\": want 100ms to 60s"),
        ("[node]\nstate_dir = \"here\"\n", "guard.toml:2: node.state_dir = \"here\": want an absolute path"),
        ("[node]\naudit = \"a.jsonl\"\n", "guard.toml:2: node.audit = \"a.jsonl\": want an absolute path"),
        (
            "[[workload]]\nclass = \"BE\"\n",
            "guard.toml:1: workload[1].match: want at least one of cgroup, container, pod, unit and comm",
        ),
        (
            "[[workload]]\nclass = \"BE\"\nmatch.cgroup = \"/a[\"\n",
            "guard.toml:3: workload[1].match.cgroup = \"/a[\": no glob: unclosed character class; missing ']'",
        ),
        (
            "[[workload]]\nmatch.cgroup = \"/a\"\ntimer.max = \"1h\"\n",
            "guard.toml:3: workload[1].timer.max = \"1h\": want 1us to 10s",
        ),
        (
            "[suppress]\n\nmax_rise_percent = 90\n",
            "guard.toml:3: suppress.max_rise_percent = 90: 90 is not within 1 to 10",
        ),
        (
            "[metrics]\nlisten = \"localhost\"\n",
            "guard.toml:2: metrics.listen = \"localhost\": want an IP address with its port, such as 127.0.0.1:9469, or http+unix: with the full path of a socket",
        ),
        ("[metrics]\nmax_cgroups = 0\n", "guard.toml:2: metrics.max_cgroups = 0: want 1 to 10000"),
        (
            "[metrics]\nlisten = \"0.0.0.0:9469\"\n",
            "guard.toml:2: metrics.listen = \"0.0.0.0:9469\": other machines could read it: choose an address of loopback, or set allow_remote = true",
        ),
        (
            "[suppress]\nprofile = \"fast\"\n",
            "guard.toml:2: suppress.profile = \"fast\": unknown variant `fast`, expected one of `off`, `latency`, `pressure`, `threshold`",
        ),
    ] {
        assert_eq!(message(text), says);
    }
}

#[test]
fn contradictions_are_named() {
    for (text, says) in [
        (
            "[[workload]]\nmatch.cgroup = \"/a\"\nclass = \"BE\"\n\n[[workload]]\nclass = \"PLC\"\nmatch.cgroup = \"/a\"\n",
            "guard.toml:7: workload[2].match: workload[1] matches exactly the same and comes first: this one never counts",
        ),
        (
            "[[workload]]\nmatch.cgroup = \"/a\"\nclass = \"BE\"\nwakeup.max = \"1ms\"\n",
            "guard.toml:4: workload[1].wakeup.max = \"1ms\": class BE promises no latency: take the budget away or choose another class",
        ),
        (
            "[[workload]]\nmatch.cgroup = \"/a\"\nwakeup.p99 = \"1ms\"\nwakeup.max = \"100us\"\n",
            "guard.toml:4: workload[1].wakeup.max = \"100us\": smaller than the limit at p99: want limits that grow towards max",
        ),
        (
            "[[workload]]\nmatch.cgroup = \"/a\"\nlimit = 1\nrequest = 2\n",
            "guard.toml:4: workload[1].request = 2: more than the limit of the same workload",
        ),
        (
            "[[workload]]\nmatch.cgroup = \"/a\"\n",
            "guard.toml:1: workload[1]: says nothing: want class, wakeup, timer, request, limit or managed beside match",
        ),
        (
            "[suppress]\nforget_s = 60.0\nforget_max_s = 5.0\n",
            "guard.toml:3: suppress.forget_max_s = 5.0: 5 is less than forget_s (60)",
        ),
        (
            "[suppress.pressure]\ntable = [[80.0, 0.3], [50.0, 0.8]]\n",
            "guard.toml:2: suppress.pressure.table = [[80.0, 0.3], [50.0, 0.8]]: pressures must ascend and shares must not",
        ),
        ("[protect]\nallow = []\n", "guard.toml:2: protect.allow = []: allows nothing although protect is enabled"),
    ] {
        assert_eq!(message(text), says);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/no/such/guard.toml")).unwrap_err().to_string();
    assert_eq!(error, "/no/such/guard.toml: cannot read it: No such file or directory (os error 2)");
}

/// Every key of a table with its sections.
fn keys(table: &toml::Table, prefix: &str) -> BTreeSet<String> {
    table
        .iter()
        .flat_map(|(name, value)| {
            let key = format!("{prefix}{name}");
            match value {
                toml::Value::Table(inner) => keys(inner, &format!("{key}.")),
                _ => BTreeSet::from([key]),
            }
        })
        .collect()
}

#[test]
fn the_sample_shows_every_default() {
    let sample: toml::Table = SAMPLE.parse().unwrap();
    let defaults = toml::Table::try_from(File::default()).unwrap();
    assert_eq!(keys(&sample, ""), keys(&defaults, ""));
    assert_eq!(sample, defaults);
    assert_eq!(parse(SAMPLE).unwrap(), Config::default());
}

/// The sample with everything in it that is commented out: lines that begin with "#" and no space.
fn uncommented() -> String {
    let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_the_sample_comments_out_is_right_too() {
    assert!(!parse(&uncommented()).unwrap().workloads.is_empty());
}

#[test]
fn the_sample_shows_every_key_that_there_is() {
    let sample = uncommented();
    // serde names all the fields of a section when it meets one that is none.
    for (section, head) in [
        ("node", "[node]"),
        ("suppress", "[suppress]"),
        ("suppress.latency", "[suppress.latency]"),
        ("suppress.pressure", "[suppress.pressure]"),
        ("suppress.threshold", "[suppress.threshold]"),
        ("burst", "[burst]"),
        ("protect", "[protect]"),
        ("cpuset", "[cpuset]"),
        ("metrics", "[metrics]"),
        ("workload", "[[workload]]"),
        ("match", "[[workload]]\n[workload.match]"),
        ("wakeup", "[[workload]]\n[workload.wakeup]"),
    ] {
        let message = message(&format!("{head}\nno_such_key = 1\n"));
        for field in message.split('`').skip(3).step_by(2) {
            let shown = sample.lines().any(|line| {
                let line = line.trim_start();
                line.starts_with(&format!("{field} ="))
                    || line == format!("[{section}.{field}]")
                    || line.contains(&format!("{field}."))
                    || line.contains(&format!(".{field} ="))
                    || line.contains(&format!("{{ {field} ="))
                    || line.contains(&format!(", {field} ="))
            });
            assert!(shown, "deploy/guard.toml does not show {section}.{field}");
        }
    }
}
