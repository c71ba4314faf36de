//! tmp
use dirql::explore::Policy;
use dirql::{Bench, Machine, Play, ScriptText};
use engine::{Chooser, Delay, Point};
use std::cell::RefCell;
use std::rc::Rc;
struct Log(Box<dyn Chooser>, Rc<RefCell<Vec<String>>>);
impl Log {
    fn l(&self, s: String) {
        self.1.borrow_mut().push(s);
    }
}
impl Chooser for Log {
    fn script_begins(&mut self) -> bool {
        self.1.borrow_mut().clear();
        self.l("BEGIN".into());
        self.0.script_begins()
    }
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        let a = self.0.choose(strand, point, n);
        self.l(format!("choose {strand} {point:?} {n} {a}"));
        a
    }
    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        let a = self.0.slice(strand, retired);
        self.l(format!("slice {strand} {retired} {a}"));
        a
    }
    fn sees_interlocked(&self) -> bool {
        self.0.sees_interlocked()
    }
    fn watches(&self) -> Vec<u64> {
        self.0.watches()
    }
    fn comes_to(&mut self, state: u64) {
        self.0.comes_to(state)
    }
    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        let a = self.0.next_strand(strand, point, strands);
        self.l(format!("next {strand} {point:?} {strands:?} {a}"));
        a
    }
    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        let a = self.0.give_way(strand, point, others);
        self.l(format!("give {strand} {point:?} {others:?} {a}"));
        a
    }
    fn give_way_before(&mut self, strand: u32, retired: u64, instruction: u64, others: &[u32]) -> bool {
        let a = self.0.give_way_before(strand, retired, instruction, others);
        self.l(format!("giveb {strand} {retired} {instruction:x} {others:?} {a}"));
        a
    }
    fn delays(&mut self, strand: u32, at: Delay) -> bool {
        let a = self.0.delays(strand, at);
        self.l(format!("delays {strand} {at:?} {a}"));
        a
    }
}
fn main() {
    let mut a = std::env::args().skip(1);
    let (sys, inf, policy, script) =
        (a.next().unwrap(), a.next().unwrap(), a.next().unwrap(), a.next().unwrap());
    let races = a.next().is_none();
    let play: Option<Play> = (!script.is_empty()).then(|| ScriptText::typed(&script).play().unwrap());
    let policy: Policy = policy.parse().unwrap();
    let bench = || {
        let b = Bench::new()
            .driver(&sys)
            .processors(2)
            .rules(&dirql::rules::judges("all").unwrap())
            .verifier("all,logging".parse().unwrap())
            .races(races);
        if inf.is_empty() { b } else { b.inf(&inf) }
    };
    let log: Rc<RefCell<Vec<String>>> = Rc::default();
    let noted = || Box::new(Log(policy.chooser(), Rc::clone(&log)));
    let show = |what: &str, r: &dirql::Report| {
        let c: Vec<String> = r.causes().iter().map(|c| format!("{}@{:x?}", c.rule, c.instruction)).collect();
        println!("{what}: {:x} {c:?} {} choices", r.trace_hash, log.borrow().len());
        std::fs::write(format!("/tmp/choices_{}", what.replace(' ', "_")), log.take().join("\n")).unwrap();
    };
    show("run checked", &bench().checked(true).decided_by(noted()).run(play.clone()).unwrap());
    let perform = |m: &Machine| m.perform(play.clone());
    let mut boots = bench().checked(true).boots().unwrap();
    let ((), r) = boots.boot(noted(), perform).unwrap();
    show("boot", &r);
    let ((), r) = boots.boot_to_script(noted(), perform).unwrap();
    show("boot to script", &r);
    drop(boots);
    let mut boots = bench().checked(true).boots().unwrap();
    let ((), r) = boots.boot_to_script(noted(), perform).unwrap();
    show("fresh boot to script", &r);
}
