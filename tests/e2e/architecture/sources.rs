//! Reading the modules of the crate, and every path that they mention.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, UseTree};

/// Files by their path below the package, such as `src/cli/mod.rs`.
pub(crate) struct Sources(BTreeMap<String, String>);

/// A module: its file, its path from the crate's root (empty for `lib.rs`, and
/// `main` for `main.rs`), and what it mentions.
#[derive(Debug)]
pub(crate) struct Module {
    /// The file it is in.
    pub(crate) file: String,
    /// Its path, without `crate`.
    pub(crate) path: Vec<String>,
    /// What it mentions, tests left out.
    pub(crate) mentions: Vec<Mention>,
}

/// A path that a module mentions: in an import, in code, in a macro's arguments
/// or in an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    /// Its line.
    pub(crate) line: usize,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its parts. Paths into the crate itself start with `crate`, whether or not
    /// they were written so.
    pub(crate) path: Vec<String>,
}

/// What a mention is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An import or a path in code. An import of everything ends with `*`.
    Path,
    /// The name of a macro that is called.
    Macro,
    /// A function that is called without arguments: by a path, or as a method.
    BareCall,
    /// A global variable.
    Static,
    /// One that can be changed.
    StaticMut,
}

impl Sources {
    /// The Rust files below `src` of the package at `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let files = rust_files(&root.join("src"));
        Self(files.into_iter().map(|(path, text)| (relative(root, &path), text)).collect())
    }

    /// Files that a test has made up.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|&(name, text)| (name.into(), text.into())).collect())
    }

    /// All modules of the program, and the files that belong to none.
    pub(crate) fn modules(&self) -> (Vec<Module>, Vec<String>) {
        let mut modules = Vec::new();
        let mut unread: Vec<String> = Vec::new();
        self.read_module("src/lib.rs", Vec::new(), &mut modules, &mut unread);
        self.read_module("src/main.rs", vec!["main".into()], &mut modules, &mut unread);
        let used = |file: &String| {
            modules.iter().any(|module| module.file == *file) || unread.contains(file)
        };
        let orphans = self.0.keys().filter(|file| !used(file)).cloned().collect();
        (modules, orphans)
    }

    /// Reads a file and those below it. Files of tests go to `tests`.
    fn read_module(
        &self,
        file: &str,
        path: Vec<String>,
        modules: &mut Vec<Module>,
        tests: &mut Vec<String>,
    ) {
        let Some(text) = self.0.get(file) else { return };
        let parsed = syn::parse_file(text).unwrap_or_else(|cause| panic!("{file}: {cause}"));
        let mut reader = Reader { here: path.clone(), mentions: Vec::new() };
        reader.visit_file(&parsed);
        modules.push(Module { file: file.into(), path: path.clone(), mentions: reader.mentions });
        for item in &parsed.items {
            let inline = matches!(item, Item::Mod(child) if child.content.is_some());
            for name in if inline { Vec::new() } else { self.children(file, item) } {
                let file = self.file_of(file, &name);
                if is_test(attributes(item)) {
                    self.read_tests(file, tests);
                } else {
                    let mut path = path.clone();
                    path.push(name);
                    self.read_module(&file, path, modules, tests);
                }
            }
        }
    }

    /// Notes a file of tests and those below it.
    fn read_tests(&self, file: String, tests: &mut Vec<String>) {
        let Some(text) = self.0.get(&file) else { return };
        let parsed = syn::parse_file(text).unwrap_or_else(|cause| panic!("{file}: {cause}"));
        for name in parsed.items.iter().flat_map(|item| self.children(&file, item)) {
            self.read_tests(self.file_of(&file, &name), tests);
        }
        tests.push(file);
    }

    /// The modules that an item declares. A macro may do so too: by each name
    /// that it is handed and that a file has.
    fn children(&self, parent: &str, item: &Item) -> Vec<String> {
        match item {
            Item::Mod(child) => vec![child.ident.to_string()],
            Item::Macro(call) => {
                let words = call.mac.tokens.clone().into_iter().map(|word| word.to_string());
                words.filter(|word| self.0.contains_key(&self.file_of(parent, word))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The file of the module `name` that is declared in `parent`.
    fn file_of(&self, parent: &str, name: &str) -> String {
        let parent = Path::new(parent);
        let stem = parent.file_stem().unwrap();
        let directory = parent.parent().unwrap();
        let directory = match stem.to_str().unwrap() {
            "lib" | "main" | "mod" => directory.to_path_buf(),
            stem => directory.join(stem),
        };
        let beside = directory.join(format!("{name}.rs")).display().to_string();
        if self.0.contains_key(&beside) {
            return beside;
        }
        directory.join(name).join("mod.rs").display().to_string()
    }
}

/// The lines of each Rust file of the program and its tests.
pub(crate) fn lengths(root: &Path) -> BTreeMap<String, usize> {
    ["src", "tests", "benches"]
        .into_iter()
        .flat_map(|directory| rust_files(&root.join(directory)))
        .map(|(path, text)| (relative(root, &path), text.lines().count()))
        .collect()
}

fn relative(root: &Path, path: &Path) -> String {
    let parts = path.strip_prefix(root).unwrap().iter().map(|part| part.to_str().unwrap());
    parts.collect::<Vec<_>>().join("/")
}

fn rust_files(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// Whether something exists in tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        let mut words = list.tokens.clone().into_iter();
        match words.next() {
            Some(TokenTree::Ident(word)) if list.path.is_ident("cfg") && word == "test" => true,
            Some(TokenTree::Ident(word)) if list.path.is_ident("cfg") && word == "all" => {
                let Some(TokenTree::Group(group)) = words.next() else { return false };
                group.stream().into_iter().any(|word| word.to_string() == "test")
            }
            _ => false,
        }
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

struct Reader {
    /// The module that is being read.
    here: Vec<String>,
    mentions: Vec<Mention>,
}

impl Reader {
    fn note(&mut self, span: Span, kind: Kind, path: Vec<String>) {
        let line = span.start().line;
        let path = if kind == Kind::Path { self.resolve(path) } else { path };
        self.mentions.push(Mention { line, kind, path });
    }

    /// Turns `self`, `super` and the crate's own name at the start into `crate`.
    fn resolve(&self, path: Vec<String>) -> Vec<String> {
        let in_main = self.here.first().is_some_and(|first| first == "main");
        let mut base = match path[0].as_str() {
            "crate" => return path,
            "tmpcred" => Vec::new(),
            "self" | "super" if in_main => return path,
            "self" | "super" => self.here.clone(),
            _ => return path,
        };
        let mut rest = path.into_iter().peekable();
        if base.is_empty() && rest.peek().is_some_and(|first| first == "tmpcred") {
            rest.next();
        }
        rest.next_if_eq("self");
        while rest.next_if_eq("super").is_some() {
            base.pop();
        }
        ["crate".to_string()].into_iter().chain(base).chain(rest).collect()
    }

    /// The paths of an import, one for each name.
    fn import(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &with(path.ident.to_string())),
            UseTree::Name(name) if name.ident == "self" => {
                self.note(name.ident.span(), Kind::Path, before.to_vec());
            }
            UseTree::Name(name) => {
                self.note(name.ident.span(), Kind::Path, with(name.ident.to_string()));
            }
            UseTree::Rename(name) => {
                self.note(name.ident.span(), Kind::Path, with(name.ident.to_string()));
            }
            UseTree::Glob(glob) => {
                let span = glob.star_token.spans[0];
                self.note(span, Kind::Path, with("*".into()));
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before);
                }
            }
        }
    }

    /// What the arguments of a macro or an attribute mention: nobody has parsed
    /// them, so paths are told by `::` between words.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let punct = |at: usize, wanted: char| matches!(tokens.get(at), Some(TokenTree::Punct(found)) if found.as_char() == wanted);
        let word = |at: usize| match tokens.get(at) {
            Some(TokenTree::Ident(word)) => Some(word),
            _ => None,
        };
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                // A lifetime, or the start of one.
                TokenTree::Punct(quote)
                    if quote.as_char() == '\'' && quote.spacing() == Spacing::Joint =>
                {
                    at += 1;
                }
                TokenTree::Ident(first) if *first == "static" => {
                    let mutable = word(at + 1).is_some_and(|word| *word == "mut");
                    let kind = if mutable { Kind::StaticMut } else { Kind::Static };
                    if word(at + 1).is_some() {
                        self.note(first.span(), kind, Vec::new());
                    }
                }
                TokenTree::Ident(first) => {
                    let mut path = vec![first.to_string()];
                    while punct(at + 1, ':') && punct(at + 2, ':') && word(at + 3).is_some() {
                        path.extend(word(at + 3).map(ToString::to_string));
                        at += 3;
                    }
                    let call = matches!(tokens.get(at + 1), Some(TokenTree::Group(arguments))
                        if arguments.delimiter() == Delimiter::Parenthesis && arguments.stream().is_empty());
                    if punct(at + 1, '!') && !punct(at + 2, '=') {
                        self.note(first.span(), Kind::Macro, path.clone());
                    } else if call {
                        self.note(first.span(), Kind::BareCall, path.clone());
                    }
                    self.note(first.span(), Kind::Path, path);
                }
                _ => {}
            }
            at += 1;
        }
    }
}

impl Visit<'_> for Reader {
    fn visit_item(&mut self, item: &Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_field(&mut self, field: &syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &syn::Variant) {
        if !is_test(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_local(&mut self, local: &syn::Local) {
        if !is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_item_mod(&mut self, module: &syn::ItemMod) {
        if module.content.is_some() {
            self.here.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
            self.here.pop();
        }
    }

    fn visit_item_use(&mut self, import: &syn::ItemUse) {
        self.import(&import.tree, &[]);
    }

    fn visit_item_static(&mut self, item: &syn::ItemStatic) {
        let mutable = matches!(item.mutability, syn::StaticMutability::Mut(_));
        let kind = if mutable { Kind::StaticMut } else { Kind::Static };
        self.note(item.ident.span(), kind, vec![item.ident.to_string()]);
        visit::visit_item_static(self, item);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let span = path.segments[0].ident.span();
        let parts = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(span, Kind::Path, parts);
        visit::visit_path(self, path);
    }

    fn visit_expr_call(&mut self, call: &syn::ExprCall) {
        if let (true, syn::Expr::Path(function)) = (call.args.is_empty(), &*call.func) {
            let segments = &function.path.segments;
            let parts = segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.note(segments[0].ident.span(), Kind::BareCall, parts);
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
        if call.args.is_empty() {
            self.note(call.method.span(), Kind::BareCall, vec![call.method.to_string()]);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        let segments = &call.path.segments;
        let parts = segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(segments[0].ident.span(), Kind::Macro, parts);
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}
