//! Where in the text a key stands, and which key stands at a place: what a message needs. Keys are written with their
//! sections, array entries counted from 1: `workload[2].wakeup.p999`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::Mistake;

/// Longest value that a message repeats, characters.
const VALUE_MAX: usize = 60;

/// A text that is TOML.
pub(super) struct Document<'a> {
    text: &'a str,
    path: PathBuf,
    entries: Vec<KeyValue>,
}

/// A key and its value.
struct KeyValue {
    key: String,
    /// Bytes of the key's last part.
    name: Range<usize>,
    /// Bytes of the value; for a section those of its head.
    value: Range<usize>,
    is_section: bool,
}

impl<'a> Document<'a> {
    /// Reads the text.
    ///
    /// # Errors
    /// It is no TOML.
    pub(super) fn new(text: &'a str, path: &Path) -> Result<Self, Mistake> {
        let mut document = Self { text, path: path.to_owned(), entries: Vec::new() };
        match DeTable::parse(text) {
            Ok(table) => {
                add_table(table.get_ref(), "", &mut document.entries);
                Ok(document)
            }
            Err(error) => Err(Mistake {
                line: error.span().map(|span| document.line(span.start)),
                path: document.path,
                key: String::new(),
                value: String::new(),
                problem: one_line(error.message()),
            }),
        }
    }

    /// What serde found wrong.
    pub(super) fn mistake_of(&self, error: &toml::de::Error) -> Mistake {
        let Some(span) = error.span() else {
            return self.mistake(None, String::new(), one_line(error.message()));
        };
        // The narrowest key or value around it.
        let around = |entry: &&KeyValue| [&entry.name, &entry.value].into_iter().any(|part| covers(part, &span));
        let width = |entry: &&KeyValue| {
            let parts = [&entry.name, &entry.value].into_iter().filter(|part| covers(part, &span));
            parts.map(ExactSizeIterator::len).min()
        };
        let entry = self.entries.iter().filter(around).min_by_key(width);
        let mut mistake = self.mistake(entry, String::new(), one_line(error.message()));
        mistake.line = Some(self.line(span.start));
        mistake
    }

    /// A mistake at a key. Where the file does not have the key, the nearest section that it has gives the line.
    pub(super) fn mistake_at(&self, key: &str, problem: String) -> Mistake {
        let mut at = key;
        loop {
            if let Some(entry) = self.entries.iter().find(|entry| entry.key == at) {
                return self.mistake(Some(entry), key.to_owned(), problem);
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None => return self.mistake(None, key.to_owned(), problem),
            }
        }
    }

    fn mistake(&self, entry: Option<&KeyValue>, key: String, problem: String) -> Mistake {
        let own = entry.filter(|entry| key.is_empty() || entry.key == key);
        let value = own.filter(|entry| !entry.is_section).map(|entry| self.shown(entry)).unwrap_or_default();
        Mistake {
            path: self.path.clone(),
            line: entry.map(|entry| self.line(entry.name.start)),
            key: if key.is_empty() { entry.map(|entry| entry.key.clone()).unwrap_or_default() } else { key },
            value,
            problem,
        }
    }

    fn shown(&self, entry: &KeyValue) -> String {
        let text = one_line(self.text.get(entry.value.clone()).unwrap_or_default());
        if text.chars().count() <= VALUE_MAX {
            return text;
        }
        text.chars().take(VALUE_MAX).chain("...".chars()).collect()
    }

    fn line(&self, byte: usize) -> usize {
        self.text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1
    }
}

fn covers(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn add_table(table: &DeTable<'_>, prefix: &str, entries: &mut Vec<KeyValue>) {
    for (name, value) in table {
        let separator = if prefix.is_empty() { "" } else { "." };
        let key = format!("{prefix}{separator}{}", name.get_ref());
        add_value(key, name.span(), value, entries);
    }
}

fn add_value(key: String, name: Range<usize>, value: &Spanned<DeValue<'_>>, entries: &mut Vec<KeyValue>) {
    let inner = value.get_ref();
    match inner {
        DeValue::Table(table) => add_table(table, &key, entries),
        DeValue::Array(array) => add_array(array, &key, entries),
        _ => {}
    }
    let is_section = matches!(inner, DeValue::Table(_)) || is_sections(inner);
    entries.push(KeyValue { key, name, value: value.span(), is_section });
}

fn add_array(array: &DeArray<'_>, key: &str, entries: &mut Vec<KeyValue>) {
    for (index, value) in array.iter().enumerate() {
        add_value(format!("{key}[{}]", index + 1), value.span(), value, entries);
    }
}

/// Whether the value is written as `[[name]]`, or as an array of tables in a line.
fn is_sections(value: &DeValue<'_>) -> bool {
    matches!(value, DeValue::Array(array) if array.iter().any(|entry| matches!(entry.get_ref(), DeValue::Table(_))))
}
