//! Nothing but memory: a ring for one sender and one receiver, who spin, or sleep on the slot's own word. What no channel
//! can do better; it survives nobody's death.

use std::{
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    page::Line,
    peers::play,
    stamp::{Seen, fill},
    worker::{Rx, Tx, Worker},
};

/// A ring of slots: a line with the word that says how often it was filled and emptied, and the payload.
struct Ring {
    lines: &'static [Line],
    /// Lines that a slot takes.
    stride: usize,
    slots: u64,
    size: usize,
    position: u64,
    sleeps: bool,
}

impl Ring {
    fn new(worker: Worker, back: bool) -> Self {
        let (spec, page) = (worker.spec, worker.page);
        let half = page.raw.len() / 2;
        let lines = &page.raw[usize::from(back) * half..][..half];
        let stride = 1 + spec.size.div_ceil(size_of::<Line>());
        let slots = spec.capacity.min(half / stride) as u64;
        Self { lines, stride, slots, size: spec.size, position: 0, sleeps: spec.peer == "futex" }
    }

    fn line(&self) -> usize {
        (self.position % self.slots) as usize * self.stride
    }

    fn word(&self) -> &'static AtomicU32 {
        // SAFETY: the line is aligned, and as long as a word at least.
        unsafe { &*ptr::from_ref(&self.lines[self.line()]).cast() }
    }

    fn payload(&self) -> *mut u8 {
        ptr::from_ref(&self.lines[self.line() + 1..][..self.stride - 1]).cast::<u8>().cast_mut()
    }

    /// Waits until the slot was filled, or emptied, so often.
    fn wait(&self, turn: u32) {
        let word = self.word();
        loop {
            let found = word.load(Ordering::Acquire);
            if found == turn {
                return;
            }
            if self.sleeps {
                futex(word, libc::FUTEX_WAIT, found);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    fn publish(&mut self, turn: u32) {
        let word = self.word();
        word.store(turn, Ordering::Release);
        if self.sleeps {
            futex(word, libc::FUTEX_WAKE, 1);
        }
        self.position += 1;
    }

    fn lap(&self) -> u32 {
        2 * (self.position / self.slots) as u32
    }
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    // SAFETY: the word is mapped, and no time is given.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, ptr::null::<libc::timespec>()) };
}

impl Tx for Ring {
    async fn send(&mut self, number: u64) {
        let lap = self.lap();
        self.wait(lap);
        // SAFETY: the slot is empty, so it is this side's until it says otherwise; the payload is as long as that.
        fill(unsafe { std::slice::from_raw_parts_mut(self.payload(), self.size) }, number);
        self.publish(lap + 1);
    }
}

impl Rx for Ring {
    async fn recv(&mut self, seen: &mut Seen) {
        let lap = self.lap();
        self.wait(lap + 1);
        // SAFETY: the slot is full, so it is this side's until it says otherwise.
        seen.take(unsafe { std::slice::from_raw_parts(self.payload(), self.size) });
        self.publish(lap + 2);
    }
}

pub fn run(worker: Worker) {
    worker.run(Box::pin(async move {
        play!(worker, there: Ring::new(worker, false), vec![Ring::new(worker, false)];
            back: Ring::new(worker, true), vec![Ring::new(worker, true)]);
    }));
}
