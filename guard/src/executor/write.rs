//! One write: journal, look, write, look again. And a batch of them in the order that the kernel takes.

use super::{
    journal::{JournalEntry, Key},
    place::{self, NodeFiles, Place},
    store::Journal,
    trouble::Trouble,
};
use crate::{
    knob::{File, Kind, Knob, Move, ParseError, Undo, Value, Version, steps},
    snapshot::CpuList,
};

/// A file that is to get a value, or only tells how things are around one.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) place: Box<dyn Place>,
    /// What it holds, as far as is known.
    pub(super) now: String,
    /// What it is to hold; `None` when it only tells.
    pub(super) to: Option<Value>,
    /// What means the same as an original that the kernel takes no more, the best first.
    pub(super) instead: Vec<Value>,
    /// Texts that the file may get from systemd, which makes them of what guard tells it.
    pub(super) by_systemd: Vec<String>,
    /// Who asked: jobs of one asker stop when one of them fails.
    pub(super) asker: usize,
}

/// What stopped an asker's jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Somebody else wrote this meanwhile.
    Foreign {
        file: File,
        found: String,
    },
    Trouble(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// How often a file is looked at anew when its value changes before guard's first write.
const LOOKS: usize = 5;

impl Job {
    /// Opens an object's file and reads it.
    pub(super) fn open(node: &NodeFiles, key: &Key, asker: usize) -> Result<Self, Trouble> {
        Self::of(place::open(node, &key.object, key.file)?, key.file, asker)
    }

    /// The files of a knob of the cgroup with this id, on all objects that carry it. Processes that end meanwhile are passed
    /// over.
    pub(super) fn open_all(
        node: &NodeFiles,
        path: &str,
        id: u64,
        knob: Knob,
        asker: usize,
    ) -> Result<Vec<Self>, Trouble> {
        let mut jobs = Vec::new();
        for (place, file) in place::of_cgroup(node, path, id, knob)? {
            match Self::of(place, file, asker) {
                Err(Trouble::Gone) if knob.kind() != Kind::Cgroup => {}
                job => jobs.push(job?),
            }
        }
        Ok(jobs)
    }

    fn of(place: Box<dyn Place>, file: File, asker: usize) -> Result<Self, Trouble> {
        let now = place.read(file)?;
        let key = Key { object: place.object().clone(), file };
        Ok(Self { key, place, now, to: None, instead: Vec::new(), by_systemd: Vec::new(), asker })
    }

    /// Has it put the file back.
    pub(super) fn undo(&mut self, node: &NodeFiles, entry: &JournalEntry) -> Result<(), ParseError> {
        let file = self.key.file;
        let original = file.parse(&entry.original)?;
        if let Undo::WriteBackOrAll { all, effective } = file.knob().row().undo
            && original == Value::List(CpuList::default())
        {
            let texts = [node.read(all), self.place.read_around(effective)].into_iter().flatten();
            self.instead = texts.filter_map(|text| file.parse(&text).ok()).filter(|value| *value != original).collect();
        }
        self.to = Some(original);
        Ok(())
    }

    fn to_move(&self) -> Result<Move, Trouble> {
        let file = self.key.file;
        let from =
            file.parse(&self.now).map_err(|error| Trouble::Other(format!("cannot understand {file}: {error}")))?;
        let to = self.to.clone().unwrap_or_else(|| from.clone());
        Ok(Move { path: self.key.object.path.clone(), file, from, to })
    }

    /// Brings the file to `value`; where the kernel takes an original no more, to what means the same, which is returned in
    /// words.
    fn write(&mut self, journal: &mut Journal<Key, JournalEntry>, value: &Value) -> Result<Option<String>, Stop> {
        match self.write_value(journal, value) {
            Err(Stop::Trouble(Trouble::Invalid(why))) if self.to.as_ref() == Some(value) => {
                for each in std::mem::take(&mut self.instead) {
                    if let Ok(()) = self.write_value(journal, &each) {
                        return Ok(Some(format!("\"{}\", which means the same here; {why}", self.now)));
                    }
                }
                Err(Trouble::Invalid(why).into())
            }
            done => done.map(|()| None),
        }
    }

    /// Brings the file to `value`. The journal has the file's original already.
    fn write_value(&mut self, journal: &mut Journal<Key, JournalEntry>, value: &Value) -> Result<(), Stop> {
        let file = self.key.file;
        let text = file.text(value);
        self.intend(journal, &text)?;
        for _ in 0..LOOKS {
            let found = self.place.read(file)?;
            let entry = journal.book().get(&self.key);
            if file.same(&found, &self.now) || entry.is_some_and(|entry| entry.is_ours(file, &found)) {
                return self.write_now(journal, value, &text);
            }
            // Nothing of guard's was there yet: what somebody else has just written is what has to be kept.
            match entry.filter(|entry| entry.ours.len() == 1 && file.same(&entry.original, &self.now)) {
                Some(entry) => {
                    let entry = JournalEntry { original: found.clone(), ..entry.clone() };
                    journal.hold(vec![(self.key.clone(), entry)], true).map_err(|error| unjournaled(&error))?;
                    self.now = found;
                }
                None => return Err(Stop::Foreign { file, found }),
            }
        }
        Err(Trouble::Busy(format!("{} changes faster than it can be kept", self.key)).into())
    }

    /// Says in the journal what is about to be written. Putting the original back needs no word.
    fn intend(&self, journal: &mut Journal<Key, JournalEntry>, text: &str) -> Result<(), Trouble> {
        let file = self.key.file;
        let Some(entry) = journal.book().get(&self.key) else {
            return Err(Trouble::Journal(format!("{} was not recorded", self.key)));
        };
        let is_known = entry.ours.last().is_some_and(|last| file.same(last, text));
        if file.same(&entry.original, text) || (is_known && entry.by_systemd == self.by_systemd) {
            return Ok(());
        }
        let mut ours: Vec<String> = entry.ours.iter().filter(|own| file.same(own, &self.now)).cloned().collect();
        if !ours.last().is_some_and(|last| file.same(last, text)) {
            ours.push(text.trim_end().to_owned());
        }
        let entry = JournalEntry { ours, by_systemd: self.by_systemd.clone(), ..entry.clone() };
        journal.hold(vec![(self.key.clone(), entry)], false).map_err(|error| unjournaled(&error))
    }

    fn write_now(&mut self, journal: &Journal<Key, JournalEntry>, value: &Value, text: &str) -> Result<(), Stop> {
        let file = self.key.file;
        let mut found = String::new();
        for _ in 0..LOOKS {
            self.place.write(file, text)?;
            found = self.place.read(file)?;
            let before = std::mem::replace(&mut self.now, found.clone());
            // The kernel takes the word and says behind it why it does not mean it. An original may be of that kind.
            if !value.is_dishonoured() && file.parse(&found).is_ok_and(|found| found.is_dishonoured()) {
                let before = file.parse(&before).map_or(before, |value| file.text(&value));
                self.place.write(file, &before)?;
                self.now = self.place.read(file)?;
                return Err(Trouble::Invalid(format!("{} became \"{found}\"", self.key)).into());
            }
            if file.same(&found, text) {
                return Ok(());
            }
            // systemd was being told a value of guard's from a moment ago, and has just written it.
            let by_systemd = journal.book().get(&self.key).map(|entry| &entry.by_systemd[..]).unwrap_or_default();
            if !by_systemd.iter().any(|own| file.same(own, &found)) {
                break;
            }
        }
        Err(Stop::Foreign { file, found })
    }
}

/// What a failed append to the journal means for a write.
pub(super) fn unjournaled(error: &std::io::Error) -> Trouble {
    Trouble::Journal(format!("cannot write the undo journal, so nothing is changed: {error}"))
}

/// What came of a batch, by asker.
#[derive(Debug)]
pub(super) struct Ran {
    /// What stopped it.
    pub(super) stop: Option<Stop>,
    /// Whether anything was written.
    pub(super) wrote: bool,
    /// What was written where the kernel took an original no more.
    pub(super) nearest: Option<String>,
}

/// Runs all jobs in the order that the kernel takes; `askers` is how many askers there are.
pub(super) fn run(
    version: Version,
    journal: &mut Journal<Key, JournalEntry>,
    jobs: &mut [Job],
    askers: usize,
) -> Vec<Ran> {
    let mut ran: Vec<Ran> = (0..askers).map(|_| Ran { stop: None, wrote: false, nearest: None }).collect();
    let mut moves = Vec::new();
    let mut of_job = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        match job.to_move() {
            Ok(each) => {
                moves.push(each);
                of_job.push(index);
            }
            Err(trouble) => ran[job.asker].stop = Some(trouble.into()),
        }
    }
    for step in steps(&moves, version) {
        let job = &mut jobs[of_job[step.of]];
        let of = &mut ran[job.asker];
        // What only tells is not written, whatever lies between it and its neighbour's end.
        if of.stop.is_some() || job.to.is_none() {
            continue;
        }
        match job.write(journal, &step.value) {
            Ok(nearest) => {
                of.wrote = true;
                of.nearest = nearest.or(of.nearest.take());
            }
            // One of many that ended: the others go on.
            Err(Stop::Trouble(Trouble::Gone)) if job.key.object.kind != Kind::Cgroup => {}
            Err(stop) => of.stop = Some(stop),
        }
    }
    ran
}
