//! What the target `attach` does with its bytes; the test of the corpus does the same.
//!
//! Bytes that begin with [`RAW`] are a file as they are, which hardly any of them will be. All others are patches of a good
//! segment that has a channel with messages in it: two bytes kind, four bytes place, eight bytes value, over and over.
//! Few of them touch the header, which has a checksum: what lies behind it is to be seen, too.

use std::{
    fs,
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    sync::OnceLock,
};

use waterway::{Segment, SegmentOptions};

/// Says that the rest is a whole file.
pub(crate) const RAW: &[u8] = b"raw:";

const PATCH: usize = 14;

/// A directory of this process's own, and the bytes of a good segment.
struct Ground {
    directory: PathBuf,
    good: Vec<u8>,
}

fn options(directory: &PathBuf) -> SegmentOptions {
    Segment::options().dir(directory).size(512 << 10).participants(2).channels(16).persistent(true)
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let directory = PathBuf::from(format!("/dev/shm/waterway-test-fuzz-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        let segment = options(&directory).create("good").unwrap();
        let numbers = segment.channel::<u64>("numbers").capacity(8).persistent(true).sender().unwrap();
        let bytes = segment.bytes("bytes").capacity(8).persistent(true).sender().unwrap();
        for number in 0..5 {
            numbers.try_send(number).unwrap();
            bytes.try_send(vec![number as u8; 300]).unwrap();
        }
        drop((numbers, bytes, segment));
        let good = fs::read(directory.join("good")).unwrap();
        fs::remove_file(directory.join("good")).unwrap();
        Ground { directory, good }
    })
}

/// Removes what `run` has made.
#[allow(dead_code)] // The test does, the fuzzer does not.
pub(crate) fn clean() {
    let _ = fs::remove_dir_all(&ground().directory);
}

fn patch(file: &mut [u8], data: &[u8]) {
    for patch in data.chunks_exact(PATCH) {
        let kind = patch[0];
        let at = u32::from_le_bytes(patch[2..6].try_into().unwrap()) as usize;
        // Most of what matters stands at the beginning, and in words.
        let at = match kind >> 1 & 3 {
            0 if kind == 0 => at % 4096,
            0 | 1 => 4096 + at % (60 << 10),
            _ => 4096 + at % (file.len() - 4096),
        } & !7;
        file[at..at + 8].copy_from_slice(&patch[6..]);
    }
}

/// Opens the file that the bytes describe, and uses it if it can be opened; whether it could.
pub(crate) fn run(data: &[u8]) -> bool {
    let ground = ground();
    let file = match data.strip_prefix(RAW) {
        Some(raw) => raw.to_vec(),
        None => {
            let mut file = ground.good.clone();
            patch(&mut file, data);
            file
        }
    };
    let path = ground.directory.join("fuzzed");
    let _ = fs::remove_file(&path);
    let mut how = fs::OpenOptions::new();
    let there = how.write(true).create_new(true).mode(0o600).open(&path).unwrap();
    there.write_all_at(&file, 0).unwrap();
    drop(there);
    let opened = options(&ground.directory).open("fuzzed").map(|segment| exercise(&segment)).is_ok();
    let _ = fs::remove_file(&path);
    opened
}

/// Everything that looks at shared memory; whatever comes of it, it must come.
fn exercise(segment: &Segment) {
    let _ = (segment.check_live(), segment.stats(), segment.channels(), segment.participants());
    let _ = segment.channel::<u64>("other").capacity(4).open().map(|(sender, receiver)| {
        let _ = sender.try_send(1);
        let _ = receiver.try_recv();
    });
    if let Ok((sender, receiver)) = segment.channel::<u64>("numbers").open() {
        for number in 0..20 {
            let _ = sender.try_send(number);
        }
        let _ = (receiver.len(), receiver.capacity(), receiver.inquire());
        for _ in 0..20 {
            let _ = receiver.try_recv();
        }
    }
    if let Ok((sender, receiver)) = segment.bytes("bytes").open() {
        for number in 0..20_u8 {
            let _ = sender.try_send(vec![number; 200 * usize::from(number)]);
        }
        for _ in 0..20 {
            let _ = receiver.try_recv().map(|message| message.iter().copied().max());
        }
        let _ = sender.try_reserve(100).map(drop);
    }
    segment.bury_the_dead();
}
