//! Writes the linker script that lays the functions of an agent side by side: `make order`.
//!
//!     cargo run --example order -- SYMBOLS RUNS >linker/agent.ld
//!
//! `SYMBOLS` is what `nm --print-size` tells of a binary, and the folder `RUNS` holds what callgrind wrote when
//! agents of that binary ran. A function is found again by words that its name contains, so that the script fits
//! other compilers and architectures, too; each word costs a line, so one may also take functions that did not run.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::{env, fs};

/// How many bytes of functions that do not run a pattern less is worth, and a letter less.
const PATTERN: u64 = 200;
const LETTER: u64 = 12;

/// What runs on other machines than the one that looked: cryptography, searching and atomics by their own
/// instructions, and what the compiler for ARM moves out of functions.
const ELSEWHERE: [&str; 6] =
    ["*4sha2*", "*6memchr*", "*10std_detect*", "__aarch64_*", "__aeabi_*", "OUTLINED_FUNCTION_*"];

const HEAD: &str = "\
/* The functions that an agent runs, side by side. Made by `make order`, see examples/order.rs.
 *
 * The kernel maps 64 KiB of a file around each place that is used. Where what runs lies among what does not, that
 * is nearly all of the text; here it is half of it. A function that is missing costs its 64 KiB and nothing else.
 */
";

/// A function of the binary.
struct Function {
    name: String,
    bytes: u64,
    runs: bool,
}

fn main() -> io::Result<()> {
    let words: Vec<_> = env::args().skip(1).collect();
    let [symbols, runs] = words.as_slice() else {
        return Err(io::Error::other("say which: cargo run --example order -- SYMBOLS RUNS"));
    };
    let ran = ran(Path::new(runs))?;
    let functions = functions(&fs::read_to_string(symbols)?, &ran);
    let patterns = patterns(&functions);
    let bytes = |of: &dyn Fn(&&Function) -> bool| functions.iter().filter(of).map(|f| f.bytes).sum::<u64>();
    let taken = bytes(&|f| patterns.iter().any(|pattern| fits(pattern, &f.name)));
    let run = bytes(&|f| f.runs);
    eprintln!(
        "{} lines take {taken} bytes, of which {run} were run; all are {}",
        patterns.len(),
        bytes(&|_| true)
    );
    let mut script = format!("{HEAD}SECTIONS {{\n  .text.agent : {{\n    *(");
    let fixed = ELSEWHERE.iter().map(|word| (*word).to_owned());
    for pattern in fixed.chain(patterns) {
        // What is cold to the compiler has a prefix more. A text takes all that is written to it.
        let _ = write!(script, "\n      .text.{pattern}");
        if !pattern.starts_with('*') {
            let _ = write!(script, " .text.unlikely.{pattern}");
        }
    }
    println!("{script})\n  }}\n}} INSERT BEFORE .text;");
    Ok(())
}

/// The names of the functions that ran in any agent.
fn ran(runs: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in fs::read_dir(runs)? {
        let text = fs::read_to_string(file?.path())?;
        if !text.lines().any(|line| line.starts_with("cmd:") && line.contains(" agent ")) {
            continue;
        }
        // `fn=(7) name` at its first mention, `fn=(7)` later; `cfn=` for one that is called.
        let told = text.lines().filter(|line| line.starts_with("fn=") || line.starts_with("cfn="));
        names.extend(told.filter_map(|line| Some(line.split_once(") ")?.1.to_owned())));
    }
    if names.is_empty() {
        return Err(io::Error::other(format!("no agent ran: {} holds no such file", runs.display())));
    }
    Ok(names)
}

/// `address size kind name`, a line each.
fn functions(symbols: &str, ran: &BTreeSet<String>) -> Vec<Function> {
    let function = |line: &str| {
        let mut words = line.split_whitespace();
        let (_, bytes, kind, name) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let bytes = u64::from_str_radix(bytes, 16).ok()?;
        let is_code = matches!(kind, "t" | "T" | "w" | "W");
        is_code.then(|| Function { name: name.to_owned(), bytes, runs: ran.contains(name) })
    };
    symbols.lines().filter_map(function).collect()
}

/// Patterns that together fit every function that runs, and few that do not: always the one that takes most of the
/// former for what it costs.
fn patterns(functions: &[Function]) -> Vec<String> {
    let mut left: BTreeSet<usize> = (0..functions.len()).filter(|i| functions[*i].runs).collect();
    let mut taken = BTreeSet::new();
    let mut fitting: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let candidates: BTreeSet<_> = left.iter().flat_map(|i| candidates(&functions[*i].name)).collect();
    let mut heap: BinaryHeap<(u64, String)> = candidates.into_iter().map(|c| (u64::MAX, c)).collect();
    let mut chosen = Vec::new();
    while let (false, Some((_, pattern))) = (left.is_empty(), heap.pop()) {
        let all = fitting.entry(pattern.clone()).or_insert_with(|| {
            (0..functions.len()).filter(|i| fits(&pattern, &functions[*i].name)).collect()
        });
        let new = all.iter().filter(|i| left.contains(i)).count() as u64;
        let idle = all.iter().filter(|i| !functions[**i].runs && !taken.contains(*i));
        let cost = PATTERN + LETTER * pattern.len() as u64 + idle.map(|i| functions[*i].bytes).sum::<u64>();
        let worth = new * 1_000_000 / cost;
        if new == 0 {
            continue;
        }
        if heap.peek().is_some_and(|(next, _)| worth < *next) {
            heap.push((worth, pattern));
            continue;
        }
        taken.extend(all.iter().copied());
        left.retain(|i| !taken.contains(i));
        chosen.push(pattern);
    }
    chosen.sort();
    chosen
}

/// What a function may be found by: up to four words that follow one another in its name, each with its length
/// before it; or the whole of it but for what a compiler makes up.
fn candidates(name: &str) -> BTreeSet<String> {
    // The compiler numbers copies of a function after a dot.
    let (name, is_copy) = name.split_once('.').map_or((name, false), |(name, _)| (name, true));
    let whole = made_up(name);
    let any = if is_copy || whole.contains('*') { "*" } else { "" };
    let begins = [50, 100, 200].into_iter().filter_map(|end| Some(format!("{}*", whole.get(..end)?)));
    let mut all: BTreeSet<_> = begins.chain([format!("{whole}{any}")]).collect();
    for part in whole.split('*') {
        let mut run: Vec<&str> = Vec::new();
        let mut rest = part;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let length: usize = rest[..digits].parse().unwrap_or(0);
            let underscore = usize::from(rest[digits..].starts_with('_'));
            let end = digits + underscore + length;
            if length < 3 || end > rest.len() {
                run.clear();
                rest = &rest[digits.max(1)..];
                continue;
            }
            run.push(&rest[..end]);
            rest = &rest[end..];
            for begin in run.len().saturating_sub(4)..run.len() {
                all.insert(format!("*{}*", run[begin..].concat()));
            }
        }
    }
    all
}

/// A name with `*` where it holds the hash of a crate (`Cs1a2B3c_`), or how far back something stands (`B1_`).
fn made_up(name: &str) -> String {
    let mut made = String::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let number = |begin: usize| {
            let end = rest.get(begin..)?.find('_')? + begin;
            rest[begin..end].bytes().all(|c| c.is_ascii_alphanumeric()).then_some((end - begin, end + 1))
        };
        let skipped = match first {
            'C' if rest.starts_with("Cs") => number(2).filter(|(digits, _)| (6..=14).contains(digits)),
            'B' => number(1).filter(|(digits, _)| *digits <= 3),
            _ => None,
        };
        match skipped {
            Some((_, end)) => {
                if !made.ends_with('*') {
                    made.push('*');
                }
                rest = &rest[end..];
            }
            None => {
                made.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    made
}

/// Whether `name` is as the pattern says, `*` for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
        last = Some(part);
    }
    last.map_or(rest.is_empty(), |part| part.is_empty() || rest.is_empty())
}
