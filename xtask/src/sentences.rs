//! `sentences`: documents that say, sentence by sentence, what Microsoft's pages promise and which tests hold it.
//!
//! `docs/sentences/NAME.md` has the sentences, each with a name and its page; a test that holds one says so in its doc comment
//! (`Holds: NAME/sentence`); `docs/NAME.md` is both together. It is wrong if a sentence has no test, or a test names a sentence
//! that is not there. Whether the test is good enough, it cannot say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::call;

/// Where the sentences are.
const SOURCES: &str = "docs/sentences";
/// What a test's doc comment says, before the sentences.
const HOLDS: &str = "/// Holds: ";

const HEAD: &str = "<!-- Written by `cargo xtask sentences` from docs/sentences and from what the tests say that they hold. -->\n\n";
const TABLE: &str = "| | sentence | page | held by |\n| --- | --- | --- | --- |\n";

/// A line of a document's source, with what it continues in.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// As it stands.
    Prose(String),
    Sentence(Sentence),
}

#[derive(Debug, PartialEq, Eq)]
struct Sentence {
    /// How tests call it, without the document's name.
    name: String,
    text: String,
    /// The page's title.
    page: String,
}

/// A document's source.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    /// The document's name, without its folder and extension.
    name: String,
    lines: Vec<Line>,
    /// Where pages are, by title.
    pages: BTreeMap<String, String>,
}

/// A test that says that it holds a sentence.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    /// `NAME/sentence`.
    sentence: String,
    test: String,
    path: String,
}

/// Writes the documents, or says what differs from what it would write.
///
/// # Errors
/// A sentence without a test, a test without a sentence, a source that is not understood; with `check`, a document that is not
/// what would be written.
pub(crate) fn write(root: &Path, check: bool) -> Result<()> {
    let holders = holders(root)?;
    let sources = sources(root)?;
    ensure!(!sources.is_empty(), "there is nothing in {SOURCES}");
    let wrong = complaints(&sources, &holders);
    ensure!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    for source in &sources {
        let path = format!("docs/{}.md", source.name);
        let text = document(source, &holders);
        if !check {
            fs::write(root.join(&path), text)?;
            eprintln!("xtask: {path}");
        } else if fs::read_to_string(root.join(&path)).ok() != Some(text) {
            bail!("{path} is not what its sentences and tests say: run `cargo xtask sentences`");
        }
    }
    Ok(())
}

/// All sources, by name.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut paths: Vec<_> =
        fs::read_dir(root.join(SOURCES))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("a name")?;
        parse(name, &fs::read_to_string(path)?).with_context(|| path.display().to_string())
    };
    paths.iter().map(read).collect()
}

/// All that tests say they hold, in the order of their files.
fn holders(root: &Path) -> Result<Vec<Holder>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let list = call::output(git.arg("*.rs"))?;
    let mut all = Vec::new();
    for path in list.lines() {
        // A file that was just removed is still in git's list.
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        all.extend(held(path, &text)?);
    }
    Ok(all)
}

/// What the tests of one file say they hold.
fn held(path: &str, text: &str) -> Result<Vec<Holder>> {
    let mut all = Vec::new();
    let mut sentences: Vec<&str> = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if let Some(named) = line.strip_prefix(HOLDS) {
            sentences.extend(named.trim_end_matches('.').split(", "));
        } else if line == "#[test]" {
            is_test = true;
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            let test = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('));
            match test.filter(|_| is_test) {
                Some((test, _)) => all.extend(sentences.drain(..).map(|sentence| Holder {
                    sentence: sentence.to_owned(),
                    test: test.to_owned(),
                    path: path.to_owned(),
                })),
                None => ensure!(sentences.is_empty(), "{path}: {sentences:?} are held by what is no test"),
            }
            is_test = false;
        }
    }
    Ok(all)
}

/// A source: prose, sentences of the form `name: text [page]` that go on in indented lines, and `[page]: address`.
fn parse(name: &str, text: &str) -> Result<Source> {
    let mut lines = Vec::new();
    let mut pages = BTreeMap::new();
    let mut whole: Vec<String> = Vec::new();
    for line in text.lines() {
        match whole.last_mut().filter(|_| line.starts_with("    ")) {
            Some(last) => {
                last.push(' ');
                last.push_str(line.trim_start());
            }
            None => whole.push(line.to_owned()),
        }
    }
    for line in whole {
        if let Some((page, address)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            let known = "https://learn.microsoft.com/en-us/windows";
            ensure!(address.starts_with(known), "{address} is no page of Microsoft's");
            pages.insert(page.to_owned(), address.to_owned());
        } else if let Some((name, rest)) = line.split_once(": ").filter(|(name, _)| is_name(name)) {
            lines.push(Line::Sentence(sentence(name, rest)?));
        } else {
            lines.push(Line::Prose(line));
        }
    }
    Ok(Source { name: name.to_owned(), lines, pages })
}

fn sentence(name: &str, rest: &str) -> Result<Sentence> {
    let page = rest.strip_suffix(']').and_then(|rest| rest.rsplit_once(" ["));
    let (text, page) = page.with_context(|| format!("{name} names no page"))?;
    ensure!(!text.contains('|'), "{name} has a bar, which ends a column");
    Ok(Sentence { name: name.to_owned(), text: text.to_owned(), page: page.to_owned() })
}

/// Whether sentences have such names: small letters, digits and hyphens.
fn is_name(word: &str) -> bool {
    let fits = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
    !word.is_empty() && word.bytes().all(fits)
}

/// What is wrong with the sentences and those who hold them.
fn complaints(sources: &[Source], holders: &[Holder]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    for source in sources {
        for sentence in source.sentences() {
            let name = format!("{}/{}", source.name, sentence.name);
            if !source.pages.contains_key(&sentence.page) {
                complaints.push(format!("{name}: it is not said where \"{}\" is", sentence.page));
            }
            if known.insert(name.clone(), false).is_some() {
                complaints.push(format!("{name} is there twice"));
            }
        }
    }
    for Holder { sentence, test, path } in holders {
        match known.get_mut(sentence) {
            Some(held) => *held = true,
            None => complaints.push(format!("{path}: `{test}` holds {sentence}, which is no sentence")),
        }
    }
    let bare = known.into_iter().filter(|(_, held)| !held);
    complaints.extend(bare.map(|(name, _)| format!("no test holds {name}")));
    complaints
}

impl Source {
    fn sentences(&self) -> impl Iterator<Item = &Sentence> {
        self.lines.iter().filter_map(|line| match line {
            Line::Sentence(sentence) => Some(sentence),
            Line::Prose(_) => None,
        })
    }
}

/// The document: what stands together is a table.
fn document(source: &Source, holders: &[Holder]) -> String {
    let mut text = HEAD.to_owned();
    let mut in_table = false;
    for line in &source.lines {
        match line {
            Line::Prose(prose) => {
                in_table = false;
                let _ = writeln!(text, "{prose}");
            }
            Line::Sentence(sentence) => {
                if !in_table {
                    text.push_str(TABLE);
                }
                in_table = true;
                text.push_str(&row(source, sentence, holders));
            }
        }
    }
    let end = text.trim_end().len();
    text.truncate(end);
    text.push_str("\n\n");
    for (page, address) in &source.pages {
        let _ = writeln!(text, "[{page}]: {address}");
    }
    text
}

fn row(source: &Source, sentence: &Sentence, holders: &[Holder]) -> String {
    let Sentence { name, text, page } = sentence;
    let full = format!("{}/{name}", source.name);
    let tests = holders.iter().filter(|holder| holder.sentence == full);
    let tests: Vec<String> =
        tests.map(|Holder { test, path, .. }| format!("[`{test}`](../{path})")).collect();
    format!("| `{name}` | {text} | [{page}] | {} |\n", tests.join("<br>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://learn.microsoft.com/en-us/windows-hardware/a";

    fn source(sentences: &str) -> Source {
        parse("it", &format!("# It\n\nProse: kept.\n\n{sentences}\n[A]: {PAGE}\n")).unwrap()
    }

    fn holder(sentence: &str) -> Holder {
        Holder { sentence: sentence.into(), test: "a_test".into(), path: "crates/a.rs".into() }
    }

    #[test]
    fn a_sentence_and_its_test_are_a_row() {
        let source = source("one: What is\n    promised. [A]\n");
        let text = document(&source, &[holder("it/one"), holder("other/one")]);
        let row = "| `one` | What is promised. | [A] | [`a_test`](../crates/a.rs) |\n";
        assert!(text.starts_with("<!-- Written by"), "{text}");
        assert!(text.ends_with(&format!("# It\n\nProse: kept.\n\n{TABLE}{row}\n[A]: {PAGE}\n")), "{text}");
        assert!(complaints(&[source], &[holder("it/one")]).is_empty());
    }

    #[test]
    fn a_sentence_without_a_test_and_a_test_without_a_sentence_are_told() {
        let sources = [source("one: A. [A]\ntwo: B. [B]\ntwo: C. [A]\n")];
        let found = complaints(&sources, &[holder("it/two"), holder("it/three")]);
        let expected = [
            "it/two: it is not said where \"B\" is",
            "it/two is there twice",
            "crates/a.rs: `a_test` holds it/three, which is no sentence",
            "no test holds it/one",
        ];
        assert_eq!(found, expected);
        assert!(parse("it", "one: it names no page.\n").is_err());
        assert!(parse("it", "[A]: https://example.com\n").is_err());
    }

    #[test]
    fn tests_say_what_they_hold_and_nothing_else_does() {
        let text =
            "/// A story.\n/// Holds: it/one, it/two\n/// Holds: it/three.\n#[test]\nfn a_story() {\n}\n";
        let all = held("a.rs", text).unwrap();
        let sentences: Vec<&str> = all.iter().map(|holder| holder.sentence.as_str()).collect();
        assert_eq!(sentences, ["it/one", "it/two", "it/three"]);
        assert!(all.iter().all(|holder| holder.test == "a_story" && holder.path == "a.rs"));
        assert!(held("a.rs", "/// Holds: it/one\nfn no_test() {}\n").is_err());
        assert!(held("a.rs", "#[test]\nfn one() {}\nfn two() {}\n").unwrap().is_empty());
    }
}
