//! The command line of this process with other options: what makes one run of many again.

use std::process::{Command, Stdio};

/// What carries such a line out in a process of its own, which reads and says nothing.
pub(crate) fn carried_out(line: &[String]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// As a shell takes it for one word.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+=:@%,".contains(letter);
    let is_plain = !text.is_empty() && text.chars().all(plain);
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Options whose value stands behind `=`, or is left out.
const VALUE_BEHIND_EQUALS: [&str; 2] = ["verifier", "special-pool"];

/// This command without `options`, each with its value, and with `more` behind it.
pub(crate) fn command(options: &[&str], more: &[String]) -> Vec<String> {
    without(options, std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()), more)
}

fn without(options: &[&str], words: impl Iterator<Item = String>, more: &[String]) -> Vec<String> {
    let mut kept = vec!["dirql".to_owned()];
    let mut words = words;
    while let Some(word) = words.next() {
        let (name, value) =
            word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        match name.strip_prefix("--").filter(|name| options.contains(name)) {
            None => kept.push(word),
            Some(name) if value.is_none() && !VALUE_BEHIND_EQUALS.contains(&name) => drop(words.next()),
            Some(_) => {}
        }
    }
    kept.extend(more.iter().cloned());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_left_out_with_their_values() {
        let words = [
            "run",
            "a b.sys",
            "--runs",
            "20",
            "--do",
            "close",
            "--workers=2",
            "--policy",
            "random:1",
            "--verifier",
            "--fast",
        ];
        let made = without(
            &["runs", "workers", "policy", "verifier"],
            words.map(str::to_owned).into_iter(),
            &["--x=1".to_owned()],
        );
        assert_eq!(made, ["dirql", "run", "a b.sys", "--do", "close", "--fast", "--x=1"]);
    }

    #[test]
    fn a_word_for_a_shell_stands_in_quotes_where_it_must() {
        assert_eq!(quoted("pct:1,3"), "pct:1,3");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
