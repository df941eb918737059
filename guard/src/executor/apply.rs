//! The only writer. Every value that it overwrites is in the undo journal first. What others do to the
//! same files and how guard answers is written down in docs/writing.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    around::Around,
    journal::{JournalEntry, Key},
    outcome::{Change, Outcome, What, WriteResult},
    pace::{Bucket, Pace},
    place::NodeFiles,
    report::{Report, RestoreError},
    restore::{self, other_files},
    store::{self, Journal, Lock},
    systemd::{self, Units},
    trouble::Trouble,
    write::{Job, Ran, Stop, run, unjournaled},
};
use crate::{
    cgroup::Hierarchy,
    knob::{File, Kind, Knob, MAX_PERIOD_US, MIN_PERIOD_US, ParseError, Setting, Value, WeightFormula},
};

use What::{Lift, Release, Set};

/// A knob of a cgroup, by the cgroup's id.
type CgroupKnob = (u64, Knob);

/// How the executor behaves.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// "/" except in tests and for an agent that sees the node's file system elsewhere: where /proc is found.
    pub root: PathBuf,
    /// How shares become a weight on v2.
    pub weight: WeightFormula,
    /// How often one knob may be set. Lifting and releasing are not limited.
    pub pace: Pace,
    /// How often a lift that somebody else undid is asserted again, per knob, before guard gives way.
    pub reassert: Pace,
    /// After giving way, how long until the knob may be taken again, with the other's value as its original; `None` for
    /// never.
    pub retake_after: Option<Duration>,
    /// The agent that sets systemd's properties to what is held of its units.
    pub units: Units,
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            weight: WeightFormula::default(),
            pace: Pace { burst: 10, every: Duration::from_millis(200) },
            reassert: Pace { burst: 3, every: Duration::from_secs(20) },
            retake_after: Some(Duration::from_secs(60)),
            units: Units::default(),
        }
    }
}

/// A knob that guard holds.
#[derive(Debug)]
struct Held {
    path: String,
    setting: Setting,
    lift: bool,
    /// Its files in the journal.
    keys: Vec<Key>,
    reassert: Bucket,
}

/// A knob that guard gave up, or that failed: nothing is tried for a while.
#[derive(Debug)]
struct BackOff {
    path: String,
    why: String,
    /// `None` for good.
    until: Option<Instant>,
    /// Failures in a row; 0 when it was given up.
    times: u32,
    /// What was tried when it failed: another value may be tried at once.
    what: What,
}

/// The only writer.
#[derive(Debug)]
pub struct Executor {
    node: NodeFiles,
    journal: Journal<Key, JournalEntry>,
    options: ExecutorOptions,
    held: BTreeMap<CgroupKnob, Held>,
    back_offs: BTreeMap<CgroupKnob, BackOff>,
    buckets: BTreeMap<CgroupKnob, Bucket>,
    recovered: Report,
}

/// A change on its way.
struct Planned {
    change: Change,
    /// Files of the knob, as read; empty once it has its result.
    jobs: Vec<Job>,
    old: Option<String>,
    new: String,
    result: Option<WriteResult>,
    /// The value that the knob will have.
    setting: Option<Setting>,
    /// Files that came into the journal for it.
    recorded: Vec<Key>,
}

impl Executor {
    /// Takes the state directory for itself, and first puts back what an earlier guard left there.
    ///
    /// # Errors
    /// Another guard enforces, or the state directory cannot be used.
    pub fn open(hierarchy: Hierarchy, state_dir: &Path, options: ExecutorOptions) -> Result<Self, RestoreError> {
        let boot = store::boot_id(&options.root)?;
        let lock = Lock::take(state_dir)?;
        let (mut recovered, book) = restore::look(state_dir, &boot)?;
        let mut journal = Journal::open(state_dir, boot, book, lock)?;
        let node = NodeFiles { root: options.root.clone(), hierarchy };
        recovered.files = restore::put_back(&node, &mut journal);
        let (held, back_offs, buckets) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { node, journal, options, held, back_offs, buckets, recovered })
    }

    /// What an earlier guard had left, and what came of putting it back. What could not be put back stays in the
    /// journal, with its original.
    #[must_use]
    pub fn recovered(&self) -> &Report {
        &self.recovered
    }

    /// The hierarchy that it writes to.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.node.hierarchy
    }

    /// The knobs that guard holds: path, id, knob, value.
    pub fn held(&self) -> impl Iterator<Item = (&str, u64, Knob, &Setting)> {
        self.held.iter().map(|((id, knob), held)| (held.path.as_str(), *id, *knob, &held.setting))
    }

    /// Records the originals of knobs that may have to be written in a hurry, so that no disk is waited for then. What
    /// cannot be read is passed over: writing it will say why.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn prepare(&mut self, places: &[(String, u64, Knob)]) -> std::io::Result<()> {
        let mut new = Vec::new();
        for (path, id, knob) in places {
            if self.held.contains_key(&(*id, *knob)) {
                continue;
            }
            let jobs = Job::open_all(&self.node, path, *id, *knob, 0).unwrap_or_default();
            let unknown = jobs.iter().filter(|job| !self.journal.book().contains_key(&job.key));
            new.extend(unknown.map(|job| (job.key.clone(), JournalEntry::new(&job.now))));
        }
        if new.is_empty() { Ok(()) } else { self.journal.hold(new, true) }
    }

    /// Brings knobs to their values, all in the order that the kernel takes. One outcome per change, in their order.
    pub fn apply(&mut self, changes: &[Change]) -> Vec<Outcome> {
        let mut seen = BTreeSet::new();
        let mut batch: Vec<Planned> = Vec::with_capacity(changes.len());
        for (asker, change) in changes.iter().enumerate() {
            let mut planned = Planned::new(change);
            // A file that two knobs have is one change's.
            let knob = change.what.knob();
            if seen.insert((change.id, knob.row().along.as_ref().map_or(knob, |along| along.knob))) {
                if let Err(result) = self.plan(&mut planned, asker) {
                    planned.result = Some(result);
                }
            } else {
                let why = "another change in this batch concerns the same files; next time".to_owned();
                planned.result = Some(WriteResult::Limited(why));
            }
            batch.push(planned);
        }
        self.refuse_forbidden(&mut batch);
        self.record_originals(&mut batch);
        let mut jobs: Vec<Job> =
            batch.iter_mut().filter(|each| each.result.is_none()).flat_map(|each| each.jobs.drain(..)).collect();
        let keys: Vec<(usize, Key)> = jobs.iter().map(|job| (job.asker, job.key.clone())).collect();
        let neighbours = other_files(&self.node, &jobs);
        jobs.extend(neighbours);
        let ran = run(self.node.hierarchy.version(), &mut self.journal, &mut jobs, batch.len());
        for (asker, (planned, ran)) in batch.iter_mut().zip(ran).enumerate() {
            if planned.result.is_none() {
                let keys = keys.iter().filter(|(of, _)| *of == asker).map(|(_, key)| key.clone()).collect();
                planned.result = Some(self.settle(planned, ran, keys));
            }
        }
        batch.into_iter().map(Planned::outcome).collect()
    }

    /// Checks that held knobs still have guard's values, and forgets cgroups that have gone. One outcome per knob that somebody
    /// else changed.
    pub fn check_drift(&mut self) -> Vec<Outcome> {
        self.adopt_all();
        let drifted: Vec<Change> = self
            .held
            .iter()
            .filter(|(place, held)| !self.is_intact(**place, held))
            .map(|(place, held)| held.again(*place))
            .collect();
        let outcomes = self.apply(&drifted);
        self.forget();
        outcomes
    }

    /// Puts back everything. What fails stays in the journal for the next `guard restore`.
    pub fn restore_all(&mut self) -> Vec<Outcome> {
        self.adopt_all();
        let held = std::mem::take(&mut self.held);
        self.back_offs.clear();
        let restored = restore::put_back(&self.node, &mut self.journal);
        for ((id, knob), held) in &held {
            self.options.units.let_go(&held.path, *id, *knob);
        }
        restored.into_iter().map(Outcome::from).collect()
    }

    fn adopt_all(&mut self) {
        let held: Vec<(CgroupKnob, String)> =
            self.held.iter().map(|(place, held)| (*place, held.path.clone())).collect();
        held.iter().for_each(|(place, path)| self.adopt(*place, path));
    }

    /// Fills in which files a change sets to which values; an error is the change's result.
    fn plan(&mut self, planned: &mut Planned, asker: usize) -> Result<(), WriteResult> {
        let Change { path, id, what } = planned.change.clone();
        let place = (id, what.knob());
        self.check_back_off(place, &what)?;
        self.adopt(place, &path);
        let jobs = Job::open_all(&self.node, &path, id, place.1, asker);
        let mut jobs = jobs.map_err(|trouble| self.failed(place, &planned.change, &trouble))?;
        planned.old = Some(joined(place.1, jobs.iter().map(|job| (job.key.file, job.now.as_str()))));
        match what {
            Release(_) => self.plan_release(planned, place, &mut jobs)?,
            Set(setting) | Lift(setting) => self.plan_set(planned, place, setting, &mut jobs)?,
        }
        planned.jobs = jobs;
        Ok(())
    }

    fn plan_set(
        &mut self,
        planned: &mut Planned,
        place: CgroupKnob,
        setting: Setting,
        jobs: &mut [Job],
    ) -> Result<(), WriteResult> {
        let version = self.node.hierarchy.version();
        let values = setting.values(version, self.options.weight);
        planned.new = joined(place.1, values.iter().map(|(file, value)| (*file, file.text(value))));
        if values.is_empty() {
            return Err(WriteResult::Refused(format!("cgroup {version} has no {}", place.1)));
        }
        self.answer_drift(planned, place, jobs)?;
        if let Some(along) = &place.1.row().along
            && let Some(why) = (along.clash)(&setting)
            && self.held.contains_key(&(place.0, along.knob))
        {
            return Err(WriteResult::Refused(why.to_owned()));
        }
        let by_systemd = self.by_systemd(planned, place, &setting);
        for job in jobs.iter_mut() {
            let of_it = by_systemd.iter().filter(|(file, _)| *file == job.key.file);
            job.by_systemd = of_it.map(|(_, text)| text.clone()).collect();
            job.to = values.iter().find(|(file, _)| *file == job.key.file).map(|(_, value)| value.clone());
        }
        if jobs.iter().all(|job| job.to.as_ref().is_none_or(|to| job.key.file.parse(&job.now).as_ref() == Ok(to))) {
            if place.1.kind() == Kind::Process {
                // Those that come later carry it, too.
                self.hold(place, &planned.change, &setting, Vec::new());
            }
            return Err(WriteResult::Unchanged);
        }
        if let What::Set(_) = planned.change.what {
            let (pace, now) = (self.options.pace, Instant::now());
            if !self.buckets.entry(place).or_insert_with(|| Bucket::full(pace, now)).take(pace, now) {
                let why = format!("more than {} changes at once, or one every {:?}", pace.burst, pace.every);
                return Err(WriteResult::Limited(why));
            }
        }
        planned.setting = Some(setting);
        Ok(())
    }

    fn plan_release(&mut self, planned: &mut Planned, place: CgroupKnob, jobs: &mut [Job]) -> Result<(), WriteResult> {
        let Some(held) = self.held.get(&place) else {
            planned.new = planned.old.clone().unwrap_or_default();
            return Err(WriteResult::Unchanged);
        };
        let mut foreign = None;
        for job in jobs.iter_mut() {
            let file = job.key.file;
            let Some(entry) = self.journal.book().get(&job.key).filter(|_| held.keys.contains(&job.key)) else {
                continue;
            };
            if entry.is_ours(file, &job.now) {
                // What cannot be understood stays in the journal, for `guard restore` to say so.
                let _ = job.undo(&self.node, entry);
            } else if !file.same(&job.now, &entry.original) {
                foreign = Some(format!("{file} now holds \"{}\", which stays", job.now));
            }
        }
        planned.new = joined(place.1, jobs.iter().map(|job| (job.key.file, goal(job))));
        // The first file is the knob's own; the others go with it.
        if let (Some(why), true) = (foreign, jobs.iter().all(|job| job.to.is_none())) {
            self.let_go(place, "foreign");
            return Err(WriteResult::Foreign(why));
        }
        let own = jobs.iter().filter(|job| job.key.file.knob() == place.1 && place.1.kind() == Kind::Cgroup);
        let values: Option<Vec<Value>> = own.map(|job| goal_value(job).ok()).collect();
        let (version, formula) = (self.node.hierarchy.version(), self.options.weight);
        planned.setting = values.and_then(|values| place.1.decode(&values, version, formula));
        Ok(())
    }

    /// The texts that systemd may write to the files of a unit's own cgroup: its own form of this setting, and of earlier
    /// settings whose end it has not been notified of.
    fn by_systemd(&self, planned: &Planned, (_, knob): CgroupKnob, setting: &Setting) -> Vec<(File, String)> {
        let (path, units) = (&planned.change.path, &self.options.units);
        if !units.may_own(path) {
            return Vec::new();
        }
        let (version, formula) = (self.node.hierarchy.version(), self.options.weight);
        let text = |(file, value): (File, Value)| (file, file.text(&value));
        let earlier = units.sent(path, knob).into_iter().filter(|earlier| earlier != setting);
        let earlier = earlier.flat_map(|earlier| {
            let own = earlier.values(version, formula).into_iter().map(text);
            own.chain(systemd::echoes(&earlier, version)).collect::<Vec<_>>()
        });
        let mut out = Vec::new();
        for each in systemd::echoes(setting, version).into_iter().chain(earlier) {
            if !out.contains(&each) {
                out.push(each);
            }
        }
        out
    }

    /// Whether the files of a held knob hold its value. What cannot be read does not.
    fn is_intact(&self, (id, knob): CgroupKnob, held: &Held) -> bool {
        let Ok(jobs) = Job::open_all(&self.node, &held.path, id, knob, 0) else { return false };
        let values = held.setting.values(self.node.hierarchy.version(), self.options.weight);
        jobs.iter().all(|job| {
            let wanted = values.iter().find(|(file, _)| *file == job.key.file);
            wanted.map_or_else(|| self.is_as_left(job), |(_, to)| job.key.file.parse(&job.now).as_ref() == Ok(to))
        })
    }

    /// Whether a file holds what guard wrote, or guard wrote nothing to it.
    fn is_as_left(&self, job: &Job) -> bool {
        self.journal
            .book()
            .get(&job.key)
            .is_none_or(|entry| entry.ours.is_empty() || entry.is_ours(job.key.file, &job.now))
    }

    /// Somebody else has changed a held knob: give way, or, for a lift that was not asserted too often, take the other's
    /// value for what has to be kept and go on.
    fn answer_drift(&mut self, planned: &Planned, place: CgroupKnob, jobs: &[Job]) -> Result<(), WriteResult> {
        let drifted: Vec<&Job> = jobs.iter().filter(|job| !self.is_as_left(job)).collect();
        let (Some(first), Some(held)) = (drifted.first(), self.held.get_mut(&place)) else { return Ok(()) };
        let found = format!("{} was set to \"{}\" by somebody else", first.key.file, first.now);
        let lifts = held.lift && matches!(planned.change.what, Lift(_));
        if lifts && held.reassert.take(self.options.reassert, Instant::now()) {
            let entries: Vec<_> = drifted.iter().map(|job| (job.key.clone(), JournalEntry::new(&job.now))).collect();
            return self.journal.hold(entries, true).map_err(|error| WriteResult::from(&unjournaled(&error)));
        }
        let why =
            if lifts { format!("{found}, again and again; guard gives way") } else { format!("{found}; it stays") };
        self.give_way(place, &planned.change, why.clone());
        Err(WriteResult::Foreign(why))
    }

    /// Refuses what the kernel is known to refuse, until what is left is allowed as a whole.
    fn refuse_forbidden(&self, batch: &mut [Planned]) {
        let (hierarchy, formula) = (&self.node.hierarchy, self.options.weight);
        loop {
            let alive = || batch.iter().filter(|each| each.result.is_none());
            let settings = alive()
                .filter_map(|each| Some(((each.change.path.clone(), each.change.what.knob()), each.setting.clone()?)));
            let around = Around { hierarchy, formula, batch: settings.collect() };
            let broken: Vec<Option<String>> = batch
                .iter()
                .map(|each| {
                    let setting = each.setting.as_ref().filter(|_| each.result.is_none() && !each.only_lifts())?;
                    setting.check(&each.change.path, hierarchy.version(), &around).err()
                })
                .collect();
            if broken.iter().all(Option::is_none) {
                return;
            }
            for (each, rule) in batch.iter_mut().zip(broken) {
                // An original that is not allowed any more may be once others are back: it is kept, and tried again.
                rule.into_iter().for_each(|rule| each.refuse(rule));
            }
        }
    }

    /// Puts the originals of all files that are written for the first time into the journal, with one wait for the disk.
    fn record_originals(&mut self, batch: &mut [Planned]) {
        let version = self.node.hierarchy.version();
        let book = self.journal.book();
        let mut new = Vec::new();
        for planned in batch.iter_mut().filter(|each| each.result.is_none()) {
            for job in &planned.jobs {
                let known = book.get(&job.key);
                let ours = match job.to {
                    Some(_) if known.is_none_or(|entry| entry.ours.is_empty() && entry.original != job.now) => {
                        Vec::new()
                    }
                    None if known.is_none_or(|entry| entry.ours.is_empty()) => {
                        let along = planned.change.what.knob().row().along.as_ref();
                        let Some(along) = along.filter(|along| along.knob == job.key.file.knob()) else { continue };
                        (along.texts)(version).iter().map(|&text| text.to_owned()).collect()
                    }
                    _ => continue,
                };
                planned.recorded.push(job.key.clone());
                new.push((job.key.clone(), JournalEntry { ours, ..JournalEntry::new(&job.now) }));
            }
        }
        if new.is_empty() {
            return;
        }
        if let Err(error) = self.journal.hold(new, true) {
            let result = WriteResult::from(&unjournaled(&error));
            batch.iter_mut().filter(|each| each.result.is_none()).for_each(|each| each.result = Some(result.clone()));
        }
    }

    /// Records the result of a change that was tried.
    fn settle(&mut self, planned: &Planned, ran: Ran, keys: Vec<Key>) -> WriteResult {
        let place = (planned.change.id, planned.change.what.knob());
        let was_held = self.held.contains_key(&place);
        match (ran.stop, &planned.change.what) {
            (None, Release(_)) => {
                self.let_go(place, "restored");
                match ran.nearest {
                    Some(what) => WriteResult::Nearest(what),
                    None if ran.wrote => WriteResult::Written,
                    None => WriteResult::Unchanged,
                }
            }
            (None, Set(setting) | Lift(setting)) => {
                self.back_offs.remove(&place);
                self.hold(place, &planned.change, setting, keys);
                self.options.units.hold(&planned.change.path, place.0, setting);
                WriteResult::Written
            }
            (Some(Stop::Foreign { file, found }), _) => {
                self.hold_keys(place, &planned.change, keys);
                let why = format!("{file} was set to \"{found}\" by somebody else at the same moment; it stays");
                self.give_way(place, &planned.change, why.clone());
                WriteResult::Foreign(why)
            }
            (Some(Stop::Trouble(trouble)), what) => {
                match what {
                    Set(setting) | Lift(setting) if ran.wrote => {
                        self.hold(place, &planned.change, setting, keys);
                    }
                    // Nothing was written, so there is nothing to put back.
                    _ if !was_held => self.drop_files(&planned.recorded, "not written"),
                    _ => {}
                }
                self.failed(place, &planned.change, &trouble)
            }
        }
    }

    fn hold(&mut self, place: CgroupKnob, change: &Change, setting: &Setting, keys: Vec<Key>) {
        self.hold_keys(place, change, keys);
        if let Some(held) = self.held.get_mut(&place) {
            held.setting = setting.clone();
            held.lift = matches!(change.what, Lift(_));
        }
    }

    fn hold_keys(&mut self, place: CgroupKnob, change: &Change, keys: Vec<Key>) {
        let (Set(setting) | Lift(setting)) = &change.what else { return };
        let reassert = self.options.reassert;
        let held = self.held.entry(place).or_insert_with(|| Held {
            path: change.path.clone(),
            setting: setting.clone(),
            lift: matches!(change.what, Lift(_)),
            keys: Vec::new(),
            reassert: Bucket::full(reassert, Instant::now()),
        });
        // More than before where processes carry it.
        held.keys.extend(keys.into_iter().filter(|key| !held.keys.contains(key)).collect::<Vec<_>>());
    }

    /// Holds a knob no longer.
    fn let_go(&mut self, place: CgroupKnob, why: &str) {
        self.back_offs.remove(&place);
        if let Some(held) = self.held.remove(&place) {
            self.drop_files(&held.keys, why);
            self.options.units.let_go(&held.path, place.0, place.1);
        }
    }

    fn drop_files(&mut self, keys: &[Key], why: &str) {
        for key in keys {
            // A record that cannot be written costs a restore one look.
            if let Err(error) = self.journal.drop_entry(key, why) {
                tracing::warn!("cannot record in the undo journal that {key} is done: {error}");
            }
        }
    }

    /// Leaves a knob to somebody else, for a while or for good. Other files of the knob that still hold guard's values are
    /// put back; where the kernel does not take that now, they stay in the journal.
    fn give_way(&mut self, place: CgroupKnob, change: &Change, why: String) {
        let mut stuck = Vec::new();
        if let Some(held) = self.held.get(&place)
            && let Ok(mut jobs) = Job::open_all(&self.node, &held.path, place.0, place.1, 0)
        {
            for job in &mut jobs {
                if let Some(entry) = self.journal.book().get(&job.key)
                    && entry.is_ours(job.key.file, &job.now)
                {
                    // As above.
                    let _ = job.undo(&self.node, entry);
                }
            }
            run(self.node.hierarchy.version(), &mut self.journal, &mut jobs, 1);
            let is_stuck =
                |job: &Job| job.to.as_ref().is_some_and(|to| job.key.file.parse(&job.now).as_ref() != Ok(to));
            stuck.extend(jobs.into_iter().filter(is_stuck).map(|job| job.key));
        }
        if let Some(held) = self.held.get_mut(&place) {
            held.keys.retain(|key| !stuck.contains(key));
        }
        self.let_go(place, "foreign");
        let until = self.options.retake_after.map(|after| Instant::now() + after);
        let (path, what) = (change.path.clone(), change.what.clone());
        self.back_offs.insert(place, BackOff { path, why, until, times: 0, what });
    }

    /// Whether a change may be tried now; an error is its result.
    fn check_back_off(&mut self, place: CgroupKnob, what: &What) -> Result<(), WriteResult> {
        let Some(back_off) = self.back_offs.get(&place) else { return Ok(()) };
        let over = back_off.until.is_some_and(|until| until <= Instant::now());
        if back_off.times == 0 {
            if over {
                self.back_offs.remove(&place);
                return Ok(());
            }
            return match what {
                Release(_) => Ok(()),
                Set(_) | Lift(_) => Err(WriteResult::Foreign(format!("given up before: {}", back_off.why))),
            };
        }
        // The count of failures is kept, so that waiting grows.
        if over || back_off.what != *what { Ok(()) } else { Err(WriteResult::Limited(back_off.why.clone())) }
    }

    /// Records a failure, so that it is not repeated at once.
    fn failed(&mut self, place: CgroupKnob, change: &Change, trouble: &Trouble) -> WriteResult {
        let result = WriteResult::from(trouble);
        let before = self.back_offs.get(&place).filter(|old| old.what == change.what).map_or(0, |old| old.times);
        let times = before.saturating_add(1);
        match trouble.back_off(times) {
            None => self.let_go(place, "gone"),
            Some(wait) => {
                let why = format!("told before, next try after {wait:?}: {trouble}");
                let (path, what) = (change.path.clone(), change.what.clone());
                let until = Some(Instant::now() + wait);
                self.back_offs.insert(place, BackOff { path, why, until, times, what });
            }
        }
        result
    }

    /// Forgets what is known of cgroups that have gone, and full buckets.
    fn forget(&mut self) {
        let (now, pace) = (Instant::now(), self.options.pace);
        self.buckets.retain(|_, bucket| !bucket.is_full(pace, now));
        let node = &self.node;
        self.back_offs.retain(|(id, _), back_off| node.hierarchy.id(&back_off.path).is_ok_and(|found| found == *id));
        // A held cgroup that has gone is let go by its next write; of processes the others go on.
        let held = self.held.values().flat_map(|held| &held.keys);
        let held: BTreeSet<&Key> = held.filter(|key| key.object.kind == Kind::Cgroup).collect();
        let gone = |key: &&Key| !held.contains(key) && matches!(Job::open(node, key, 0), Err(Trouble::Gone));
        let gone: Vec<Key> = self.journal.book().keys().filter(gone).cloned().collect();
        self.drop_files(&gone, "gone");
        self.held.values_mut().for_each(|held| held.keys.retain(|key| !gone.contains(key)));
    }

    /// Takes over the processes that came from one which carries a held knob: they began with its value, so what they had
    /// before guard is what it had.
    fn adopt(&mut self, place: CgroupKnob, path: &str) {
        if !self.held.contains_key(&place) || place.1.kind() != Kind::Process {
            return;
        }
        for job in Job::open_all(&self.node, path, place.0, place.1, 0).unwrap_or_default() {
            let of_parent = |(key, _): &(&Key, &JournalEntry)| {
                key.file == job.key.file && Some(key.object.path.as_str()) == job.place.parent()
            };
            let book = self.journal.book();
            let entry = book.iter().find(of_parent).map(|(_, entry)| entry.clone());
            let entry = entry.filter(|entry| !book.contains_key(&job.key) && entry.is_ours(job.key.file, &job.now));
            let Some(entry) = entry else { continue };
            // What cannot be recorded now is looked at again.
            if self.journal.hold(vec![(job.key.clone(), entry)], true).is_ok()
                && let Some(held) = self.held.get_mut(&place)
            {
                held.keys.push(job.key);
            }
        }
    }
}

impl Held {
    /// The change that asserts it again.
    fn again(&self, (id, _): CgroupKnob) -> Change {
        let what = if self.lift { Lift(self.setting.clone()) } else { Set(self.setting.clone()) };
        Change { path: self.path.clone(), id, what }
    }
}

impl Planned {
    fn new(change: &Change) -> Self {
        let new = match &change.what {
            Set(setting) | Lift(setting) => setting.to_string(),
            Release(_) => String::new(),
        };
        Self {
            change: change.clone(),
            jobs: Vec::new(),
            old: None,
            new,
            result: None,
            setting: None,
            recorded: Vec::new(),
        }
    }

    fn refuse(&mut self, rule: String) {
        self.result = Some(WriteResult::Refused(rule));
    }

    /// Whether it takes a limit away, which every rule allows: spares the fast path a look around.
    fn only_lifts(&self) -> bool {
        let Some(Setting::Quota(of)) = self.setting else { return false };
        of.quota_us.is_none() && (MIN_PERIOD_US..=MAX_PERIOD_US).contains(&of.period_us)
    }

    fn outcome(self) -> Outcome {
        let Change { path, id, what } = self.change;
        // Everything that was tried has got its result.
        let result = self.result.unwrap_or(WriteResult::Unchanged);
        Outcome { path, id, knob: what.knob(), old: self.old, new: self.new, result }
    }
}

/// Texts of a knob's own files as one.
fn joined<T: AsRef<str>>(knob: Knob, texts: impl Iterator<Item = (File, T)>) -> String {
    let own = texts.filter(|(file, _)| file.knob() == knob);
    let mut out: Vec<String> = own.map(|(_, text)| text.as_ref().trim_end().to_owned()).collect();
    // Of many processes: what there is.
    if knob.kind() == Kind::Process {
        out.sort();
        out.dedup();
    }
    out.join(" ")
}

/// What a file will hold.
fn goal(job: &Job) -> String {
    job.to.as_ref().map_or_else(|| job.now.clone(), |to| job.key.file.text(to))
}

fn goal_value(job: &Job) -> Result<Value, ParseError> {
    job.to.clone().map_or_else(|| job.key.file.parse(&job.now), Ok)
}
