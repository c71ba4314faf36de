//! `docs/events.md` is what the declarations of events say.

use dirql::readers::schema_page;
use kernel::event::Kind;

#[test]
fn the_page_of_events_is_made_from_their_declarations() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page == schema_page(), "docs/events.md is another one: `cargo xtask events` writes it");
    for kind in Kind::ALL {
        assert!(page.contains(&format!("\n## {}\n", kind.name())), "{kind:?} has a section");
        let meanings = kind.fields().iter().map(|field| field.meaning);
        assert!(meanings.chain([kind.meaning()]).all(|text| text.trim().len() > 3), "{kind:?} is described");
    }
}
