//! Scripts in which what comes again and again stands once.

use super::shrink::commands;

/// So many commands at most are one turn.
const LONGEST_TURN: usize = 8;
/// So often at least they come.
const LEAST_TURNS: usize = 3;

/// The same script with `repeat N { … }` where commands come at least three times in a row.
#[must_use]
pub fn folded(script: &str) -> String {
    let commands = commands(script);
    // What stands in a block already stays as it is.
    if commands.iter().any(|command| command.ends_with('}') && command.contains(" {")) {
        return script.to_owned();
    }
    let (mut parts, mut rest) = (Vec::new(), commands.as_slice());
    while let [first, behind @ ..] = rest {
        let turns = |length: &usize| {
            let turn = &rest[..*length];
            rest.chunks_exact(*length).take_while(|next| *next == turn).count()
        };
        let lengths = 1..=LONGEST_TURN.min(rest.len());
        let longest = lengths.max_by_key(|length| ((turns(length) - 1) * length, LONGEST_TURN - length));
        match longest.map(|length| (length, turns(&length))).filter(|(_, turns)| *turns >= LEAST_TURNS) {
            Some((length, turns)) => {
                parts.push(format!("repeat {turns} {{ {} }}", rest[..length].join("; ")));
                rest = &rest[length * turns..];
            }
            None => {
                parts.push(first.clone());
                rest = behind;
            }
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::parse;

    #[test]
    fn what_comes_three_times_stands_once_and_means_the_same() {
        let script = "tolerate; open \\\\.\\A as h; read h 1; read h 2; read h 1; read h 2; read h 1; read h 2; read h 1; close h".replace("\\\\", "\\");
        let short = folded(&script);
        assert!(short.contains("; repeat 3 { read h 1; read h 2 }; read h 1; close h"), "{short}");
        let parsed = |script: &str| {
            let script = parse("typed", script).unwrap();
            script.statements.into_iter().map(|statement| statement.command).collect::<Vec<_>>()
        };
        assert_eq!(parsed(&short), parsed(&script));
    }

    #[test]
    fn what_comes_twice_or_stands_in_a_block_stays() {
        for script in ["read h 1; read h 1; close h", "thread t { read h 1; read h 1; read h 1 }", ""] {
            assert_eq!(folded(script), script);
        }
    }
}
