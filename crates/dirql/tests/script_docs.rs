//! Holds `docs/script.md` to the parser: each example is understood, each mistake is answered as the page says, and
//! each command and kind of expectation has an example.

use std::collections::BTreeSet;

use dirql::script::parse;

struct Block {
    line: usize,
    language: String,
    text: String,
}

fn page() -> Vec<Block> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/script.md");
    let text = std::fs::read_to_string(path).expect("the page is in the repository");
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(language) => {
                blocks.push(Block { line: index + 1, language: language.into(), text: String::new() });
                inside = true;
            }
            None if inside => {
                if let Some(block) = blocks.last_mut() {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
            None => {}
        }
    }
    blocks
}

fn understood(block: &Block) {
    let opens = block.text.contains("as card");
    let before = if opens { "" } else { "open \\\\.\\Pci9052-0 as card; " };
    if let Err(error) = parse("docs/script.md", &format!("{before}{}", block.text)) {
        panic!("the example at line {}: {error}", block.line);
    }
}

#[test]
fn every_example_of_the_page_is_understood() {
    let examples: Vec<Block> = page().into_iter().filter(|block| block.language == "dirql").collect();
    assert!(examples.len() >= 15, "{} examples: has the page's form changed?", examples.len());
    examples.iter().for_each(understood);
}

#[test]
fn the_command_line_of_the_page_is_understood() {
    let blocks = page();
    let shell = blocks.iter().find(|block| block.language == "sh").unwrap();
    let script = shell.text.split('\'').nth(1).unwrap();
    assert_eq!(parse("--do", script).unwrap().statements.len(), 3);
}

#[test]
fn a_mistake_is_answered_as_the_page_says() {
    let blocks = page();
    let mut compared = 0;
    for pair in blocks.windows(2).filter(|pair| pair[0].language == "dirql-wrong") {
        let error = parse("demo.txt", &pair[0].text).unwrap_err();
        assert_eq!(error.to_string(), pair[1].text.trim_end(), "line {}", pair[0].line);
        compared += 1;
    }
    assert!(compared > 0);
}

#[test]
fn every_command_has_an_example() {
    let mut shown = BTreeSet::new();
    for block in page().iter().filter(|block| block.language == "dirql") {
        for word in block.text.split([' ', '\n', ';', '{', '}']) {
            shown.insert(word.split(':').next().unwrap_or_default().to_owned());
        }
    }
    let listed = parse("x", "frobnicate").unwrap_err().message;
    let listed = listed.split("there is: ").nth(1).unwrap().to_owned();
    for command in
        listed.split(", ").chain(["print", "pending", "prefix", "bytes", "status", "success", "utf16"])
    {
        assert!(shown.contains(command), "docs/script.md has no example of `{command}`");
    }
}
