//! Words, numbers and signs of one line of a sheet, each with the column where it begins.
//!
//! A number is decimal, or hexadecimal after `0x`, or binary after `0b`; letters right behind a decimal number are a word of their own
//! (`50us`). It knows no word's meaning.

use super::error::Wrong;

/// What a line is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token<'t> {
    Word(&'t str),
    Number(u64),
    Sign(&'static str),
}

/// A token and its column, from 1.
pub(super) type Placed<'t> = (usize, Token<'t>);

/// The longer ones first.
const SIGNS: [&str; 27] = [
    "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "=", "&", "|", "^", "~", "!", "(", ")", "[", "]", "+",
    "-", "*", "/", "%", "<", ">", ".", ":",
];

/// The tokens of a text that begins in this column.
pub(super) fn tokens(text: &str, column: usize) -> Result<Vec<Placed<'_>>, Wrong> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = column + text[..text.len() - rest.len()].chars().count();
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let (token, length) = if first.is_ascii_digit() {
            number(rest)
                .ok_or_else(|| Wrong::at(at, "this is no number of 64 bits; write 12, 0x1f or 0b101"))?
        } else if is_letter(first) {
            let length = rest.find(|c: char| !is_letter(c) && !c.is_ascii_digit()).unwrap_or(rest.len());
            (Token::Word(&rest[..length]), length)
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign = sign.ok_or_else(|| Wrong::at(at, format!("`{first}` means nothing here")))?;
            (Token::Sign(sign), sign.len())
        };
        tokens.push((at, token));
        rest = &rest[length..];
    }
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

/// A number at the beginning of a text, and its length.
fn number(text: &str) -> Option<(Token<'_>, usize)> {
    let (digits, radix, prefix) = match text.get(..2) {
        Some("0x" | "0X") => (&text[2..], 16, 2),
        Some("0b" | "0B") => (&text[2..], 2, 2),
        _ => (text, 10, 0),
    };
    // Behind a prefix a letter that is no digit belongs to the number, and makes it none.
    let ends = |c: char| if prefix == 0 { !c.is_ascii_digit() } else { !is_letter(c) && !c.is_ascii_digit() };
    let length = digits.find(ends).unwrap_or(digits.len());
    Some((Token::Number(u64::from_str_radix(&digits[..length], radix).ok()?), prefix + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_into_words_numbers_and_signs_with_their_columns() {
        let cut = tokens("start TICK  every 50us if A.B<<0x1f!=0b101", 5).unwrap();
        let columns: Vec<usize> = cut.iter().map(|(column, _)| *column).collect();
        assert_eq!(columns, [5, 11, 17, 23, 25, 28, 31, 32, 33, 34, 36, 40, 42]);
        let cut: Vec<Token<'_>> = cut.into_iter().map(|(_, token)| token).collect();
        assert_eq!(cut[3..5], [Token::Number(50), Token::Word("us")]);
        assert_eq!(cut[9..], [Token::Sign("<<"), Token::Number(31), Token::Sign("!="), Token::Number(5)][..]);
    }

    #[test]
    fn what_is_no_token_is_told_with_its_column() {
        for (text, column) in [("a $", 3), ("0xfg", 1), ("0b12", 1), ("99999999999999999999", 1), ("é", 1)] {
            assert_eq!(tokens(text, 1).unwrap_err().column, column, "{text}");
        }
    }
}
