//! The modules of `src`, read as text: which module uses which item of which other one.
//!
//! It reads the style that rustfmt leaves: one `use` with braces may have several lines, and the braces of modules and
//! functions close in the column in which they began. Tests in a module are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Files below a folder, with their text, sorted.
pub(crate) fn rust_files(folder: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// Returns `true` for a file with tests only.
pub(crate) fn is_test(file: &str) -> bool {
    file.contains("/tests") || file.ends_with("tests.rs")
}

/// Returns `true` if `line` is code and not a comment.
pub(crate) fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

/// The lines of a file before its tests.
pub(crate) fn before_tests(text: &str) -> Vec<&str> {
    let mut all: Vec<&str> = text.lines().collect();
    // A declaration of tests in another file does not end the code.
    let begins_tests = |pair: &[&str]| pair[0].starts_with("#[cfg(test)]") && pair[1].ends_with('{');
    if let Some(end) = all.windows(2).position(begins_tests) {
        all.truncate(end);
    }
    all
}

/// The path of a file's module below the crate: `src/api/logs.rs` is `api::logs`, and `src/api/mod.rs` is `api`.
pub(crate) fn module_of(file: &str) -> Vec<String> {
    let path = file.strip_prefix("src/").unwrap().trim_end_matches(".rs").trim_end_matches("/mod");
    let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    // `paths_tests.rs` is the module `tests` of `paths.rs`.
    if let Some(parent) = parts.last().and_then(|last| last.strip_suffix("_tests")).map(str::to_owned) {
        parts.pop();
        parts.extend([parent, "tests".to_owned()]);
    }
    parts
}

/// A path in the code, from the root of the crate.
#[derive(Debug, Clone)]
pub(crate) struct Used {
    /// The line in the file, from 1.
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
    /// The name that a `use` gives it; `None` for a path within the code.
    pub(crate) name: Option<String>,
    /// Whether a `use` makes it visible outside of the module.
    pub(crate) is_exported: bool,
}

/// All paths in `lines` that begin with `crate::`, `super::` or `self::`, or with one of `children`, the modules that
/// the file declares.
pub(crate) fn used(lines: &[&str], module: &[String], children: &BTreeSet<String>) -> Vec<Used> {
    let mut found = Vec::new();
    let mut inner: Vec<(usize, String)> = Vec::new();
    let mut n = 0;
    while n < lines.len() {
        let (line, at) = (lines[n], n + 1);
        n += 1;
        let (indent, code) = (line.len() - line.trim_start().len(), line.trim_start());
        if !is_code(line) {
            continue;
        }
        if inner.last().is_some_and(|(of, _)| *of == indent && code == "}") {
            inner.pop();
        }
        if let Some(name) = code.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            inner.push((indent, name.to_owned()));
        }
        let mut here = module.to_vec();
        here.extend(inner.iter().map(|(_, name)| name.clone()));
        let words = code.trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
        let words = words.trim_start_matches("pub ");
        if let Some(tree) = words.strip_prefix("use ").or_else(|| after_restricted_use(words)) {
            let mut tree = tree.to_owned();
            while !tree.contains(';') && n < lines.len() {
                tree += lines[n].trim();
                n += 1;
            }
            let is_exported = code.starts_with("pub");
            for (path, name) in leaves(tree.trim_end_matches(';')) {
                let path = absolute(&path, &here, children);
                found.extend(path.map(|path| Used { line: at, path, name: Some(name), is_exported }));
            }
            continue;
        }
        for path in paths(code) {
            let path = absolute(&path, &here, children);
            found.extend(path.map(|path| Used { line: at, path, name: None, is_exported: false }));
        }
    }
    found
}

/// The tree of `pub(in path) use tree`.
fn after_restricted_use(code: &str) -> Option<&str> {
    code.strip_prefix("pub(in ")?.split_once(") use ").map(|(_, tree)| tree)
}

/// The paths of a tree of `use`, each with the name that it gets.
fn leaves(tree: &str) -> Vec<(String, String)> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let last = path.trim().rsplit("::").next().unwrap_or_default();
        let name = if alias.is_empty() { last } else { alias.trim() };
        return vec![(path.trim().to_owned(), name.to_owned())];
    };
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for c in rest.strip_suffix('}').unwrap_or(rest).chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts
        .flat_map(|part| {
            if part == "self" {
                let path = prefix.trim().trim_end_matches("::").to_owned();
                let name = path.rsplit("::").next().unwrap_or_default().to_owned();
                return vec![(path, name)];
            }
            leaves(&format!("{}{part}", prefix.trim()))
        })
        .collect()
}

/// The words with `::` between them in a line, without texts in quotes.
fn paths(code: &str) -> Vec<String> {
    let unquoted: String = code.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let words = unquoted.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':')));
    words.filter(|word| word.contains("::")).map(|word| word.trim_end_matches(':').to_owned()).collect()
}

/// A path from the root of the crate; `None` for one of another crate or of the prelude.
fn absolute(path: &str, here: &[String], children: &BTreeSet<String>) -> Option<Vec<String>> {
    let mut words = path.split("::").peekable();
    let mut base = match *words.peek()? {
        "crate" | "cotter" => {
            words.next();
            Vec::new()
        }
        "self" => {
            words.next();
            here.to_vec()
        }
        "super" => here.to_vec(),
        child if children.contains(child) => here.to_vec(),
        _ => return None,
    };
    while words.peek() == Some(&"super") {
        words.next();
        base.pop()?;
    }
    base.extend(words.map(str::to_owned));
    Some(base)
}

/// The modules that a file declares.
pub(crate) fn declared(lines: &[&str]) -> BTreeSet<String> {
    let declarations = lines.iter().filter(|line| is_code(line)).filter_map(|line| {
        let (_, name) = line.strip_suffix(';')?.split_once("mod ")?;
        let is_plain = ["", "pub ", "pub(super) ", "pub(crate) "].contains(&line.split_once("mod ")?.0);
        is_plain.then(|| name.to_owned())
    });
    declarations.collect()
}

/// The modules of one room that use each other, without tests: for each the modules whose items it uses, with a line.
pub(crate) type Graph = BTreeMap<String, BTreeMap<String, String>>;

struct Module {
    file: String,
    lines: Vec<String>,
    used: Vec<Used>,
}

/// The graph of all modules.
pub(crate) fn graph(folder: &Path) -> Graph {
    let modules: BTreeMap<Vec<String>, Module> = rust_files(folder)
        .into_iter()
        .filter(|(file, _)| !is_test(file))
        .map(|(file, text)| {
            let (path, lines) = (module_of(&file), before_tests(&text));
            let used = used(&lines, &path, &declared(&lines));
            let lines = lines.into_iter().map(str::to_owned).collect();
            (path, Module { file, lines, used })
        })
        .collect();
    let mut graph = Graph::new();
    for (path, module) in &modules {
        let edges = graph.entry(path.join("::")).or_default();
        for used in &module.used {
            if used.is_exported && !is_named(module, used) {
                continue;
            }
            let Some(target) = home(&modules, &used.path, 0) else { continue };
            // A module and the modules in it belong together.
            if !target.starts_with(path) && !path.starts_with(&target) {
                let place = format!("{}:{}", module.file, used.line);
                edges.entry(target.join("::")).or_insert(place);
            }
        }
    }
    graph
}

/// Returns `true` if the code of a module itself names what it exports.
fn is_named(module: &Module, used: &Used) -> bool {
    let Some(name) = &used.name else { return true };
    let mut is_use = false;
    module.lines.iter().filter(|line| is_code(line)).any(|line| {
        is_use |= line.trim_start().trim_start_matches("pub ").starts_with("use ") || line.contains(") use ");
        let names_it =
            line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name.as_str());
        let found = !is_use && names_it;
        is_use &= !line.contains(';');
        found
    })
}

/// The module in which the item of a path is written: the longest beginning that is a module, or where that module has
/// its name from.
fn home(modules: &BTreeMap<Vec<String>, Module>, path: &[String], depth: usize) -> Option<Vec<String>> {
    let of = (1..=path.len()).rev().find(|n| modules.contains_key(&path[..*n]))?;
    let Some(name) = path.get(of) else { return Some(path[..of].to_vec()) };
    let module = &modules[&path[..of]];
    let alias = module.used.iter().find(|used| used.name.as_ref() == Some(name));
    match alias {
        Some(alias) if depth < 8 => {
            let mut whole = alias.path.clone();
            whole.extend_from_slice(&path[of + 1..]);
            home(modules, &whole, depth + 1).or_else(|| Some(path[..of].to_vec()))
        }
        Some(_) | None => Some(path[..of].to_vec()),
    }
}

/// The groups of modules that use each other, directly or through others, each as `a -> b at file:line`.
pub(crate) fn circles(graph: &Graph) -> Vec<String> {
    let reach = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            for target in graph.get(next).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(target) {
                    open.push(target);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|from| (from, reach(from))).collect();
    let mut circles = Vec::new();
    for (from, targets) in graph {
        for (to, place) in targets {
            if reached.get(to).is_some_and(|back| back.contains(from)) {
                circles.push(format!("{from} uses {to} at {place}"));
            }
        }
    }
    circles
}

/// The functions of a file with their number of lines, from `fn` to the closing brace.
pub(crate) fn functions(lines: &[&str]) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate().filter(|(_, line)| is_code(line)) {
        let code = line.trim_start();
        let Some(at) = code.find("fn ").filter(|at| {
            code[..*at].split_whitespace().all(|word| {
                word.starts_with("pub") || word.ends_with(')') || ["async", "const", "in"].contains(&word)
            })
        }) else {
            continue;
        };
        let indent = line.len() - code.len();
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = format!("{}}}", " ".repeat(indent));
        let length =
            lines[n..].iter().position(|line| *line == end || (line.ends_with(';') && n + 1 == lines.len()));
        let is_declared = code.ends_with(';') || code.ends_with('}');
        if !is_declared && let Some(length) = length {
            found.push((n + 1, name, length + 1));
        }
    }
    found
}
