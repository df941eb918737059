//! One unit: brings what systemd knows of it to what guard wants, or back to what it was. The same rules as for files: the
//! original is in the journal first, every value of guard's is announced, and another value is somebody else's and stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{
    bus::{Answer, Bus, Unit, unit_name},
    drop_in::DropIn,
    mailbox::Wanted,
    property::{self, PERIOD, QUOTA},
    surroundings::{Surroundings, USAGES},
};
use crate::{
    cgroup::Hierarchy,
    executor::{
        outcome::{RestoredProperty, WriteResult},
        store::Journal,
    },
    knob::{File, INFINITY, Property, Setting, Version, WeightFormula},
};

/// Which property of which unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct UnitKey {
    pub(super) unit: String,
    pub(super) property: String,
}

/// What has to be known of a property to put it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UnitEntry {
    /// Path of the unit's cgroup.
    pub(super) path: String,
    /// Its value before guard's first call.
    pub(super) original: Property,
    /// Values that may be there by guard: what it set last, and what it was about to set; the original once it was about to
    /// put that back.
    pub(super) ours: Vec<Property>,
    /// Whether it was set to what the file holds anyway, so that the unit keeps its cpu controller: the file is not guard's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) beside: bool,
    /// The file that systemd keeps it in; `None` when that was not recorded, and nothing is done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drop_in: Option<DropIn>,
}

/// Why a unit is not as guard wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// systemd's.
    Answer(Answer),
    /// The file does not hold what is to be sent: somebody else has written it, and its writer will see that.
    Changed,
    /// Telling systemd would do harm.
    Harm(String),
    /// The journal could not be written, so systemd was not notified.
    Journal(String),
    /// A drop-in could not be made what it was.
    DropIn(String),
}

impl From<Answer> for Failure {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(answer) => answer.fmt(f),
            Self::Changed => f.write_str("its files were changed meanwhile"),
            Self::Harm(why) | Self::Journal(why) | Self::DropIn(why) => f.write_str(why),
        }
    }
}

/// What units were before guard, and what is needed to look at them.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) root: PathBuf,
    pub(super) hierarchy: Hierarchy,
    pub(super) formula: WeightFormula,
    pub(super) journal: Journal<UnitKey, UnitEntry>,
}

/// A value that a property is to have, and whether it is the one that the file has anyway.
struct Wish {
    to: Property,
    beside: bool,
}

/// What properties are to be.
type Desired = BTreeMap<&'static str, Wish>;

/// What is to happen to a property.
struct Step {
    property: String,
    found: Property,
    /// What the journal has to say of it first.
    entry: UnitEntry,
    /// Whether the journal says so already.
    recorded: bool,
    what: Do,
}

enum Do {
    /// It gets this value of guard's.
    Tell(Property),
    /// It has it.
    Keep,
    /// It gets its original.
    PutBack,
    /// It has its original, or somebody else's value, and guard is done with it.
    Leave,
}

impl Ledger {
    /// The units that are held, by the paths of their cgroups.
    pub(super) fn paths(&self) -> BTreeSet<String> {
        self.journal.book().values().map(|entry| entry.path.clone()).collect()
    }

    /// Brings the unit of this cgroup to `wanted`; what is wanted no more becomes what it was. Returns what came of that.
    pub(super) async fn bring(
        &mut self,
        bus: &Bus,
        path: &str,
        wanted: &Wanted,
    ) -> Result<Vec<RestoredProperty>, Failure> {
        let Some(name) = unit_name(path) else { return Ok(Vec::new()) };
        let held = self.held(name, path);
        if wanted.is_empty() && held.is_empty() {
            return Ok(Vec::new());
        }
        let unit = match bus.unit(name, !held.is_empty()).await {
            Err(Answer::NoUnit) => return self.gone(name, held),
            unit => unit?,
        };
        // A unit of the same name inside a container, or of a user's manager, is another systemd's.
        let runs_here = bus.control_group(&unit).await? == path;
        if !runs_here && !held.is_empty() && !bus.is_loaded(&unit).await? {
            return self.gone(name, held);
        }
        let around = if runs_here { Surroundings::look(&self.hierarchy, path) } else { None };
        let id = self.hierarchy.id(path).ok();
        let wanted: Vec<&Setting> =
            wanted.values().filter(|(of, _)| around.is_some() && id == Some(*of)).map(|(_, setting)| setting).collect();
        let desired = self.desired(bus, &unit, &wanted, around.as_ref(), &held).await?;
        let steps = self.steps(bus, &unit, path, &desired, held).await?;
        self.take(bus, &unit, steps, &wanted, around.as_ref()).await
    }

    /// Its properties in the journal. A unit that has come to another slice is not held under its old path.
    fn held(&self, name: &str, path: &str) -> BTreeMap<String, UnitEntry> {
        let of_unit = self.journal.book().iter().filter(|(key, entry)| key.unit == name && entry.path == path);
        of_unit.map(|(key, entry)| (key.property.clone(), entry.clone())).collect()
    }

    /// What the properties are to be.
    async fn desired(
        &self,
        bus: &Bus,
        unit: &Unit,
        wanted: &[&Setting],
        around: Option<&Surroundings>,
        held: &BTreeMap<String, UnitEntry>,
    ) -> Result<Desired, Failure> {
        let version = self.hierarchy.version();
        let properties = wanted.iter().flat_map(|setting| setting.properties(version, self.formula));
        let mut desired: Desired = properties.map(|(name, to)| (name, Wish { to, beside: false })).collect();
        let weight = property::weight(version);
        let is_lift = desired.get(QUOTA).is_some_and(|wish| wish.to == Property::Number(INFINITY));
        if !is_lift || desired.contains_key(weight) {
            return Ok(desired);
        }
        // A unit with neither quota nor weight needs no cpu controller: systemd takes it away from the whole slice, at
        // once, and the files of all its cgroups with it. So the weight that the cgroup has anyway is sent, too.
        let present = match bus.property(unit, weight).await {
            Err(Answer::NoProperty) => return Ok(desired),
            present => present?,
        };
        let before = held.get(weight).filter(|entry| entry.ours.contains(&present)).map(|entry| &entry.original);
        if before.unwrap_or(&present) == &Property::Number(INFINITY) {
            let text = |name: &str| around.and_then(|around| around.text(name)).map(str::trim);
            let is_idle = text("cpu.idle") == Some("1");
            let file = if version == Version::V1 { "cpu.shares" } else { "cpu.weight" };
            let number = text(file).and_then(|text| text.parse().ok());
            let number = if is_idle { Some(0) } else { number };
            desired.extend(number.map(|number| (weight, Wish { to: Property::Number(number), beside: true })));
        }
        Ok(desired)
    }

    async fn steps(
        &self,
        bus: &Bus,
        unit: &Unit,
        path: &str,
        desired: &Desired,
        mut held: BTreeMap<String, UnitEntry>,
    ) -> Result<Vec<Step>, Failure> {
        let mut steps = Vec::new();
        let mut transient = None;
        for (property, wish) in desired {
            let found = match bus.property(unit, property).await {
                // An older systemd, which then does not undo it either.
                Err(Answer::NoProperty) => continue,
                found => found?,
            };
            let known = held.remove(*property);
            let transient = match transient {
                Some(transient) => transient,
                None => *transient.insert(bus.is_transient(unit).await?),
            };
            let look = || DropIn::look(&self.root, unit.name(), transient, property);
            steps.extend(tell(property, found, wish, path, known, look, &self.root));
        }
        for (property, entry) in held {
            match bus.property(unit, &property).await {
                Err(Answer::NoProperty) => {}
                found => steps.push(put_back(property, found?, entry)),
            }
        }
        Ok(steps)
    }

    /// Journal, call, look.
    async fn take(
        &mut self,
        bus: &Bus,
        unit: &Unit,
        steps: Vec<Step>,
        wanted: &[&Setting],
        around: Option<&Surroundings>,
    ) -> Result<Vec<RestoredProperty>, Failure> {
        let set: Vec<(String, Property)> = steps
            .iter()
            .filter_map(|step| match &step.what {
                Do::Tell(to) => Some((step.property.clone(), to.clone())),
                Do::PutBack => Some((step.property.clone(), step.entry.original.clone())),
                Do::Keep | Do::Leave => None,
            })
            .collect();
        if !set.is_empty() {
            if let Some(around) = around {
                self.is_as_wanted(wanted, around)?;
                harmless(bus, unit, around).await?;
            }
            self.record(unit, &steps)?;
            let by_systemd = self.by_systemd(bus, unit, &steps).await?;
            bus.set(unit, &set).await?;
            let mut kept = Vec::new();
            for (property, _) in &set {
                // By the first answer systemd has written the files.
                kept.push(bus.property(unit, property).await);
                if kept.len() == 1
                    && let Some(around) = around
                {
                    around.put_back(&by_systemd);
                }
            }
            for ((property, to), kept) in set.iter().zip(kept) {
                let kept = kept?;
                if kept != *to {
                    let said = format!("{property} was set to {to}, and is {kept}");
                    return Err(Answer::Refused(said).into());
                }
            }
        }
        steps.into_iter().filter_map(|step| self.conclude(unit, step).transpose()).collect()
    }

    /// What the files hold if systemd has written them by the values that are to be put back. Such a text, which may come from
    /// a call that was under way while the file was put back, is not kept.
    async fn by_systemd(&self, bus: &Bus, unit: &Unit, steps: &[Step]) -> Result<Vec<(File, String)>, Failure> {
        let mut known = BTreeMap::new();
        for step in steps.iter().filter(|step| matches!(step.what, Do::PutBack) && !step.entry.beside) {
            if let Property::Number(number) = step.found {
                known.insert(step.property.clone(), number);
            }
        }
        // Either of the two may be guard's, and the text is that of both.
        if known.contains_key(QUOTA) || known.contains_key(PERIOD) {
            for property in [QUOTA, PERIOD] {
                if !known.contains_key(property)
                    && let Property::Number(number) = bus.property(unit, property).await?
                {
                    known.insert(property.to_owned(), number);
                }
            }
        }
        Ok(property::files(|name| known.get(name).copied(), self.hierarchy.version()))
    }

    /// Whether the files hold what is to be sent.
    fn is_as_wanted(&self, wanted: &[&Setting], around: &Surroundings) -> Result<(), Failure> {
        let version = self.hierarchy.version();
        for setting in wanted {
            let echoes = property::echoes(setting, version);
            for (file, value) in setting.values(version, self.formula) {
                let holds = |text: &str| around.text(file.name()).is_some_and(|found| file.same(found, text));
                let by_systemd = || echoes.iter().any(|(of, text)| *of == file && holds(text));
                let has_property = !setting.properties(version, self.formula).is_empty();
                if has_property && !holds(&file.text(&value)) && !by_systemd() {
                    return Err(Failure::Changed);
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, unit: &Unit, steps: &[Step]) -> Result<(), Failure> {
        let fresh = steps.iter().filter(|step| !step.recorded);
        let entries: Vec<_> = fresh.map(|step| (key(unit.name(), &step.property), step.entry.clone())).collect();
        let has_news = entries
            .iter()
            .any(|(key, entry)| self.journal.book().get(key).is_none_or(|known| known.original != entry.original));
        self.journal.hold(entries, has_news).map_err(|error| {
            Failure::Journal(format!("cannot write the undo journal of units, so systemd is not told: {error}"))
        })
    }

    /// What is left to do when systemd has the value.
    fn conclude(&mut self, unit: &Unit, step: Step) -> Result<Option<RestoredProperty>, Failure> {
        let Step { property, found, mut entry, what, .. } = step;
        let key = key(unit.name(), &property);
        let now = entry.drop_in.as_ref().and_then(|drop_in| drop_in.now(&self.root));
        if matches!(what, Do::Tell(_) | Do::Keep) {
            if let Some(drop_in) = &mut entry.drop_in
                && drop_in.ours != now
            {
                drop_in.ours = now;
                // Without it a drop-in that somebody else's outranks might stay.
                if let Err(error) = self.journal.hold(vec![(key, entry)], false) {
                    tracing::warn!("cannot write the undo journal of units: {error}");
                }
            }
            return Ok(None);
        }
        // It is guard's if systemd has just written it for guard, or was going to when guard was killed; or if it still is what
        // systemd wrote for guard before.
        let announced = entry.ours.contains(&entry.original) && found == entry.original;
        let by_guard = matches!(what, Do::PutBack) || announced;
        if let Some(drop_in) = &entry.drop_in
            && now.is_some()
            && (by_guard || now == drop_in.ours)
        {
            drop_in.put_back(&self.root).map_err(|error| Failure::DropIn(format!("{}: {error}", drop_in.file)))?;
        }
        let result = match what {
            Do::PutBack => WriteResult::Written,
            _ if found == entry.original => WriteResult::Unchanged,
            _ => WriteResult::Foreign(format!("it is {found}, which is not guard's")),
        };
        self.drop_entry(&key, &result);
        Ok(Some(restored(&key, &entry, Some(&found), result)))
    }

    /// A unit that systemd no longer knows: what it had goes with it.
    fn gone(&mut self, name: &str, held: BTreeMap<String, UnitEntry>) -> Result<Vec<RestoredProperty>, Failure> {
        let mut out = Vec::new();
        for (property, entry) in held {
            let key = key(name, &property);
            if let Some(drop_in) = entry.drop_in.as_ref().filter(|drop_in| drop_in.ours.is_some())
                && drop_in.now(&self.root) == drop_in.ours
            {
                drop_in.put_back(&self.root).map_err(|error| Failure::DropIn(format!("{}: {error}", drop_in.file)))?;
            }
            self.drop_entry(&key, &WriteResult::Gone);
            out.push(restored(&key, &entry, None, WriteResult::Gone));
        }
        Ok(out)
    }

    fn drop_entry(&mut self, key: &UnitKey, why: &WriteResult) {
        // A record that cannot be written costs the next restore one look.
        if let Err(error) = self.journal.drop_entry(key, &why.to_string()) {
            tracing::warn!("cannot record that {} of {} is done: {error}", key.property, key.unit);
        }
    }

    /// What is still held, with the reason.
    pub(super) fn left(&self, why: impl Fn(&str) -> WriteResult) -> Vec<RestoredProperty> {
        let held = self.journal.book().iter();
        held.map(|(key, entry)| restored(key, entry, None, why(&entry.path))).collect()
    }
}

fn key(unit: &str, property: &str) -> UnitKey {
    UnitKey { unit: unit.to_owned(), property: property.to_owned() }
}

fn restored(key: &UnitKey, entry: &UnitEntry, found: Option<&Property>, result: WriteResult) -> RestoredProperty {
    RestoredProperty {
        unit: key.unit.clone(),
        property: key.property.clone(),
        found: found.map(Property::to_string),
        original: entry.original.to_string(),
        result,
    }
}

/// The step to a value of guard's; `None` when systemd has it by itself.
fn tell(
    property: &str,
    found: Property,
    Wish { to: want, beside }: &Wish,
    path: &str,
    known: Option<UnitEntry>,
    look: impl Fn() -> DropIn,
    root: &std::path::Path,
) -> Option<Step> {
    let property = property.to_owned();
    let Some(known) = known else {
        if found == *want {
            return None;
        }
        let entry = UnitEntry {
            path: path.to_owned(),
            original: found.clone(),
            ours: vec![want.clone()],
            beside: *beside,
            drop_in: Some(look()),
        };
        return Some(Step { property, found, entry, recorded: false, what: Do::Tell(want.clone()) });
    };
    let is_ours = is_ours(&property, &known, &found) && found != known.original;
    if is_ours && found == *want && known.ours == [want.clone()] && known.beside == *beside {
        return Some(Step { property, found, entry: known, recorded: true, what: Do::Keep });
    }
    let mut entry = UnitEntry { path: path.to_owned(), beside: *beside, ..known };
    if is_ours {
        entry.ours = vec![found.clone()];
        if found != *want {
            entry.ours.push(want.clone());
        }
    } else {
        // Somebody else's, or what was there before: that is what has to be kept.
        let was_put_back = found == entry.original && entry.ours.contains(&entry.original);
        entry.ours = vec![want.clone()];
        entry.original = found.clone();
        let now = look();
        let still_guards = entry.drop_in.as_ref().is_some_and(|known| {
            known.file == now.file && (was_put_back || known.ours.is_some() && known.now(root) == known.ours)
        });
        if !still_guards {
            entry.drop_in = Some(now);
        }
    }
    let what = if found == *want { Do::Keep } else { Do::Tell(want.clone()) };
    Some(Step { property, found, entry, recorded: false, what })
}

fn is_ours(property: &str, entry: &UnitEntry, found: &Property) -> bool {
    entry.ours.iter().any(|own| property::is_from(property, own, found))
}

/// The step back.
fn put_back(property: String, found: Property, mut entry: UnitEntry) -> Step {
    if is_ours(&property, &entry, &found) && found != entry.original {
        // Announced, so that what systemd then writes is known to be by guard.
        let recorded = entry.ours.contains(&entry.original);
        if !recorded {
            entry.ours.push(entry.original.clone());
        }
        return Step { property, found, entry, recorded, what: Do::PutBack };
    }
    Step { property, found, entry, recorded: true, what: Do::Leave }
}

/// Refuses to make systemd enforce limits anew that are below what is in use: somebody has raised them in the files alone.
async fn harmless(bus: &Bus, unit: &Unit, around: &Surroundings) -> Result<(), Failure> {
    for (usage, limit) in USAGES {
        let Some(used) = around.number(usage) else { continue };
        let known = match bus.property(unit, limit).await {
            Err(Answer::NoProperty) => continue,
            known => known?,
        };
        if let Property::Number(known) = known
            && used > known
        {
            return Err(Failure::Harm(format!(
                "its {usage} is {used}, above {limit}={known}, which systemd would enforce when it is told anything"
            )));
        }
    }
    Ok(())
}
