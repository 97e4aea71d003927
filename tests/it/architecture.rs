//! The plan of the house, as `docs/architecture.md` has it: no import goes up, and no files import each other in a
//! circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module by its path, as `model::weights`.
type Module = String;

/// The code of all modules of a folder, without comments and tests.
fn modules(folder: &str) -> BTreeMap<Module, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut modules = BTreeMap::new();
    for entry in walkdir::WalkDir::new(&root) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(&root).unwrap();
        if path.extension().is_none_or(|it| it != "rs") || path == Path::new("lib.rs") {
            continue;
        }
        let name = path.with_extension("").to_str().unwrap().replace('/', "::");
        let name = name.strip_suffix("::mod").unwrap_or(&name).to_owned();
        let code = fs::read_to_string(entry.path()).unwrap();
        let code = code.split("#[cfg(test)]\nmod ").next().unwrap();
        let lines = code.lines().map(|line| line.split("//").next().unwrap_or(line));
        modules.insert(name, lines.collect::<Vec<_>>().join("\n"));
    }
    modules
}

/// The single paths of a tree of imports, as `a::{b, c::d}`.
fn expanded(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let body = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, letter) in body.char_indices().chain([(body.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = body[start..at].trim();
                if !part.is_empty() {
                    paths.extend(expanded(part).into_iter().map(|it| format!("{}{it}", prefix.trim())));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

/// Every path that a module names: its imports, and what it names in full.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for statement in code.split("use ").skip(1) {
        if let Some((tree, _)) = statement.split_once(';') {
            paths.extend(expanded(&tree.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    for root in ["crate::", "super::"] {
        for rest in code.split(root).skip(1) {
            let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':');
            let path = &rest[..end.unwrap_or(rest.len())];
            // A tree of imports begins here.
            paths.extend((!path.is_empty()).then(|| format!("{root}{path}")));
        }
    }
    paths
}

/// The modules that a module imports from.
fn imports(module: &str, code: &str, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let own = |name: &str| all.contains_key(&format!("{module}::{name}"));
    let absolute = |path: &str| -> Option<String> {
        let first = path.split("::").next()?;
        if let Some(rest) = path.strip_prefix("crate::").or_else(|| path.strip_prefix("lookbook::")) {
            return Some(rest.to_owned());
        }
        if let Some(rest) = path.strip_prefix("super::") {
            // `super` of a nested module is the file itself.
            return Some(if parent.is_empty() { rest.to_owned() } else { format!("{parent}::{rest}") });
        }
        own(first).then(|| format!("{module}::{path}"))
    };
    let resolved = paths(code).into_iter().filter_map(|path| {
        let mut path = absolute(&path)?;
        while !all.contains_key(&path) {
            path.truncate(path.rfind("::")?);
        }
        Some(path)
    });
    // `runtime::operators` has a nested module of its own, whose `super` is the file.
    resolved.filter(|it| it != module && !(module == "runtime::operators" && it == "runtime")).collect()
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// The row of each room, by the list in the document.
fn rows() -> BTreeMap<String, usize> {
    let document = include_str!("../../docs/architecture.md");
    let list = document.split("```text\n").nth(1).and_then(|it| it.split("```").next()).expect("a list of rooms");
    let rows = list.lines().enumerate();
    rows.flat_map(|(row, rooms)| rooms.split_whitespace().map(move |room| (room.to_owned(), row))).collect()
}

#[test]
fn no_import_goes_up_and_every_room_is_on_the_plan() {
    let (modules, rows) = (modules("src"), rows());
    assert!(modules.len() > 80, "the modules are found");
    let mut wrong = Vec::new();
    for (module, code) in &modules {
        let Some(row) = rows.get(room(module)) else {
            wrong.push(format!("{module} is in no room of docs/architecture.md"));
            continue;
        };
        for other in imports(module, code, &modules) {
            let other_row = rows.get(room(&other)).copied().unwrap_or(usize::MAX);
            if room(&other) != room(module) && other_row >= *row {
                wrong.push(format!("{module} imports from {other}, which is not above it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let rooms: BTreeSet<&str> = modules.keys().map(|it| room(it)).collect();
    let gone: Vec<_> = rows.keys().filter(|it| !rooms.contains(it.as_str())).collect();
    assert!(gone.is_empty(), "docs/architecture.md names rooms that are not there: {gone:?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for (folder, least) in [("src", 300), ("ops/src", 20)] {
        assert_no_circle(&modules(folder), least);
    }
}

fn assert_no_circle(modules: &BTreeMap<Module, String>, least_imports: usize) {
    let mut left: BTreeMap<Module, BTreeSet<Module>> =
        modules.iter().map(|(module, code)| (module.clone(), imports(module, code, modules))).collect();
    assert!(left.values().map(BTreeSet::len).sum::<usize>() > least_imports, "imports are found");
    // Whoever imports nothing that is left is in no circle.
    loop {
        let free: Vec<Module> = left
            .iter()
            .filter(|(_, imports)| !imports.iter().any(|it| left.contains_key(it)))
            .map(|(it, _)| it.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        for it in free {
            left.remove(&it);
        }
    }
    assert!(left.is_empty(), "in circles, or above one: {:?}", left.keys().collect::<Vec<_>>());
}
