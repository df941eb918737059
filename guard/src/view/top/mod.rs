//! The dashboard, without a terminal: a state that events change ([`App::update`]) and a picture of it ([`render`]). One file
//! per view. Nothing here reads a clock, a file or a key; what has to be done outside is returned as an [`Effect`].

mod actions;
mod app;
mod causes;
mod doctor;
mod grid;
mod help;
mod history;
mod node;
mod overview;
mod page;
pub(super) mod risk;
mod screen;
mod state;
mod svg;
#[cfg(test)]
mod tests;
mod theme;
mod workload;

pub use app::{AppEvent, Effect, Order};
pub use screen::render;
pub use state::{App, AppOptions, SourceKind, SourceState};
pub use svg::svg;
pub(super) use theme::Level;
pub use theme::Theme;
