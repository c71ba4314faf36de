//! Stories of whole scripts: what is understood, and what a mistake is answered with.

use super::*;

fn commands(text: &str) -> Vec<(Option<Name>, Command)> {
    match parse("--do", text) {
        Ok(script) => script.statements.into_iter().map(|s| (s.thread, s.command)).collect(),
        Err(error) => panic!("{error}"),
    }
}

fn refused(text: &str) -> String {
    match parse("demo.txt", text) {
        Ok(script) => panic!("{text} was understood: {script:?}"),
        Err(error) => error.to_string(),
    }
}

const OPEN: &str = "open \\\\.\\Pci9052-0 as card\n";

#[test]
fn a_script_on_one_line_is_the_same_as_on_several() {
    let one = commands(r"open \\.\Pci9052-0 as card; write card hex:3c00; close card");
    let several =
        commands("open \\\\.\\Pci9052-0 as card # the card\n\n  write card hex:3c00\r\nclose card\n");
    assert_eq!(one, several);
    let Command::Open(open) = &one[0].1 else { panic!("{one:?}") };
    assert_eq!(open.path, Path::Name(r"\\.\Pci9052-0".into()));
    assert_eq!((open.access, open.overlapped, open.exclusive), (Access::ReadWrite, false, false));
}

#[test]
fn a_blocks_lines_and_prefixed_lines_run_on_the_named_thread() {
    let block = commands(&format!("{OPEN}thread t1 {{\n read card 16\n wait 1ms\n}}\njoin t1"));
    let prefix = commands(&format!("{OPEN}t1: read card 16\nt1: wait 1ms\njoin t1"));
    assert_eq!(block, prefix);
    let threads: Vec<_> = block.iter().map(|(thread, _)| thread.as_deref()).collect();
    assert_eq!(threads, [None, Some("t1"), Some("t1"), None]);
}

#[test]
fn an_expectation_on_the_next_line_belongs_to_the_command_before_it_on_its_thread() {
    let apart = commands(&format!(
        "{OPEN}t1: read card 4\ncancel card\nt1: expect status STATUS_CANCELLED\nt1: expect bytes 0"
    ));
    let inline = commands(&format!("{OPEN}t1: read card 4 expect STATUS_CANCELLED and bytes 0\ncancel card"));
    assert_eq!(apart, inline);
    let Command::Request { expect, .. } = &apart[1].1 else { panic!("{apart:?}") };
    assert_eq!(expect.status, ExpectedStatus::Exactly(0xc000_0120));
    assert_eq!(expect.bytes, Some(0));
}

#[test]
fn without_a_word_about_the_status_success_is_expected() {
    assert!(Expectations::default().status.admits(0x0000_0103));
    assert!(!Expectations::default().status.admits(0x8000_0005));
    assert!(ExpectedStatus::Failure.admits(0xc000_0120));
}

#[test]
fn expected_bytes_may_have_gaps_but_written_ones_may_not() {
    let all = commands(&format!("{OPEN}read card 3 expect hex:3c??+hex:01").replace('+', " + "));
    let Command::Request { expect, .. } = &all[1].1 else { panic!("{all:?}") };
    let bytes = expect.data.as_ref().unwrap().data.resolve(|_| Err(()), |_, _| Ok(0)).unwrap();
    assert_eq!(bytes, [Some(0x3c), None, Some(1)]);
    assert!(
        refused(&format!("{OPEN}write card hex:3c??"))
            .contains("demo.txt:2:12: `??` is for bytes that are expected")
    );
}

#[test]
fn a_write_begins_at_the_end_where_its_script_says_so_and_a_read_does_not() {
    let all = commands(&format!("{OPEN}write card hex:00 at end"));
    let Command::Request { request, .. } = &all[1].1 else { panic!("{all:?}") };
    let ast::Operation::Write { offset, .. } = &request.operation else { panic!("{request:?}") };
    assert_eq!(offset.map(u64::cast_signed), Some(-1), "FILE_WRITE_TO_END_OF_FILE");
    assert!(refused(&format!("{OPEN}read card 1 at end")).contains("an offset"));
}

#[test]
fn an_open_that_is_to_fail_gives_no_handle() {
    let message = refused("open \\\\.\\No as card\nexpect STATUS_OBJECT_NAME_NOT_FOUND\nclose card");
    assert!(message.contains("demo.txt:3:7: there is no handle `card`"), "{message}");
    commands("open \\\\.\\No as card expect failure; open \\\\.\\Yes as card");
}

#[test]
fn a_mistyped_word_is_answered_with_the_right_one() {
    for (line, says) in [
        ("opne \\\\.\\X as c", "demo.txt:2:1: there is no command `opne`; did you mean `open`?"),
        ("wirte card hex:00", "demo.txt:2:1: there is no command `wirte`; did you mean `write`?"),
        ("write crad hex:00", "demo.txt:2:7: there is no handle `crad`; did you mean `card`?"),
        (
            "read card 16 expct hex:00",
            "demo.txt:2:14: there is no further word `expct`; did you mean `expect`?",
        ),
        (
            "read card 16 expect sttaus 0",
            "demo.txt:2:21: there is no expectation `sttaus`; did you mean `status`?",
        ),
        ("read card 4 expect STATUS_CANCELED", "did you mean `STATUS_CANCELLED`?"),
        ("ioctl card 0x222004 inn hex:00", "there is no further word `inn`; did you mean `in`?"),
        ("suprise-remove", "did you mean `surprise-remove`?"),
        ("write card hx:00", "did you mean `hex:`?"),
        ("read card", "demo.txt:2:10: the line ends too early; here comes a number of bytes"),
        ("read card 0x4000001", "is too much for a number of bytes: at most 67108864"),
        ("read card sixteen", "`sixteen` stands where a number of bytes belongs"),
        ("close card 1", "demo.txt:2:12: `1` is too much"),
        ("close card; close card", "the handle `card` was closed on line 2 already"),
        ("t1:read card 4", "put a space after the thread's name: `t1: read`"),
        (
            "async r read card 4",
            "demo.txt:2:14: `card` was opened for one request at a time; open it with `overlapped`",
        ),
        ("wait 10", "`10` is not a time"),
        ("clock ahead 1s", "ahead"),
        ("power d4", "there is no power state `d4`"),
        ("power setting lit 1", "there is no power setting `lit`"),
        ("open COM1 as c", "`COM1` is not a device's name"),
        ("open \\\\.\\Y as card", "`card` is already the name of a handle (line 1)"),
        ("thread t {", "the block of thread `t` is not closed"),
        ("}", "closes nothing"),
        ("join card", "`card` is a handle; name a thread or request here"),
        ("wait 1ms; expect bytes 4", "has no result to expect something of"),
        ("write card hex:00 expect data hex:00", "does not yield bytes that come in"),
        ("close \"card", "this quote is not closed"),
    ] {
        let message = refused(&format!("{OPEN}{line}"));
        assert!(message.contains(says), "{line}\n  said   {message}\n  wanted {says}");
    }
}

#[test]
fn a_request_name_is_free_again_once_it_is_joined() {
    let text = "open \\\\.\\X as c overlapped; async r read c 4; expect pending r; cancel r; \
                join r expect STATUS_CANCELLED; async r read c 4; join r";
    assert_eq!(commands(text).len(), 7);
    assert!(
        refused("open \\\\.\\X as c overlapped; async r read c 4; async r read c 4")
            .contains("already the name of a request")
    );
}

#[test]
fn a_process_has_what_it_opens_and_what_it_inherits() {
    let text =
        format!("{OPEN}process p inheriting; p: read card 4; close card; p: close card; exit p; process p");
    assert_eq!(commands(&text).len(), 7);
    for (line, says) in [
        (
            "memory m hex:00; p: read card memory m",
            "the memory `m` is of the first process, which process `p` has not",
        ),
        (
            "p: open \\\\.\\X as own; read own 4",
            "the handle `own` is of process `p`, which the first process has not",
        ),
        ("process q; p: open \\\\.\\X as own; q: read own 4", "is of process `p`, which process `q` has not"),
        ("exit p; p: read card 4", "the process `p` has exited on line 3"),
        ("t: read card 4; exit t", "`t` is a thread; name a process here"),
        ("p: process q", "a process is begun by the script itself"),
        ("process card", "`card` is already the name of a handle"),
        ("read-scatter card 4096", "open it with `overlapped`"),
    ] {
        let message = refused(&format!("{OPEN}process p inheriting\n{line}"));
        assert!(message.contains(says), "{line}\n  said   {message}\n  wanted {says}");
    }
}

#[test]
fn mutilated_scripts_are_refused_and_never_panic() {
    let whole = "open \\\\.\\Pci9052-0 as card overlapped\nthread t1 { read card 0x10 expect hex:3c?? and bytes 1 }\n\
                 async r ioctl card CTL_CODE(0x8000, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS) in text:\"a\\x41\" + u32:1 out 4\n\
                 poke pci9052#0 linti1 1; expect print \"x\"; join r expect STATUS_SUCCESS; power d3 # end";
    parse("whole", whole).unwrap();
    let letters: Vec<char> = whole.chars().collect();
    let mut understood = 0;
    for at in 0..letters.len() {
        for with in ['"', '{', '}', '(', '\n', ';', '\\', ':', '\u{1f980}', '\0'] {
            let mut changed = letters.clone();
            changed[at] = with;
            let text: String = changed.iter().collect();
            match parse("mutilated", &text) {
                Ok(_) => understood += 1,
                Err(error) => {
                    assert!(!error.message.is_empty() && error.at.line >= 1 && error.at.column >= 1)
                }
            }
            let _ = parse("cut", &changed[..at].iter().collect::<String>());
        }
    }
    assert!(understood < letters.len() * 5, "{understood}: is nothing refused?");
}

#[test]
fn a_request_has_an_answer_of_its_own_and_others_have_theirs() {
    let asked = r"open \\.\Card as h overlapped; async a ioctl h 0x222000 in u32:5 out 4; ";
    let all = commands(&format!("{asked}must-answer a u32:120 not u32:24 or hex:04"));
    let Command::MustAnswer { name, answer, others } = &all[2].1 else { panic!("{all:?}") };
    assert_eq!((&**name, answer.known()), ("a", Some(&[120, 0, 0, 0][..])));
    let others: Vec<_> = others.iter().map(|other| other.known()).collect();
    assert_eq!(others, [Some(&[24, 0, 0, 0][..]), Some(&[4][..])]);
    assert!(refused(&format!("{asked}must-answer a u32:120")).contains("`not`"));
    assert!(refused(&format!("{asked}must-answer b u32:1 not u32:2")).contains("`b`"));
}

#[test]
fn a_request_lasts_for_a_time_unless_it_ends_otherwise() {
    let asked = r"open \\.\Card as h overlapped; async a ioctl h 0x222000 in u32:5; ";
    let all = commands(&format!("{asked}must-last a 2s as STATUS_TIMEOUT"));
    let Command::MustLast { name, least, status } = &all[2].1 else { panic!("{all:?}") };
    assert_eq!((&**name, *least, *status), ("a", 2_000_000_000, 0x102));
    assert!(refused(&format!("{asked}must-last a 2s")).contains("`as`"));
    assert!(refused(&format!("{asked}must-last b 2s as 0")).contains("`b`"));
}

#[test]
fn a_request_has_a_status_and_numbers_differ() {
    let asked =
        r"open \\.\Card as h overlapped; async a ioctl h 0x222000; number n read h 4; number m read h 4; ";
    let all = commands(&format!("{asked}must-be a STATUS_PENDING; must-differ m n"));
    assert_eq!(all[4].1, Command::MustBe { name: "a".into(), status: 0x103 });
    assert_eq!(all[5].1, Command::MustDiffer { name: "m".into(), other: "n".into() });
    assert!(refused(&format!("{asked}must-be a")).contains("its status"));
    assert!(refused(&format!("{asked}must-differ m a")).contains("`a`"));
}

#[test]
fn lines_are_repeated_as_if_they_stood_there_so_often() {
    let of = |text: &str| commands(text).into_iter().map(|(_, command)| command).collect::<Vec<_>>();
    let turn = "async a read h 4; t: wait 1ms; join a; ";
    let open = r"open \\.\Card as h overlapped; ";
    let repeated = of(&format!("{open}repeat 3 {{ {turn}}}; close h"));
    assert_eq!(repeated, of(&format!("{open}{turn}{turn}{turn}close h")));
    for (wrong, says) in [
        ("repeat 0 { wait 1ms }", "not `0`"),
        ("repeat x { wait 1ms }", "not `x`"),
        ("repeat 100001 { wait 1ms }", "100000 times"),
        ("repeat 2 { wait 1ms", "the block of `repeat` is not closed"),
        ("repeat 2 { thread t { wait 1ms } }", "cannot stand in the block of `repeat`"),
        ("repeat 2 wait 1ms", "`repeat N {"),
    ] {
        assert!(refused(wrong).contains(says), "{wrong}: {}", refused(wrong));
    }
    assert!(refused(&format!("{open}repeat 2 {{ async a read h 4 }}")).contains("`a`"));
}

#[test]
fn cards_are_late_at_a_limit_that_is_counted() {
    let of = |text: &str| commands(text).remove(0).1;
    assert_eq!(of("cards late 3"), Command::Cards(Cards::Late(3)));
    assert_eq!(of("cards late"), Command::Cards(Cards::Late(1)));
    assert_eq!(of("cards answer"), Command::Cards(Cards::Answer));
    assert!(refused("cards later").contains("`later`"));
}
