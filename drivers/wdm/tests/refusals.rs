//! What the types refuse: each file of `refusals` is a mistake of a driver's that does not compile, and what the compiler says of it.
//!
//! After a change of wording: `TRYBUILD=overwrite cargo test -p dirql-wdm --test refusals`, and a look at what changed.

#[test]
fn each_mistake_that_types_can_refuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/refusals/*.rs");
}
