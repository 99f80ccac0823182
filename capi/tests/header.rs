//! The header says what the library has.

use std::{env, fs, path::Path};

/// In the order in which a reader wants them.
const SOURCES: [&str; 11] = [
    "status",
    "border",
    "options",
    "segment",
    "message",
    "channel",
    "broadcast",
    "service",
    "watch",
    "semaphore",
    "notify",
];

/// The header, as it follows from the sources.
fn made() -> String {
    let place = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(place.join("cbindgen.toml")).unwrap();
    let builder = SOURCES
        .iter()
        .map(|source| place.join(format!("src/{source}.rs")))
        .fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src);
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    // What rustdoc wants as a heading is a sentence for C.
    String::from_utf8(header).unwrap().replace(" * # Safety\n *\n * ", " * The caller sees to it: ")
}

#[test]
fn the_header_is_that_of_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/waterway.h");
    let made = made();
    if env::var_os("WATERWAY_UPDATE_HEADER").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == made,
        "include/waterway.h is old: WATERWAY_UPDATE_HEADER=1 cargo test -p waterway-capi --test header"
    );
}
