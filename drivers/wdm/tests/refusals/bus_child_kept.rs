//! A child is lent to a routine, which cannot keep it: it ends with its physical device object.
use wdm::*;

struct Kept<B: Bus> {
    last: Slot<&'static ChildDevice<B>>,
}

fn keep<B: Bus>(kept: &Kept<B>, child: &ChildDevice<B>) {
    let _ = kept.last.put(child);
}

fn main() {}
