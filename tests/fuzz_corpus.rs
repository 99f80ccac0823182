//! Replays the corpus of the fuzz targets, and patches of its own, without a fuzzer: see `fuzz/`.
//!
//! `mutations_of_the_corpus_…` are what `fuzz/run.sh` does where there is no cargo-fuzz: `WATERWAY_FUZZ_SECONDS` says for how
//! long, `WATERWAY_FUZZ_SEED` plays one input again.

mod common;

#[path = "../fuzz/src/attach.rs"]
mod attach;

#[cfg(all(feature = "json", feature = "postcard", feature = "prost", feature = "rkyv"))]
#[path = "../fuzz/src/decode.rs"]
mod decode;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

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

/// One of the corpus, or two that are joined, with some changes.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, random_bytes(random, 30))),
            2 => bytes.extend_from_slice(&corpus[random.below(corpus.len())]),
            3 => drop(bytes.drain(at..(at + random.below(20)).min(bytes.len()))),
            4 => drop(bytes.splice(at.., random.next().to_le_bytes())),
            _ if at == bytes.len() => bytes.push(random.next() as u8),
            5 => bytes[at] ^= 1 << random.below(8),
            _ => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6)],
        }
    }
    bytes
}

/// Says at the end of a run in vain which input it was.
struct Said(u64);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to play it again: WATERWAY_FUZZ_SEED={}", self.0);
        }
    }
}

fn mutate(target: &str, run: impl Fn(&[u8])) {
    let number = |variable| std::env::var(variable).ok().map(|value: String| value.parse::<u64>().unwrap());
    let corpus = corpus(target);
    let play = |seed| {
        let _said = Said(seed);
        run(&mutated(&corpus, &mut Random::new(seed)));
    };
    if let Some(seed) = number("WATERWAY_FUZZ_SEED") {
        return play(seed);
    }
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("{target}: the first seed is {first}");
    let (started, time) = (Instant::now(), Duration::from_secs(number("WATERWAY_FUZZ_SECONDS").unwrap_or(10)));
    let mut inputs = 0;
    while started.elapsed() < time {
        play(first + inputs);
        inputs += 1;
    }
    println!("{target}: {inputs} inputs in {time:?}");
}

#[test]
#[ignore = "takes as long as it is told: fuzz/run.sh"]
fn mutations_of_the_corpus_of_attach_are_opened_or_refused() {
    mutate("attach", |bytes| _ = attach::run(bytes));
    attach::clean();
}

#[cfg(all(feature = "json", feature = "postcard", feature = "prost", feature = "rkyv"))]
#[test]
#[ignore = "takes as long as it is told: fuzz/run.sh"]
fn mutations_of_the_corpus_of_decode_are_decoded_or_refused() {
    mutate("decode", decode::run);
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
