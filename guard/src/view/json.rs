//! The Snapshot as JSON: indented for a report, one line for a stream. The published schema is
//! `docs/report.schema.json`, derived from the types.

use crate::snapshot::{self, Snapshot};

/// The Snapshot as indented JSON, without a final line feed.
///
/// # Errors
/// When serde_json refuses a value; no Snapshot holds one it refuses.
pub fn pretty(snapshot: &Snapshot) -> serde_json::Result<String> {
    serde_json::to_string_pretty(snapshot)
}

/// The Snapshot as one line of JSON, without its line feed.
///
/// # Errors
/// As [`pretty`].
pub fn line(snapshot: &Snapshot) -> serde_json::Result<String> {
    serde_json::to_string(snapshot)
}

/// The JSON schema of both, indented, with a final line feed.
///
/// # Errors
/// When serde_json refuses the schema; it never does.
pub fn schema() -> serde_json::Result<String> {
    serde_json::to_string_pretty(&snapshot::json_schema()).map(|text| text + "\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::view::samples;

    #[test]
    fn the_published_schema_is_the_one_of_the_types() {
        let published = include_str!("../../../docs/report.schema.json");
        assert!(
            published == schema().unwrap(),
            "docs/report.schema.json is out of date: run `guard report --json-schema > docs/report.schema.json`"
        );
    }

    fn published() -> jsonschema::Validator {
        jsonschema::validator_for(&serde_json::from_str(&schema().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_full_snapshot_keeps_to_the_schema() {
        let value: serde_json::Value = serde_json::from_str(&pretty(&samples::full()).unwrap()).unwrap();
        let errors: Vec<String> = published().iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn the_schema_refuses_a_wrong_value() {
        let mut value: serde_json::Value = serde_json::from_str(&line(&samples::full()).unwrap()).unwrap();
        value["threads"][0]["tid"] = "1234".into();
        assert!(!published().is_valid(&value));
    }

    #[test]
    fn the_contracted_names_are_where_scripts_look_for_them() {
        let value: serde_json::Value = serde_json::from_str(&line(&samples::full()).unwrap()).unwrap();
        for pointer in [
            "/schema",
            "/node/kernel",
            "/node/realtime",
            "/window/start",
            "/window/seconds",
            "/signals/0/reason",
            "/overhead/ns_per_event",
            "/overhead/lost",
            "/cgroups/0/container/name",
            "/cgroups/0/wakeup/rt/p99_ns",
            "/cgroups/0/timer/missed",
            "/cgroups/0/throttle/by",
            "/threads/0/timer/user/p9999_ns",
            "/threads/0/period_ns",
            "/breaches/0/shares/unknown",
        ] {
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_snapshot_is_one_line_and_comes_back(snapshot in samples::any_snapshot()) {
            let text = line(&snapshot).unwrap();
            prop_assert!(!text.contains('\n'));
            let back: Snapshot = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(line(&back).unwrap(), text);
        }
    }
}
