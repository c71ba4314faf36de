//! A report for a terminal: wrapped to its width, with colours. What it says is what the plain text says.
//!
//! It looks at a line's form (a label of two blanks, text from column 15 on), and not at what made it.

use std::fmt::Write as _;

/// Where the text behind a label begins.
const TEXT: usize = 15;
/// Narrower terminals are not wrapped for: the labels alone take half of that.
const NARROWEST: usize = 40;

/// How a text is shown.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Dress {
    /// Columns; none for lines as long as they are.
    pub width: Option<usize>,
    /// With colours, by the escape sequences of ECMA-48.
    pub colour: bool,
}

impl Dress {
    /// The text as it is shown.
    #[must_use]
    pub fn on(self, text: &str) -> String {
        let mut shown = String::new();
        for line in text.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            for (index, part) in self.wrapped(line).iter().enumerate() {
                if index > 0 {
                    shown.push('\n');
                }
                shown.push_str(&if self.colour { coloured(part) } else { part.clone() });
            }
            shown.push_str(end);
        }
        shown
    }

    fn wrapped(self, line: &str) -> Vec<String> {
        let Some(width) = self.width.filter(|width| *width >= NARROWEST) else {
            return vec![line.to_owned()];
        };
        let first = line.chars().take_while(|letter| *letter == ' ').count();
        let indent = if label(line).is_some() { TEXT } else { first + 2 };
        let mut parts = vec![String::new()];
        let mut column = 0;
        let mut begun = false;
        for word in line.split_inclusive(' ') {
            let (size, blanks) = (word.trim_end().chars().count(), word.chars().count());
            if begun && column > indent && column + size > width {
                parts.push(" ".repeat(indent));
                column = indent;
            }
            if let Some(part) = parts.last_mut() {
                part.push_str(word);
            }
            column += blanks;
            begun |= size > 0;
        }
        parts.into_iter().map(|part| part.trim_end().to_owned()).collect()
    }
}

/// `rule` of `  rule         double-free`.
fn label(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?;
    let name = rest.get(..TEXT - 2)?;
    (name.ends_with(' ')).then(|| name.trim_end()).filter(|name| !name.is_empty() && !name.contains("  "))
}

fn coloured(line: &str) -> String {
    const RED: &str = "\x1b[1;31m";
    const GREEN: &str = "\x1b[1;32m";
    const YELLOW: &str = "\x1b[1;33m";
    const BOLD: &str = "\x1b[1m";
    const DIM: &str = "\x1b[2m";
    const OFF: &str = "\x1b[0m";
    let whole = match line {
        "verdict: clean" => Some(GREEN),
        "finding" => Some(YELLOW),
        _ if line.starts_with("verdict: the driver broke a rule") => Some(RED),
        _ if line.starts_with("verdict: ") || line.starts_with("expectation failed") => Some(YELLOW),
        _ if line.trim_start().starts_with("which had interrupted") => Some(DIM),
        _ => None,
    };
    if let Some(colour) = whole {
        return format!("{colour}{line}{OFF}");
    }
    let Some(name) = label(line) else { return line.to_owned() };
    let mut text = String::new();
    let rest = line.get(TEXT..).unwrap_or_default();
    let colour = if name == "rule" { BOLD } else { "" };
    let _ = write!(text, "  {DIM}{name}{OFF}{}", " ".repeat(TEXT.saturating_sub(2 + name.chars().count())));
    let _ = if colour.is_empty() { write!(text, "{rest}") } else { write!(text, "{colour}{rest}{OFF}") };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "verdict: the driver broke a rule\n  rule         double-free\n  what         one two three four five six seven eight nine ten\n";

    #[test]
    fn long_lines_go_on_under_their_text() {
        let shown = Dress { width: Some(40), colour: false }.on(PLAIN);
        assert_eq!(
            shown,
            "verdict: the driver broke a rule\n  rule         double-free\n  what         one two three four five\n               six seven eight nine ten\n"
        );
        assert_eq!(Dress::default().on(PLAIN), PLAIN, "as it is, where there is no terminal");
    }

    #[test]
    fn colours_change_no_word() {
        let shown = Dress { width: None, colour: true }.on(PLAIN);
        assert!(shown.starts_with("\x1b[1;31mverdict: the driver broke a rule\x1b[0m\n"), "{shown:?}");
        let mut plain = shown;
        while let Some(at) = plain.find('\x1b') {
            let end = plain[at..].find('m').unwrap() + at;
            plain.replace_range(at..=end, "");
        }
        assert_eq!(plain, PLAIN);
    }
}
