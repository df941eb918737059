//! Colours and signs. Meaning never hangs on colour alone: each level has its sign, and colours are blue, yellow and
//! orange, which the common kinds of colour blindness tell apart.

use ratatui::style::{Color, Modifier, Style};

/// How bad something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::view) enum Level {
    /// Nothing to see to.
    #[default]
    Fine,
    /// Worth a look.
    Warn,
    /// Harm was done.
    Bad,
}

impl Level {
    /// Its sign, two columns wide.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Fine => "  ",
            Self::Warn => "! ",
            Self::Bad => "!!",
        }
    }
}

/// With colours or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// The terminal's 256 colours.
    Colour,
    /// Bold, dim and reversed only.
    Plain,
}

/// Orange, yellow and blue of the 256 colours.
pub(super) const ORANGE: Color = Color::Indexed(208);
pub(super) const YELLOW: Color = Color::Indexed(220);
pub(super) const BLUE: Color = Color::Indexed(75);
pub(super) const GREY: Color = Color::Indexed(245);

impl Theme {
    fn coloured(self, colour: Color) -> Style {
        match self {
            Self::Colour => Style::new().fg(colour),
            Self::Plain => Style::new(),
        }
    }

    /// For what is as bad as this.
    pub(super) fn level(self, level: Level) -> Style {
        match level {
            Level::Fine => Style::new(),
            Level::Warn => self.coloured(YELLOW),
            Level::Bad => self.coloured(ORANGE).add_modifier(Modifier::BOLD),
        }
    }

    /// Heads of tables and sections.
    pub(super) fn head(self) -> Style {
        self.coloured(BLUE).add_modifier(Modifier::BOLD)
    }

    /// What is less important.
    pub(super) fn faint(self) -> Style {
        match self {
            Self::Colour => Style::new().fg(GREY),
            Self::Plain => Style::new().add_modifier(Modifier::DIM),
        }
    }

    /// Bars and trends.
    pub(super) fn bar(self) -> Style {
        self.coloured(BLUE)
    }

    /// The selected row.
    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
