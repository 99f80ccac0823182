//! Payloads: every one is written in full by its sender, and read in full and verified by its receiver, in the same way
//! whoever carries it.

use std::mem::MaybeUninit;

/// Says that no more will come, where several receivers share a channel.
pub const STOP: u64 = u64::MAX;
/// Bits of a number that count; those above say who sent it.
const SENDER_SHIFT: u32 = 48;

/// The number of a sender's message.
pub fn number(sender: usize, count: u64) -> u64 {
    (sender as u64) << SENDER_SHIFT | count
}

/// Writes a payload: every word depends on the number.
#[inline]
pub fn fill_uninit(payload: &mut [MaybeUninit<u8>], number: u64) {
    for (index, word) in payload.chunks_exact_mut(8).enumerate() {
        let stamp = (number ^ index as u64).to_ne_bytes();
        for (to, from) in word.iter_mut().zip(stamp) {
            to.write(from);
        }
    }
}

/// Writes a payload over another.
#[inline]
pub fn fill(payload: &mut [u8], number: u64) {
    for (index, word) in payload.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(number ^ index as u64).to_ne_bytes());
    }
}

/// Reads all of a payload; the first word is the number.
#[inline]
pub fn verify(payload: &[u8]) -> u64 {
    let number = u64::from_ne_bytes(payload[..8].try_into().expect("payloads have a word at least"));
    let mut wrong = 0;
    for (index, word) in payload.chunks_exact(8).enumerate() {
        wrong |= u64::from_ne_bytes(word.try_into().expect("chunks of eight")) ^ number ^ index as u64;
    }
    assert_eq!(wrong, 0, "message {number:#x} is damaged");
    number
}

/// What a receiver has seen: it must come once, and each sender's in order.
#[derive(Debug, Default)]
pub struct Seen {
    next: Vec<u64>,
    /// Whether it is the only receiver, which sees all.
    alone: bool,
    pub count: u64,
    pub sum: u64,
    pub stopped: bool,
}

impl Seen {
    pub fn new(senders: usize, alone: bool) -> Self {
        Self { next: vec![0; senders], alone, ..Self::default() }
    }

    /// Reads a message.
    #[inline]
    pub fn take(&mut self, payload: &[u8]) {
        let number = verify(payload);
        if number == STOP {
            self.stopped = true;
            return;
        }
        let count = number & ((1 << SENDER_SHIFT) - 1);
        let next = &mut self.next[(number >> SENDER_SHIFT) as usize];
        assert!(if self.alone { count == *next } else { count >= *next }, "message {count} came, {next} was due");
        *next = count + 1;
        self.count += 1;
        self.sum = self.sum.wrapping_add(count);
    }
}

/// What is handed over by value within one process.
pub trait Value: Send + 'static {
    fn make(size: usize, number: u64) -> Self;
    fn bytes(&self) -> &[u8];
}

impl<const WORDS: usize> Value for [u64; WORDS] {
    #[inline]
    fn make(_: usize, number: u64) -> Self {
        std::array::from_fn(|index| number ^ index as u64)
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        zerocopy::IntoBytes::as_bytes(self)
    }
}

impl Value for Box<[u8]> {
    #[inline]
    fn make(size: usize, number: u64) -> Self {
        let mut payload = Box::new_uninit_slice(size);
        fill_uninit(&mut payload, number);
        // SAFETY: all sizes are whole words, and so all of it was written.
        unsafe { payload.assume_init() }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(number: u64) -> Vec<u8> {
        let mut payload = vec![0; 64];
        fill(&mut payload, number);
        payload
    }

    #[test]
    fn everybody_writes_the_same() {
        assert_eq!(payload(7), <[u64; 8]>::make(64, 7).bytes());
        assert_eq!(payload(7), Box::<[u8]>::make(64, 7).bytes());
    }

    #[test]
    fn what_came_once_and_in_order_is_counted() {
        let mut seen = Seen::new(2, true);
        for (sender, count) in [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)] {
            seen.take(&payload(number(sender, count)));
        }
        assert_eq!((seen.count, seen.sum), (5, 4));
        seen.take(&payload(STOP));
        assert!(seen.stopped && seen.count == 5);
    }

    #[test]
    #[should_panic(expected = "is damaged")]
    fn one_wrong_bit_is_seen() {
        let mut payload = payload(7);
        payload[63] ^= 1;
        Seen::new(1, false).take(&payload);
    }

    #[test]
    #[should_panic(expected = "was due")]
    fn a_message_that_comes_twice_is_seen() {
        let mut seen = Seen::new(1, false);
        seen.take(&payload(0));
        seen.take(&payload(0));
    }

    #[test]
    #[should_panic(expected = "was due")]
    fn a_message_that_is_missing_is_seen() {
        let mut seen = Seen::new(1, true);
        seen.take(&payload(0));
        seen.take(&payload(2));
    }
}
