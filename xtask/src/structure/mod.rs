//! `cargo xtask structure`: no files of a crate import each other in a circle, and every arrow between rooms stands in the table
//! of rooms in docs/design.md, column "uses", as does no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};

use self::{
    circle::circles,
    imports::{Arrows, Source},
};
use crate::place::Workspace;

mod circle;
mod imports;

/// Sources of the crates to check.
const SOURCES: [&str; 4] = ["guard-common/src", "guard-ebpf/src", "guard/src", "xtask/src"];
/// The page with the table of rooms.
const PAGE: &str = "docs/design.md";

/// Arrows from room to room.
type Rooms = BTreeMap<String, BTreeSet<String>>;

/// Looks at all sources.
///
/// # Errors
/// Every circle with what ties it, and every difference from the table.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut arrows = Arrows::new();
    for src in SOURCES {
        arrows.extend(Source::read(&workspace.root, src)?.arrows());
    }
    let page = workspace.root.join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    let wrong = [circles_of_files(&arrows), differences(&arrows, &table(&text))].concat();
    ensure!(wrong.is_empty(), "the structure is not what it should be:\n{wrong}");
    println!("{} files, no circle; arrows between rooms are those of {PAGE}", arrows.len());
    Ok(())
}

/// A paragraph for each circle of files: its arrows, and the names that tie them.
fn circles_of_files(arrows: &Arrows) -> String {
    let graph = arrows.iter().map(|(file, to)| (file.clone(), to.keys().cloned().collect())).collect();
    let mut text = String::new();
    for circle in circles(&graph) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "a circle of {} files:", circle.len());
        for from in &circle {
            for (to, names) in arrows[from].iter().filter(|(to, _)| circle.contains(to)) {
                let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let _ = writeln!(text, "  {} -> {}: {names}", from.display(), to.display());
            }
        }
    }
    text
}

/// The room of a file: in guard's own crate a directory or file below src, else the whole crate. The crates' roots, which
/// only list rooms, are none.
fn room(file: &Path) -> Option<String> {
    let mut parts = file.iter().map(|part| part.to_string_lossy());
    let name = match parts.next()?.as_ref() {
        "guard" => parts.nth(1)?.trim_end_matches(".rs").to_owned(),
        other => other.to_owned(),
    };
    (name != "lib" && name != "main").then_some(name)
}

/// A line for each arrow that the table lacks or has too much, and for each circle of rooms.
fn differences(arrows: &Arrows, table: &Rooms) -> String {
    let mut found = Rooms::new();
    let mut text = String::new();
    for (from, file, to) in arrows.iter().flat_map(|(file, to)| to.keys().map(move |to| (room(file), file, room(to)))) {
        let (Some(from), Some(to)) = (from, to) else { continue };
        if from != to && found.entry(from.clone()).or_default().insert(to.clone()) {
            let file = file.display();
            // Writing to a String cannot fail.
            let _ = match table.get(&from) {
                None => writeln!(text, "{PAGE} has no room {from}, which {file} is in"),
                Some(uses) if !uses.contains(&to) => {
                    writeln!(text, "{from} uses {to} in {file}, which {PAGE} does not list")
                }
                Some(_) => Ok(()),
            };
        }
    }
    for (from, to) in table.iter().flat_map(|(from, uses)| uses.iter().map(move |to| (from, to))) {
        if !found.get(from).is_some_and(|found| found.contains(to)) {
            let _ = writeln!(text, "{PAGE} lists that {from} uses {to}, and no file does");
        }
    }
    for circle in circles(&found) {
        let _ = writeln!(text, "a circle of rooms: {}", circle.join(", "));
    }
    text
}

/// The table of rooms: each by the last part of its path, and what its last column lists.
fn table(page: &str) -> Rooms {
    let rows = page.lines().skip_while(|line| !(line.starts_with("| room |") && line.ends_with("| uses |"))).skip(2);
    let names = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches('/').to_owned()).collect()
    };
    rows.take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|');
            let room = names(cells.next()?).first()?.rsplit('/').next()?.to_owned();
            Some((room, names(cells.next_back()?).into_iter().collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arrows of a crate with these files.
    fn arrows(files: &[(&str, &str)]) -> Arrows {
        let mut source = Source::default();
        for (name, text) in files {
            source.add(Path::new(name), "guard/src", text).expect("it is Rust");
        }
        source.arrows()
    }

    fn pairs(arrows: &Arrows) -> Vec<String> {
        let pair =
            |(from, to): (&std::path::PathBuf, &std::path::PathBuf)| format!("{} {}", from.display(), to.display());
        arrows.iter().flat_map(|(from, to)| to.keys().map(move |to| pair((from, to)))).collect()
    }

    #[test]
    fn arrows_come_from_uses_paths_and_macros() {
        let found = arrows(&[
            ("guard/src/lib.rs", "pub mod a; pub mod b;"),
            // A re-export is no use.
            ("guard/src/a/mod.rs", "mod x; pub mod y; pub use self::y::Name; const LIMIT: u8 = 1;"),
            ("guard/src/a/x.rs", "use super::Name; fn f() -> crate::b::Other { format!(\"{}\", crate::c::VALUE) }"),
            ("guard/src/a/y.rs", "pub(super) struct Name; #[cfg(test)] mod tests { use crate::c::VALUE; }"),
            ("guard/src/b.rs", "use crate::{a::{self}, c::*}; mod inner { use super::super::a::LIMIT; }"),
            ("guard/src/c.rs", "use guard_common::hist; #[cfg(test)] mod testing;"),
            ("guard/src/c/testing.rs", "use crate::b;"),
        ]);
        assert_eq!(
            pairs(&found),
            [
                "guard/src/a/x.rs guard/src/a/y.rs",
                "guard/src/a/x.rs guard/src/b.rs",
                "guard/src/a/x.rs guard/src/c.rs",
                "guard/src/b.rs guard/src/a/mod.rs",
                "guard/src/b.rs guard/src/c.rs",
                "guard/src/c.rs guard-common/src/lib.rs",
            ]
        );
    }

    #[test]
    fn a_circle_is_named_with_what_ties_it() {
        let found = arrows(&[
            ("guard/src/a/mod.rs", "use self::x::run; const LIMIT: u8 = 1;"),
            ("guard/src/a/x.rs", "use super::LIMIT;"),
        ]);
        let text = circles_of_files(&found);
        assert!(text.contains("a circle of 2 files:\n  guard/src/a/mod.rs -> guard/src/a/x.rs: run\n"), "{text}");
        assert!(text.contains("guard/src/a/x.rs -> guard/src/a/mod.rs: LIMIT"), "{text}");
    }

    #[test]
    fn the_table_and_the_code_have_the_same_arrows() {
        let page =
            "| room | does | uses |\n|---|---|---|\n| `guard/src/a` | x `y` | `b`, `c` |\n| `guard/src/b` | z | |\n";
        let found = arrows(&[
            ("guard/src/a/x.rs", "use crate::b::H;"),
            ("guard/src/b.rs", "use crate::c::F;"),
            ("guard/src/c.rs", "use crate::b::G;"),
        ]);
        assert_eq!(
            differences(&found, &table(page)),
            "b uses c in guard/src/b.rs, which docs/design.md does not list\n\
             docs/design.md has no room c, which guard/src/c.rs is in\n\
             docs/design.md lists that a uses c, and no file does\n\
             a circle of rooms: b, c\n"
        );
    }
}
