//! Lines, threads and blocks: tokens to statements.

use super::ast::{Command, Name, Position, Statement};
use super::commands::{Arguments, COMMANDS, command, expectations_of, pending};
use super::error::{Outcome, fault, unknown};
use super::expect;
use super::lexer::{Lexer, Token, Word};
use super::names::Names;

#[derive(Default)]
struct Parser {
    names: Names,
    statements: Vec<Statement>,
    /// The thread whose block is open, and where it was opened.
    block: Option<(Name, Position)>,
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
            Token::End(at) => parser.line(&words, at)?,
            Token::Open(at) => parser.open_block(&words, at)?,
            Token::Close(at) => {
                parser.line(&words, at)?;
                if parser.block.take().is_none() {
                    return fault(at, "this `}` closes nothing; a block begins with `thread NAME {`");
                }
            }
        }
        if ends {
            words.clear();
        }
    }
    match parser.block {
        Some((name, at)) => {
            fault(at, format!("the block of thread `{name}` is not closed; put a `}}` after its last line"))
        }
        None => Ok(parser.statements),
    }
}

impl Parser {
    fn open_block(&mut self, words: &[Word], at: Position) -> Outcome<()> {
        if let Some((name, _)) = &self.block {
            return fault(at, format!("a block cannot stand in the block of thread `{name}`"));
        }
        match words {
            [keyword, name] if keyword.plain() == Some("thread") => {
                self.block = Some((self.names.thread(name)?, at));
                Ok(())
            }
            _ => {
                fault(at, "a `{` belongs after `thread NAME` only; put a word that begins with it in quotes")
            }
        }
    }

    fn line(&mut self, words: &[Word], end: Position) -> Outcome<()> {
        let Some(first) = words.first() else { return Ok(()) };
        let (thread, words) = match first.bare.strip_suffix(':').filter(|_| first.quoted.is_none()) {
            Some(name) => {
                let name = Word { bare: name, ..*first };
                (Some(self.prefix(&name)?), &words[1..])
            }
            None => (self.block.as_ref().map(|(name, _)| name.clone()), words),
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

    fn prefix(&mut self, name: &Word) -> Outcome<Name> {
        match &self.block {
            Some((block, _)) => {
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
