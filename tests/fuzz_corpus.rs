//! Replays the corpus of the fuzz targets, and patches of its own, without a fuzzer: see `fuzz/`.

mod common;

#[path = "../fuzz/src/attach.rs"]
mod attach;

#[cfg(all(feature = "json", feature = "postcard", feature = "prost", feature = "rkyv"))]
#[path = "../fuzz/src/decode.rs"]
mod decode;

use std::{fs, path::Path};

use common::Random;

/// The files of a target's corpus.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "the corpus of {target} is empty");
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

fn random_bytes(random: &mut Random, most: usize) -> Vec<u8> {
    let len = random.below(most);
    (0..len).map(|_| random.next() as u8).collect()
}

#[test]
fn whatever_stands_in_a_segment_file_opening_and_using_it_ends() {
    for bytes in corpus("attach") {
        attach::run(&bytes);
    }
    let mut random = Random::new(1);
    let opened = (0..200).filter(|_| attach::run(&random_bytes(&mut random, 14 * 40))).count();
    assert!(attach::run(b""), "the segment that is not patched opens");
    attach::clean();
    assert!(opened > 50, "{opened} of 200 were opened: hardly anything was seen");
}

#[cfg(all(feature = "json", feature = "postcard", feature = "prost", feature = "rkyv"))]
#[test]
fn whatever_arrives_is_decoded_or_refused() {
    for bytes in corpus("decode") {
        decode::run(&bytes);
    }
    let mut random = Random::new(1);
    for _ in 0..1000 {
        decode::run(&random_bytes(&mut random, 200));
    }
}
