//! Lines, threads and blocks: tokens to statements.

use super::ast::{Command, Name, Position, Statement};
use super::commands::{Arguments, COMMANDS, command, expectations_of, pending};
use super::error::{Outcome, fault, unknown};
use super::expect;
use super::lexer::{Lexer, Token, Word};
use super::names::Names;

/// The most that lines are repeated.
const MOST_REPEATED: u32 = 100_000;

#[derive(Default)]
struct Parser<'t> {
    names: Names,
    statements: Vec<Statement>,
    block: Option<Block<'t>>,
}

/// A block that is open, and where it was opened.
enum Block<'t> {
    /// Of this thread.
    Thread(Name, Position),
    /// Lines, each with its end, that are to come so often.
    Repeated(u32, Vec<(Vec<Word<'t>>, Position)>, Position),
}

/// Reads a whole script.
pub(super) fn parse(text: &str) -> Outcome<Vec<Statement>> {
    if u32::try_from(text.len()).is_err() {
        return fault(
            Position { line: 1, column: 1 },
            "the script has 4 GiB or more; make several of it, one for each run",
        );
    }
    let mut parser = Parser::default();
    let mut words = Vec::new();
    for token in Lexer::new(text) {
        let token = token?;
        let ends = !matches!(token, Token::Word(_));
        match token {
            Token::Word(word) => words.push(word),
            Token::End(at) => parser.line_of_block(&words, at)?,
            Token::Open(at) => parser.open_block(&words, at)?,
            Token::Close(at) => {
                parser.line_of_block(&words, at)?;
                parser.close_block(at)?;
            }
        }
        if ends {
            words.clear();
        }
    }
    match parser.block {
        Some(block) => {
            fault(block.at(), format!("{} is not closed; put a `}}` after its last line", block.words()))
        }
        None => Ok(parser.statements),
    }
}

impl Block<'_> {
    fn words(&self) -> String {
        match self {
            Self::Thread(name, _) => format!("the block of thread `{name}`"),
            Self::Repeated(..) => "the block of `repeat`".to_owned(),
        }
    }

    const fn at(&self) -> Position {
        match self {
            Self::Thread(_, at) | Self::Repeated(_, _, at) => *at,
        }
    }
}

impl<'t> Parser<'t> {
    fn open_block(&mut self, words: &[Word<'t>], at: Position) -> Outcome<()> {
        if let Some(block) = &self.block {
            return fault(at, format!("a block cannot stand in {}", block.words()));
        }
        self.block = Some(match words {
            [keyword, name] if keyword.plain() == Some("thread") => {
                Block::Thread(self.names.thread(name)?, at)
            }
            [keyword, count] if keyword.plain() == Some("repeat") => {
                let times = count.bare.parse().ok().filter(|times| (1..=MOST_REPEATED).contains(times));
                let Some(times) = times.filter(|_| count.quoted.is_none()) else {
                    return fault(
                        count.at,
                        format!("lines are repeated 1 to {MOST_REPEATED} times, not `{}`", count.text()),
                    );
                };
                Block::Repeated(times, Vec::new(), at)
            }
            _ => {
                return fault(
                    at,
                    "a `{` belongs after `thread NAME` or `repeat N` only; put a word that begins with it in quotes",
                );
            }
        });
        Ok(())
    }

    /// A line, which may be one of those that are to be repeated.
    fn line_of_block(&mut self, words: &[Word<'t>], end: Position) -> Outcome<()> {
        match &mut self.block {
            Some(Block::Repeated(_, lines, _)) => {
                lines.push((words.to_vec(), end));
                Ok(())
            }
            _ => self.line(words, end),
        }
    }

    fn close_block(&mut self, at: Position) -> Outcome<()> {
        match self.block.take() {
            Some(Block::Thread(..)) => Ok(()),
            Some(Block::Repeated(times, lines, _)) => {
                (0..times).flat_map(|_| &lines).try_for_each(|(words, end)| self.line(words, *end))
            }
            None => fault(at, "this `}` closes nothing; a block begins with `thread NAME {` or `repeat N {`"),
        }
    }

    fn line(&mut self, words: &[Word], end: Position) -> Outcome<()> {
        let Some(first) = words.first() else { return Ok(()) };
        let (thread, words) = match first.bare.strip_suffix(':').filter(|_| first.quoted.is_none()) {
            Some(name) => {
                let name = Word { bare: name, ..*first };
                (Some(self.prefix(&name)?), &words[1..])
            }
            None => (self.thread().cloned(), words),
        };
        let Some((first, rest)) = words.split_first() else {
            return fault(end, "the line ends too early; here comes what the thread does");
        };
        let mut args = Arguments::new(rest, end);
        self.names.enter(thread.as_ref());
        let command = match first.plain() {
            Some("thread") => {
                return fault(first.at, "write `thread NAME { … }`, or `NAME: command` for one command");
            }
            Some("repeat") => return fault(first.at, "write `repeat N { … }`"),
            Some("expect") => match self.expect(first, &mut args, thread.as_deref())? {
                Some(command) => command,
                None => return Ok(()),
            },
            _ => {
                self.check_keyword(first)?;
                command(first, &mut args, &mut self.names)?
            }
        };
        let last = rest.last().unwrap_or(first);
        let text = first.bytes.0..last.bytes.1;
        self.statements.push(Statement { at: first.at, text, thread, command });
        Ok(())
    }

    /// Whose block is open.
    fn thread(&self) -> Option<&Name> {
        match &self.block {
            Some(Block::Thread(name, _)) => Some(name),
            _ => None,
        }
    }

    fn prefix(&mut self, name: &Word) -> Outcome<Name> {
        match self.thread() {
            Some(block) => {
                fault(name.at, format!("this is the block of thread `{block}`; leave `{}:` out", name.bare))
            }
            None => self.names.thread(name),
        }
    }

    /// `t1:read` is a thread's prefix that lacks its space.
    fn check_keyword(&self, first: &Word) -> Outcome<()> {
        match first.bare.split_once(':') {
            Some((name, rest)) if COMMANDS.contains(&rest) => {
                fault(first.at, format!("put a space after the thread's name: `{name}: {rest}`"))
            }
            _ => Ok(()),
        }
    }

    /// `expect print` and `expect pending` are commands; any other adds to the command before it.
    fn expect(
        &mut self,
        first: &Word,
        args: &mut Arguments,
        thread: Option<&str>,
    ) -> Outcome<Option<Command>> {
        if args.take("print") {
            let text = args.word("the text: \"…\"")?;
            args.finish()?;
            return match text.plain() {
                Some(plain) if !plain.is_empty() => Ok(Some(Command::ExpectPrint(plain.to_owned()))),
                _ => fault(text.at, "write the text that is printed in quotes: expect print \"started\""),
            };
        }
        if args.take("pending") {
            return pending(args, &self.names).map(Some);
        }
        if args.is_at_end() {
            return fault(
                first.at,
                unknown("expectation", "", ["status", "bytes", "data", "print", "pending"]),
            );
        }
        let last = self.statements.iter_mut().rev().find(|statement| statement.thread.as_deref() == thread);
        let Some((can, expect)) = last.and_then(|statement| expectations_of(&mut statement.command)) else {
            return fault(
                first.at,
                "the command before this has no result to expect something of; put `expect` right after one that has",
            );
        };
        expect::clauses(args, can, expect)?;
        let fails = !expect.status.admits(0);
        let last = self.statements.iter().rev().find(|statement| statement.thread.as_deref() == thread);
        match last.map(|statement| &statement.command).filter(|_| fails) {
            Some(Command::Open(open)) => self.names.forget(&open.handle),
            Some(Command::Process { name, .. }) => self.names.forget(name),
            _ => {}
        }
        Ok(None)
    }
}
