//! Diagnostics of guard itself: on stderr, so that stdout holds the report only.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Environment variable with tracing-subscriber's filter directives, e.g. `guard::kernel=debug`.
const VARIABLE: &str = "GUARD_LOG";

/// Starts logging: warnings, more with `-v`, or what GUARD_LOG says. A second start in one process changes nothing.
pub(super) fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter =
        std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()).map(|text| (EnvFilter::try_new(&text), text));
    let (filter, complaint) = match filter {
        None => (EnvFilter::default().add_directive(level.into()), None),
        Some((Ok(filter), _)) => (filter, None),
        Some((Err(error), text)) => (EnvFilter::default().add_directive(level.into()), Some((error, text))),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
    if let Some((error, text)) = complaint {
        tracing::warn!("{VARIABLE}={text}: {error}; it is ignored");
    }
}
