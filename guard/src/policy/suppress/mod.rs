//! suppress

mod settings;

pub use settings::{Form, LatencySettings, PressureSettings, Profile, Settings, ThresholdSettings};
