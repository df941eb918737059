//! What knobs held before guard changed them, so that the policies judge from originals and not from their own work.
//! The executor's journal is what is restored from; this is only the policies' memory of it.

use std::collections::BTreeMap;

use super::model::{Model, original};
use super::plan::Want;

use crate::knob::{Knob, Setting};
/// Originals of the knobs that the policies hold or held until just now.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<(u64, Knob), HeldKnob>,
}

#[derive(Clone, Debug)]
struct HeldKnob {
    original: Setting,
    /// What was wanted last.
    last: Setting,
    /// Whether it is wanted still.
    held: bool,
}

impl Ledger {
    /// What the knob held before guard changed it, given what it holds now. A value that guard wanted last is still
    /// guard's, although nothing wants it any more: putting it back has failed or is under way.
    pub(super) fn original(&self, id: u64, now: Setting) -> Setting {
        match self.entries.get(&(id, now.knob())) {
            Some(entry) if entry.held || entry.last == now => entry.original.clone(),
            _ => now,
        }
    }

    /// Takes note of a complete Plan.
    pub(super) fn settle(&mut self, wants: &[Want], model: &Model) {
        self.entries.values_mut().for_each(|entry| entry.held = false);
        self.note(wants, model);
        let ids: std::collections::BTreeSet<u64> = model.cgroups.values().map(|node| node.id).collect();
        self.entries.retain(|(id, _), _| ids.contains(id));
    }

    /// Takes note of wants beside the last Plan.
    pub(super) fn note(&mut self, wants: &[Want], model: &Model) {
        for want in wants {
            let knob = want.setting.knob();
            let Some(original) = model.cgroups.get(&want.path).and_then(|node| original(node, knob)) else { continue };
            let entry = self.entries.entry((want.id, knob)).or_insert_with(|| HeldKnob {
                original: original.clone(),
                last: want.setting.clone(),
                held: true,
            });
            if !entry.held {
                entry.original = original;
            }
            entry.held = true;
            entry.last = want.setting.clone();
        }
    }
}
