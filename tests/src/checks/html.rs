//! The HTML report in a real browser: it is drawn, in both colour schemes, and no text runs out of its place.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{
    harness::{GuardRun, finish, patience, scratch_dir},
    scenario::Verdict,
};

const RECORDING: &[u8] = include_bytes!("../../../docs/example.guardrec");

fn limit() -> Duration {
    Duration::from_secs(90) * patience()
}

/// Chromium without a window, a network, or anything that it would remember; `arguments` end with the page.
fn chromium(scratch: &Path, arguments: &[&str]) -> Result<String> {
    let profile = tempfile::tempdir_in(scratch)?;
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .env("HOME", profile.path());
    let finished = finish(&mut command, limit())?;
    finished.expect_code(0)?;
    Ok(finished.stdout)
}

/// A picture as rows of red, green, blue.
struct Picture {
    width: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// Reads a PNG with 8 bits a channel and without interlace, as browsers write them (ISO/IEC 15948).
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path)?;
        ensure!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{} is no PNG", path.display());
        let (mut at, mut header, mut packed) = (8, Vec::new(), Vec::new());
        while let Some(length) = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes) {
            let length = usize::try_from(length)?;
            let (kind, data) = (&bytes[at + 4..at + 8], bytes.get(at + 8..at + 8 + length).context("a cut PNG")?);
            match kind {
                b"IHDR" => header = data.to_vec(),
                b"IDAT" => packed.extend_from_slice(data),
                _ => {}
            }
            at += 12 + length;
        }
        ensure!(header.len() == 13 && header[8] == 8 && header[12] == 0, "another kind of PNG: {header:?}");
        let channels = match header[9] {
            2 => 3,
            6 => 4,
            other => anyhow::bail!("colour type {other}"),
        };
        let width = usize::try_from(u32::from_be_bytes(header[..4].try_into()?))?;
        let mut raw = Vec::new();
        flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_end(&mut raw)?;
        let mut above = vec![0_u8; width * channels];
        let mut pixels = Vec::new();
        for line in raw.chunks_exact(width * channels + 1) {
            let (filter, mut row) = (line[0], line[1..].to_vec());
            for i in 0..row.len() {
                let left = if i >= channels { row[i - channels] } else { 0 };
                let corner = if i >= channels { above[i - channels] } else { 0 };
                let guess = match filter {
                    0 => 0,
                    1 => left,
                    2 => above[i],
                    3 => left.midpoint(above[i]),
                    _ => paeth(left, above[i], corner),
                };
                row[i] = row[i].wrapping_add(guess);
            }
            pixels.extend(row.chunks_exact(channels).map(|p| [p[0], p[1], p[2]]));
            above = row;
        }
        Ok(Self { width, pixels })
    }

    fn count(&self, is: impl Fn(&[u8; 3]) -> bool) -> usize {
        self.pixels.iter().filter(|pixel| is(pixel)).count()
    }

    /// How many of the pixels are of the commonest colour, 0 to 1.
    fn uniform(&self) -> f64 {
        let mut counts = std::collections::HashMap::new();
        self.pixels.iter().for_each(|pixel| *counts.entry(pixel).or_insert(0_u32) += 1);
        let most = counts.into_values().max().unwrap_or(0);
        f64::from(most) / f64::from(u32::try_from(self.pixels.len().max(1)).unwrap_or(u32::MAX))
    }
}

fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let guess = i16::from(left) + i16::from(up) - i16::from(corner);
    let far = |from: u8| (guess - i16::from(from)).abs();
    if far(left) <= far(up) && far(left) <= far(corner) {
        left
    } else if far(up) <= far(corner) {
        up
    } else {
        corner
    }
}

/// What the script finds in the page.
#[derive(Debug, Deserialize)]
struct Layout {
    /// Texts that are wider than their box, leave their drawing, or lie over one another.
    wrong: Vec<String>,
    texts: usize,
    figures: usize,
    height: usize,
}

/// Put into a copy of the page, which itself has no script. Tables that can be scrolled by themselves may be wide.
const SCRIPT: &str = r#"<script>
const wrong = [];
const within = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
const page = document.documentElement;
if (page.scrollWidth > page.clientWidth) wrong.push(`the page is ${page.scrollWidth} wide in ${page.clientWidth}`);
for (const e of document.querySelectorAll('body *:not(svg *)')) {
  if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && !e.matches('.scroll, .scroll *'))
    wrong.push(`${e.tagName} ${e.scrollWidth} in ${e.clientWidth}: ${e.textContent.slice(0, 60)}`);
}
let texts = 0;
for (const svg of document.querySelectorAll('svg')) {
  const box = svg.getBoundingClientRect();
  const all = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  texts += all.length;
  all.forEach(([text, r], i) => {
    if (!within(r, box)) wrong.push(`outside of its drawing: ${text}`);
    for (const [other, o] of all.slice(i + 1)) {
      const wide = Math.min(r.right, o.right) - Math.max(r.left, o.left);
      const high = Math.min(r.bottom, o.bottom) - Math.max(r.top, o.top);
      if (wide > 1 && high > 4) wrong.push(`over one another: ${text} and ${other}`);
    }
  });
}
const figures = document.querySelectorAll('svg').length, height = page.scrollHeight;
document.body.innerHTML = '<pre id="found"></pre>';
document.getElementById('found').textContent = JSON.stringify({wrong, texts, figures, height});
</script>"#;

/// Lays the page out in a window of so many pixels and says what does not fit.
fn layout(scratch: &Path, page: &str, width: u32) -> Result<Layout> {
    let copy = scratch.join(format!("layout-{width}.html"));
    fs::write(&copy, page.replace("</body>", &format!("{SCRIPT}</body>")))?;
    let size = format!("--window-size={width},900");
    let dom = chromium(scratch, &["--dump-dom", &size, &format!("file://{}", copy.display())])?;
    let (_, found) = dom.split_once("<pre id=\"found\">").with_context(|| format!("the script did not run: {dom}"))?;
    let (found, _) = found.split_once("</pre>").context("its result")?;
    let found = found.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&");
    serde_json::from_str(&found).with_context(|| found.clone())
}

/// A picture of the page in a colour scheme.
fn picture(scratch: &Path, page: &Path, dark: bool) -> Result<Picture> {
    let png = scratch.join(if dark { "dark.png" } else { "light.png" });
    chromium(
        scratch,
        &[
            "--window-size=1200,3000",
            if dark { "--blink-settings=preferredColorScheme=0" } else { "--blink-settings=preferredColorScheme=1" },
            &format!("--screenshot={}", png.display()),
            &format!("file://{}", page.display()),
        ],
    )?;
    Picture::read(&png)
}

fn is_near(pixel: [u8; 3], [r, g, b]: [u8; 3]) -> bool {
    [(pixel[0], r), (pixel[1], g), (pixel[2], b)].into_iter().all(|(a, b)| a.abs_diff(b) < 12)
}

pub(super) fn looks_right() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let dir = scratch.path();
    let (recording, page) = (dir.join("example"), dir.join("report.html"));
    fs::write(&recording, RECORDING)?;
    let (from, to) = (recording.to_string_lossy(), page.to_string_lossy());
    let made =
        GuardRun::default().with(&["report", "--replay", &from, "--format", "html", "--output", &to]).finish(limit())?;
    made.expect_code(0)?;
    let html = fs::read_to_string(&page)?;

    // What the script is there for is found.
    let bad = "<body><p style='width:50px;white-space:nowrap'>too long for its place</p><svg viewBox='0 0 9 9' width='99'>\
               <text>a</text><text>b</text></svg></body>";
    let found = layout(dir, bad, 500)?;
    for wanted in ["P ", "over one another: a and b", "outside of its drawing"] {
        ensure!(found.wrong.iter().any(|wrong| wrong.starts_with(wanted)), "{wanted}: {found:?}");
    }

    let mut told = Vec::new();
    for width in [1200, 760, 420] {
        let found = layout(dir, &html, width)?;
        ensure!(found.wrong.is_empty(), "{width} pixels wide: {:#?}", found.wrong);
        ensure!(found.figures >= 4 && found.texts > 40, "{width} pixels wide, hardly anything drawn: {found:?}");
        told.push(format!("{width} x {}", found.height));
    }
    for dark in [false, true] {
        let drawn = picture(dir, &page, dark)?;
        ensure!(drawn.width == 1200, "{} pixels wide", drawn.width);
        let (ground, curve) =
            if dark { ([0x15, 0x18, 0x1c], [0x56, 0xb4, 0xe9]) } else { ([0xfd, 0xfd, 0xfc], [0, 0x72, 0xb2]) };
        let all = drawn.pixels.len();
        let [ground, curve] = [ground, curve].map(|colour| drawn.count(|pixel| is_near(*pixel, colour)));
        ensure!(ground > all / 2, "dark {dark}: the ground is {ground} of {all} pixels");
        ensure!(curve > 500, "dark {dark}: only {curve} pixels of the first curve");
        ensure!(drawn.uniform() < 0.98, "dark {dark}: the page is as good as blank");
    }
    Ok(Verdict::Passed(format!("fits at {}; drawn in light and dark", told.join(", "))))
}

/// A report that was measured here: whatever names and figures this machine has, they fit.
pub(super) fn of_this_machine() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let page = scratch.path().join("report.html");
    let made = GuardRun::default()
        .with(&["report", "--duration", "1s", "--format", "html", "--output", &page.to_string_lossy()])
        .finish(limit())?;
    made.expect_code(0)?;
    let found = layout(scratch.path(), &fs::read_to_string(&page)?, 1000)?;
    ensure!(found.wrong.is_empty(), "{:#?}", found.wrong);
    ensure!(found.figures >= 1, "nothing drawn: {found:?}");
    Ok(Verdict::Passed(format!("{} figures with {} texts", found.figures, found.texts)))
}
