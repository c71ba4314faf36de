//! What a sheet computes: expressions of 64 bits with C's operators and their precedence.
//!
//! Sums and products wrap around, what is shifted out is gone, and a division by 0 is 0. Names are those of [`super::names`].

use super::cursor::Cursor;
use super::error::Wrong;
use super::names::{Name, Names};
use super::token::Token;

/// An expression whose names are known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Expression {
    Number(u64),
    /// What a register reads as.
    Register(usize, Bits),
    /// What an access found in its register before it.
    Old(Bits),
    /// What an access writes.
    Written(Bits),
    /// What a script pokes.
    Value,
    /// Whether the last transfer over the bus was answered.
    Answered,
    Fifo(usize, Quality),
    Running(usize),
    /// 32 bits of a memory, by their offset.
    Memory(usize, Box<Self>),
    /// 32 bits at a bus address.
    Bus(Box<Self>),
    Unary(Unary, Box<Self>),
    Binary(Binary, Box<(Self, Self)>),
}

/// Bits of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bits {
    pub(super) low: u32,
    /// Ones, as many as there are bits, in the lowest places.
    pub(super) ones: u64,
}

impl Bits {
    /// Bits `low` to `high`, both included.
    pub(super) const fn new(low: u32, high: u32) -> Self {
        Self { low, ones: u64::MAX >> (63 - (high - low)) }
    }

    /// Ones where the bits are.
    pub(super) const fn mask(self) -> u64 {
        self.ones << self.low
    }

    /// The bits of a register's value, right-aligned.
    pub(super) const fn of(self, value: u64) -> u64 {
        value >> self.low & self.ones
    }

    /// The register's value with these bits replaced.
    pub(super) const fn put(self, value: u64, bits: u64) -> u64 {
        value & !self.mask() | (bits & self.ones) << self.low
    }
}

/// What can be asked of a FIFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Quality {
    Count,
    Empty,
    Full,
    /// Words that came when it was full, since it was cleared.
    Lost,
}

/// A sign in front of its operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unary {
    Not,
    Complement,
    Negative,
}

/// A sign between its operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binary {
    Or,
    And,
    BitOr,
    BitXor,
    BitAnd,
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    ShiftLeft,
    ShiftRight,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// C's precedence: a later row binds tighter than an earlier one.
const OPERATORS: [(&str, Binary, u8); 18] = [
    ("||", Binary::Or, 1),
    ("&&", Binary::And, 2),
    ("|", Binary::BitOr, 3),
    ("^", Binary::BitXor, 4),
    ("&", Binary::BitAnd, 5),
    ("==", Binary::Equal, 6),
    ("!=", Binary::NotEqual, 6),
    ("<", Binary::Less, 7),
    (">", Binary::Greater, 7),
    ("<=", Binary::LessOrEqual, 7),
    (">=", Binary::GreaterOrEqual, 7),
    ("<<", Binary::ShiftLeft, 8),
    (">>", Binary::ShiftRight, 8),
    ("+", Binary::Add, 9),
    ("-", Binary::Subtract, 9),
    ("*", Binary::Multiply, 10),
    ("/", Binary::Divide, 10),
    ("%", Binary::Remainder, 10),
];

/// How deep an expression may be nested.
const DEEPEST: u32 = 64;

/// Where an expression stands, and so what it may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// What a register reads as, a line, a message: the card's state, and nothing else.
    State,
    /// An action on a write or a read of this register.
    Access(usize),
    /// An action on a script's poke.
    Poke,
    /// Another action.
    Event,
}

impl Unary {
    const fn apply(self, value: u64) -> u64 {
        match self {
            Self::Not => (value == 0) as u64,
            Self::Complement => !value,
            Self::Negative => value.wrapping_neg(),
        }
    }
}

impl Binary {
    fn apply(self, a: u64, b: u64) -> u64 {
        let shift = u32::try_from(b).unwrap_or(u32::MAX);
        match self {
            Self::Or => (a != 0 || b != 0).into(),
            Self::And => (a != 0 && b != 0).into(),
            Self::BitOr => a | b,
            Self::BitXor => a ^ b,
            Self::BitAnd => a & b,
            Self::Equal => (a == b).into(),
            Self::NotEqual => (a != b).into(),
            Self::Less => (a < b).into(),
            Self::Greater => (a > b).into(),
            Self::LessOrEqual => (a <= b).into(),
            Self::GreaterOrEqual => (a >= b).into(),
            Self::ShiftLeft => a.checked_shl(shift).unwrap_or(0),
            Self::ShiftRight => a.checked_shr(shift).unwrap_or(0),
            Self::Add => a.wrapping_add(b),
            Self::Subtract => a.wrapping_sub(b),
            Self::Multiply => a.wrapping_mul(b),
            Self::Divide => a.checked_div(b).unwrap_or(0),
            Self::Remainder => a.checked_rem(b).unwrap_or(0),
        }
    }
}

/// Gives the values of an expression's names.
pub(super) trait Answers {
    /// What a leaf stands for; `offset` is the value of its operand, if it has one.
    fn answer(&mut self, leaf: &Expression, offset: u64) -> u64;
}

impl Expression {
    /// Its value.
    pub(super) fn value(&self, answers: &mut impl Answers) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Unary(sign, operand) => sign.apply(operand.value(answers)),
            Self::Binary(sign, operands) => {
                let (a, b) = (operands.0.value(answers), operands.1.value(answers));
                sign.apply(a, b)
            }
            Self::Memory(_, offset) | Self::Bus(offset) => {
                let offset = offset.value(answers);
                answers.answer(self, offset)
            }
            leaf => answers.answer(leaf, 0),
        }
    }

    /// Whether it, or what it is made of, satisfies this.
    pub(super) fn any(&self, is: &mut impl FnMut(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::Unary(_, operand) | Self::Memory(_, operand) | Self::Bus(operand) => operand.any(is),
                Self::Binary(_, operands) => operands.0.any(is) || operands.1.any(is),
                _ => false,
            }
    }

    /// The expression that the line goes on with.
    pub(super) fn parse(cursor: &mut Cursor<'_, '_>, names: &Names, scope: Scope) -> Result<Self, Wrong> {
        Parser { names, scope, depth: 0 }.binary(cursor, 0)
    }

    /// A number, a name or something in parentheses, without signs around it.
    pub(super) fn operand(cursor: &mut Cursor<'_, '_>, names: &Names, scope: Scope) -> Result<Self, Wrong> {
        Parser { names, scope, depth: 0 }.operand(cursor)
    }
}

struct Parser<'n> {
    names: &'n Names,
    scope: Scope,
    depth: u32,
}

impl Parser<'_> {
    /// Operands and the signs between them that bind tighter than `above`.
    fn binary(&mut self, cursor: &mut Cursor<'_, '_>, above: u8) -> Result<Expression, Wrong> {
        let mut left = self.unary(cursor)?;
        while let Some((sign, binds)) = operator(cursor).filter(|(_, binds)| *binds > above) {
            cursor.skip();
            let right = self.binary(cursor, binds)?;
            left = Expression::Binary(sign, Box::new((left, right)));
        }
        Ok(left)
    }

    fn unary(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Expression, Wrong> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Wrong::at(cursor.column(), "this is nested too deeply; take it apart"));
        }
        let signs = [("!", Unary::Not), ("~", Unary::Complement), ("-", Unary::Negative)];
        let sign = signs.into_iter().find(|(sign, _)| cursor.sign(sign));
        let value = match sign {
            Some((_, sign)) => Expression::Unary(sign, Box::new(self.unary(cursor)?)),
            None => self.operand(cursor)?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn operand(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Expression, Wrong> {
        if cursor.sign("(") {
            let inner = self.binary(cursor, 0)?;
            cursor.expect_sign(")")?;
            return Ok(inner);
        }
        let at = cursor.column();
        match cursor.take() {
            Some(Token::Number(number)) => Ok(Expression::Number(number)),
            Some(Token::Word(word)) => self.named(cursor, at, word),
            _ => Err(Wrong::at(at, "a value is missing here: a number, a name or something in parentheses")),
        }
    }

    fn named(&mut self, cursor: &mut Cursor<'_, '_>, at: usize, word: &str) -> Result<Expression, Wrong> {
        let in_access = |what: &str| {
            Wrong::at(
                at,
                format!("`{word}` is {what}; it is known in the actions of `on write` and `on read`"),
            )
        };
        match (word, self.scope) {
            ("old", Scope::Access(register)) => return Ok(Expression::Old(self.bits(cursor, register)?)),
            ("written", Scope::Access(register)) => {
                return Ok(Expression::Written(self.bits(cursor, register)?));
            }
            ("old", _) => return Err(in_access("what a register held before an access")),
            ("written", _) => return Err(in_access("what an access writes")),
            ("value", Scope::Poke) => return Ok(Expression::Value),
            ("value", _) => {
                return Err(Wrong::at(
                    at,
                    "`value` is what a script pokes; it is known in the actions of `on poke`",
                ));
            }
            ("bus" | "answered", Scope::State) => {
                return Err(Wrong::at(
                    at,
                    format!(
                        "`{word}` is known in actions only: the card reaches memory when something happens"
                    ),
                ));
            }
            ("answered", _) => return Ok(Expression::Answered),
            ("bus", _) => return Ok(Expression::Bus(Box::new(self.index(cursor)?))),
            _ => {}
        }
        match self.names.find(word, at)? {
            Name::Register(register) => Ok(Expression::Register(register, self.bits(cursor, register)?)),
            Name::Memory(memory) => Ok(Expression::Memory(memory, Box::new(self.index(cursor)?))),
            Name::Timer(timer) => {
                cursor.expect_sign(".")?;
                cursor.expect_word("running")?;
                Ok(Expression::Running(timer))
            }
            Name::Fifo(fifo) => {
                cursor.expect_sign(".")?;
                let at = cursor.column();
                let quality = match cursor.take() {
                    Some(Token::Word("count")) => Quality::Count,
                    Some(Token::Word("empty")) => Quality::Empty,
                    Some(Token::Word("full")) => Quality::Full,
                    Some(Token::Word("lost")) => Quality::Lost,
                    _ => return Err(Wrong::at(at, "a FIFO has .count, .empty, .full and .lost")),
                };
                Ok(Expression::Fifo(fifo, quality))
            }
        }
    }

    /// `[OFFSET]`.
    fn index(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Expression, Wrong> {
        cursor.expect_sign("[")?;
        let offset = self.binary(cursor, 0)?;
        cursor.expect_sign("]")?;
        Ok(offset)
    }

    /// `.FIELD` behind a register, or all of it.
    fn bits(&self, cursor: &mut Cursor<'_, '_>, register: usize) -> Result<Bits, Wrong> {
        if !cursor.sign(".") {
            return Ok(self.names.whole(register));
        }
        let at = cursor.column();
        match cursor.take() {
            Some(Token::Word(field)) => self.names.field(register, field, at),
            _ => Err(Wrong::at(at, "the name of a field is missing behind the point")),
        }
    }
}

/// The sign between operands that comes next, and how tight it binds.
fn operator(cursor: &Cursor<'_, '_>) -> Option<(Binary, u8)> {
    let Some(Token::Sign(sign)) = cursor.peek() else { return None };
    OPERATORS.iter().find(|(known, ..)| known == sign).map(|(_, operator, binds)| (*operator, *binds))
}

#[cfg(test)]
mod tests {
    use super::super::token::tokens;
    use super::*;

    /// Knows no name.
    struct Nothing;

    impl Answers for Nothing {
        fn answer(&mut self, leaf: &Expression, _offset: u64) -> u64 {
            panic!("{leaf:?}")
        }
    }

    fn value(text: &str) -> u64 {
        let tokens = tokens(text, 1).unwrap();
        let mut cursor = Cursor::new(&tokens, text.len() + 1);
        let parsed = Expression::parse(&mut cursor, &Names::default(), Scope::Event).unwrap();
        cursor.end().unwrap();
        parsed.value(&mut Nothing)
    }

    #[test]
    fn signs_bind_as_in_c() {
        assert_eq!(value("1 + 2 * 3 << 1 | 1"), (1 + 2 * 3) << 1 | 1);
        assert_eq!(value("10 - 3 - 2"), 5);
        assert_eq!(value("6 & 3 == 3"), 6 & 1, "as in C, == binds tighter than &");
        assert_eq!(value("!(5 > 3 && 0 || 0)"), 1);
        assert_eq!(value("~0 - 1 >> 60"), (u64::MAX - 1) >> 60);
        assert_eq!(value("7 % 4 + 9 / 2 ^ 1"), 7 ^ 1);
    }

    #[test]
    fn nothing_that_can_be_computed_fails() {
        assert_eq!((value("1 / 0"), value("1 % 0"), value("1 << 64"), value("1 >> 99")), (0, 0, 0, 0));
        assert_eq!((value("0 - 1"), value("-1"), value("-1 * 2")), (u64::MAX, u64::MAX, u64::MAX - 1));
    }

    #[test]
    fn an_expression_may_be_nested_but_not_without_end() {
        let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(value(&nested(40)), 1);
        for text in [nested(100_000), "!".repeat(100_000) + "1"] {
            let tokens = tokens(&text, 1).unwrap();
            let wrong =
                Expression::parse(&mut Cursor::new(&tokens, 1), &Names::default(), Scope::State).unwrap_err();
            assert!(wrong.message.contains("nested"), "{}", wrong.message);
        }
    }
}
