//! Who imports whom: reads the files of a crate and gives an arrow from each to every other whose items it names, in `use` or
//! by a path. A name that a module itself imports is followed to the file that defines it, so a module that only re-exports
//! names (`pub use`) has no arrow for them. Tests are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, Meta, UseTree, visit::Visit};

use crate::place::rust_files;

/// Arrows from file to file, and the names that tie each.
pub(super) type Arrows = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

/// A module by the names that lead to it from the crate's root.
type Module = Vec<String>;

/// The crate that others import, by its name in paths, and its root.
const SHARED: (&str, &str) = ("guard_common", "guard-common/src/lib.rs");

/// What one file holds.
#[derive(Default)]
struct Contents {
    /// Paths that it names, each with the module that names it.
    paths: Vec<(Module, Vec<String>)>,
    /// Names that its modules import, and the path behind each.
    imported: BTreeMap<Module, Vec<(String, Vec<String>)>>,
    /// Its modules in the file itself.
    inline: Vec<Module>,
    /// Modules that are there for tests only.
    for_tests: Vec<Module>,
}

/// A crate's source.
#[derive(Default)]
pub(super) struct Source {
    files: BTreeMap<PathBuf, Contents>,
    modules: BTreeMap<Module, PathBuf>,
}

impl Source {
    /// Reads all files below `src`, named relative to `root`.
    ///
    /// # Errors
    /// When a file cannot be read or is not Rust.
    pub(super) fn read(root: &Path, src: &str) -> Result<Self> {
        let mut source = Self::default();
        for path in rust_files(&root.join(src))? {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path);
            source.add(name, src, &text).with_context(|| format!("parsing {}", path.display()))?;
        }
        Ok(source)
    }

    /// Adds one file; `name` lies below `src`.
    pub(super) fn add(&mut self, name: &Path, src: &str, text: &str) -> Result<()> {
        let module = module_of(name.strip_prefix(src).unwrap_or(name));
        let mut reader = Reader { module: module.clone(), contents: Contents::default() };
        reader.visit_file(&syn::parse_file(text)?);
        let modules = reader.contents.inline.iter().cloned().chain([module]);
        self.modules.extend(modules.map(|module| (module, name.to_owned())));
        self.files.insert(name.to_owned(), reader.contents);
        Ok(())
    }

    /// All arrows.
    pub(super) fn arrows(&self) -> Arrows {
        let tests: Vec<&Module> = self.files.values().flat_map(|contents| &contents.for_tests).collect();
        let is_test = |module: &Module| tests.iter().any(|test| module.starts_with(test));
        let mut arrows = Arrows::new();
        for (file, contents) in &self.files {
            let to = arrows.entry(file.clone()).or_default();
            for (module, path) in contents.paths.iter().filter(|(module, _)| !is_test(module)) {
                if path[0] == SHARED.0 {
                    to.entry(SHARED.1.into()).or_default().insert(path[1..].join("::"));
                }
                let Some(target) = self.absolute(module, path) else { continue };
                for (file_of_target, name) in self.defined_in(&target, 0) {
                    if file_of_target != *file {
                        to.entry(file_of_target).or_default().insert(name);
                    }
                }
            }
        }
        arrows.retain(|file, _| !self.modules.iter().any(|(module, of)| of == file && is_test(module)));
        arrows
    }

    /// `path`, as `module` names it, from the crate's root; `None` when it leads out of the crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Module> {
        let mut base: Module = module.to_vec();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {}
            child => {
                let mut inner = base.clone();
                inner.push(child.to_owned());
                if !self.modules.contains_key(&inner) {
                    return None;
                }
            }
        }
        while rest.first().is_some_and(|word| word == "super") {
            base.pop()?;
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The files that define what `path` names, with the name that is taken from there.
    fn defined_in(&self, path: &[String], depth: usize) -> Vec<(PathBuf, String)> {
        let Some(length) = (0..=path.len()).rev().find(|&length| self.modules.contains_key(&path[..length])) else {
            return Vec::new();
        };
        let (module, file) = (&path[..length], &self.modules[&path[..length]]);
        let Some(name) = path.get(length) else {
            return vec![(file.clone(), module.last().cloned().unwrap_or_default())];
        };
        let imported = self.files.get(file).and_then(|contents| contents.imported.get(module));
        // A module can import a name from one that has it from there.
        for (import, behind) in imported.into_iter().flatten().filter(|_| depth < 8) {
            let Some(mut target) = self.absolute(module, behind) else { continue };
            if import == name {
                target.extend_from_slice(&path[length + 1..]);
                return self.defined_in(&target, depth + 1);
            }
        }
        vec![(file.clone(), name.clone())]
    }
}

/// The module of a file below `src`.
fn module_of(file: &Path) -> Module {
    let mut module: Module =
        file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|name| name == "mod")
        || module.len() == 1 && (module[0] == "lib" || module[0] == "main")
    {
        module.pop();
    }
    module
}

/// Walks a file and notes the paths in it.
struct Reader {
    module: Module,
    contents: Contents,
}

impl Reader {
    fn note(&mut self, path: Vec<String>) {
        self.contents.paths.push((self.module.clone(), path));
    }

    /// Each path of a `use`; `public` when others see it.
    fn note_use(&mut self, tree: &UseTree, so_far: &[String], public: bool) {
        let joined = |name: &syn::Ident| so_far.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.note_use(&path.tree, &joined(&path.ident), public),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_use(tree, so_far, public)),
            UseTree::Glob(_) => self.note(so_far.to_vec()),
            UseTree::Name(name) if name.ident == "self" => self.note(so_far.to_vec()),
            UseTree::Name(name) => self.note_name(joined(&name.ident), name.ident.to_string(), public),
            UseTree::Rename(rename) => self.note_name(joined(&rename.ident), rename.rename.to_string(), public),
        }
    }

    fn note_name(&mut self, path: Vec<String>, name: String, public: bool) {
        let imported = self.contents.imported.entry(self.module.clone()).or_default();
        imported.push((name, path.clone()));
        if !public {
            self.note(path);
        }
    }

    /// A path outside of `use`. A module that names what is in its own child, as `child::name`, is the child's door and not
    /// its user.
    fn note_path(&mut self, path: Vec<String>) {
        let whole = |word: &String| ["crate", "self", "super", SHARED.0].contains(&word.as_str());
        if path.len() > 1 && path.first().is_some_and(whole) {
            self.note(path);
        }
    }

    /// The paths in the tokens of a macro's call.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.note_path(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.note_path(std::mem::take(&mut path));
                    self.note_tokens(group.stream());
                    colons = 0;
                }
                _ => {
                    self.note_path(std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.note_path(std::mem::take(&mut path));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Const(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_for_tests) {
            syn::visit::visit_item(self, item);
        } else if let Item::Mod(item) = item {
            let module = self.module.iter().cloned().chain([item.ident.to_string()]).collect();
            self.contents.for_tests.push(module);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            self.contents.inline.push(self.module.clone());
            syn::visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_use(&item.tree, &[], !matches!(item.vis, syn::Visibility::Inherited));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !item.attrs.iter().any(is_for_tests) {
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note_path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.note_tokens(call.tokens.clone());
    }

    // `pub(super)` names nothing, and attributes hold no paths of ours.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

/// Whether an attribute is `#[cfg(test)]`, or asks for more beside that.
fn is_for_tests(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return attribute.path().is_ident("test") };
    let words = list.tokens.to_string();
    attribute.path().is_ident("cfg")
        && (words == "test" || words.starts_with("all (test") || words.starts_with("all(test"))
}
