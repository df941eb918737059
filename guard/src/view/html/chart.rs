//! What the plots share: scales, axes, and a frame of SVG.

use std::fmt::Write as _;

use super::page::escaped;

/// Width of every plot, in SVG's user units; the page stretches it.
pub(super) const WIDTH: f64 = 960.0;
/// Curves that a reader can tell apart.
pub(super) const CURVES: usize = 6;

/// A logarithmic scale that ends at a power of ten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    from: f64,
    decades: f64,
    /// Where the scale begins and ends, user units.
    begin: f64,
    end: f64,
}

impl Log {
    /// A scale that holds `least` to `most`, at least one decade.
    pub(super) fn new(least: f64, most: f64, begin: f64, end: f64) -> Self {
        let from = least.max(f64::MIN_POSITIVE).log10().floor();
        let to = most.max(least).log10().ceil().max(from + 1.0);
        Self { from, decades: to - from, begin, end }
    }

    /// The same from `least` on, which need be no power of ten.
    pub(super) fn from(least: f64, most: f64, begin: f64, end: f64) -> Self {
        let to = Self::new(least, most, begin, end);
        let from = least.max(f64::MIN_POSITIVE).log10();
        Self { from, decades: to.from + to.decades - from, ..to }
    }

    /// Where a value stands; what is below the scale, at its begin.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = ((value.max(f64::MIN_POSITIVE).log10() - self.from) / self.decades).clamp(0.0, 1.0);
        self.begin + part * (self.end - self.begin)
    }

    /// The powers of ten, and between them the multiples, each with whether it is a power.
    fn ticks(&self) -> impl Iterator<Item = (f64, bool)> + '_ {
        #[allow(clippy::cast_possible_truncation, reason = "a handful of decades")]
        let (from, decades) = (self.from.ceil() as i32, (self.from + self.decades - self.from.ceil()).round() as i32);
        (0..=decades).flat_map(move |n| {
            let power = 10_f64.powi(from + n);
            let minor = (2..=9).filter(move |_| n < decades).map(move |m| (power * f64::from(m), false));
            std::iter::once((power, true)).chain(minor)
        })
    }
}

/// "10 us" for ticks, of ns that are a power of ten.
pub(super) fn tick_time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{value:.0} {unit}")
}

/// "1", "10", "1k", "10M" for counts that are a power of ten.
fn tick_count(n: f64) -> String {
    match n {
        n if n < 1e3 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.0}k", n / 1e3),
        n if n < 1e9 => format!("{:.0}M", n / 1e6),
        n => format!("{:.0}G", n / 1e9),
    }
}

/// A plot under way.
pub(super) struct Svg {
    out: String,
    height: f64,
}

impl Svg {
    pub(super) fn new(height: f64) -> Self {
        Self { out: String::new(), height }
    }

    pub(super) fn line(&mut self, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
        // Writing to a String cannot fail, here and below.
        let _ =
            writeln!(self.out, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
    }

    pub(super) fn path(&mut self, class: &str, d: &str) {
        let _ = writeln!(self.out, "<path class=\"{class}\" d=\"{d}\"/>");
    }

    pub(super) fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let _ = writeln!(
            self.out,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            width.max(1.0)
        );
    }

    pub(super) fn dot(&mut self, class: &str, x: f64, y: f64) {
        let _ = writeln!(self.out, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
    }

    /// Text; `anchor` is start, middle or end.
    pub(super) fn text(&mut self, class: &str, anchor: &str, x: f64, y: f64, text: &str) {
        let _ = writeln!(
            self.out,
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
            escaped(text)
        );
    }

    /// Times from left to right, with lines from `top` to `bottom`.
    pub(super) fn time_axis(&mut self, scale: &Log, top: f64, bottom: f64) {
        for (ns, power) in scale.ticks() {
            let x = scale.at(ns);
            self.line(if power { "grid" } else { "minor" }, x, top, x, bottom);
            if power {
                self.text("", "middle", x, bottom + 16.0, &tick_time(ns));
            }
        }
        self.line("axis", scale.begin, bottom, scale.end, bottom);
    }

    /// Times or counts from bottom to top, with lines from `left` to `right`.
    pub(super) fn upright_axis(&mut self, scale: &Log, left: f64, right: f64, times: bool) {
        for (value, power) in scale.ticks().filter(|(_, power)| *power || scale.decades < 4.0) {
            let y = scale.at(value);
            self.line(if power { "grid" } else { "minor" }, left, y, right, y);
            if power {
                let label = if times { tick_time(value) } else { tick_count(value) };
                self.text("", "end", left - 6.0, y + 4.0, &label);
            }
        }
        self.line("axis", left, scale.begin, left, scale.end);
    }

    /// The figure, described for those who do not see it.
    pub(super) fn figure(self, described: &str, caption: &str) -> String {
        let Self { out, height } = self;
        let described = escaped(described);
        let caption =
            if caption.is_empty() { String::new() } else { format!("<figcaption>{}</figcaption>\n", escaped(caption)) };
        format!(
            "<figure>\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{described}\">\n{out}</svg>\n{caption}</figure>\n"
        )
    }
}

/// A name that takes no more than so many characters: the end of a path says more than its begin.
pub(super) fn cut(name: &str, most: usize) -> String {
    let length = name.chars().count();
    if length <= most {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(length - most.saturating_sub(1)).collect();
    format!("…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_holds_what_it_was_made_for() {
        let scale = Log::new(3_000.0, 1_700_000.0, 0.0, 400.0);
        assert_eq!(scale.at(1_000.0), 0.0);
        assert_eq!(scale.at(10_000_000.0), 400.0);
        assert_eq!(scale.at(100_000.0), 200.0);
        assert_eq!(scale.at(0.0), 0.0);
        assert_eq!(scale.ticks().filter(|(_, power)| *power).count(), 5);
        let one = Log::new(1.0, 1.0, 0.0, 10.0);
        assert_eq!((one.at(1.0), one.at(10.0)), (0.0, 10.0));
        let counts = Log::from(0.5, 2.0, 0.0, 10.0);
        assert_eq!((counts.at(0.5), counts.at(10.0)), (0.0, 10.0));
        assert_eq!(counts.ticks().filter(|(_, power)| *power).map(|(n, _)| n).collect::<Vec<_>>(), [1.0, 10.0]);
    }

    #[test]
    fn ticks_have_units() {
        let times: Vec<String> = [100.0, 1e3, 1e5, 1e6, 1e9, 1e10].map(tick_time).to_vec();
        assert_eq!(times, ["100 ns", "1 us", "100 us", "1 ms", "1 s", "10 s"]);
        assert_eq!([1.0, 1e3, 1e7].map(tick_count).to_vec(), ["1", "1k", "10M"]);
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!(cut("/kubepods/pod-1", 8), "…s/pod-1");
        assert_eq!(cut("short", 8), "short");
    }
}
