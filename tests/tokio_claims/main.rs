//! What tokio promises of `tokio::sync::mpsc`, and its own tests look after.
//!
//! Claims that are *the same* here are scripts in `claims.rs`. Each is played twice: in one process, and between two, with
//! the receiving side in a child that gets its steps through a pipe (`scene.rs`, `side.rs`). What cannot be a script, because
//! it is about types, panics or wakers of one process, is in `local.rs`. All of it together with what differs, and why, and
//! which tests of tokio's suite look after the same, is one page, `docs/tokio_claims.md`, which is written from here:
//!
//! ```sh
//! WATERWAY_UPDATE_CLAIMS=1 cargo test --test tokio_claims page
//! ```

#[path = "../common/mod.rs"]
mod common;

mod claims;
mod local;
mod page;
mod scene;
mod side;

use std::{future::poll_fn, pin::pin, task::Poll, thread, time::Duration};

use futures::poll;
use waterway::{Message, Receiver};

/// A promise of tokio's that is kept: its words, the tests of tokio's that look after it, and where ours is.
struct Claim {
    words: &'static str,
    theirs: &'static str,
    test: &'static str,
    /// A script, if it is played.
    script: Option<&'static str>,
}

#[test]
fn far_side() {
    scene::far_side();
}

// ---- Steps that are many in one ----

/// Receives all there is with futures that are dropped again and again.
fn cancelling(receiver: &Receiver<u64>) -> Vec<Message<u64>> {
    common::within(async {
        let mut buffer = Vec::new();
        for round in 0.. {
            // Dropped after one poll, or two.
            tokio::select! {
                biased;
                count = receiver.recv_many(&mut buffer, 3) => if count == 0 { break },
                () = tokio::task::yield_now() => {}
            }
            tokio::select! {
                biased;
                message = receiver.recv() => buffer.extend(message),
                () = tokio::time::sleep(Duration::from_micros(round % 50)) => {}
            }
            if let Poll::Ready(message) = poll!(pin!(poll_fn(|context| receiver.poll_recv(context)))) {
                buffer.extend(message);
            }
        }
        buffer
    })
}

/// Receives all there is by polling, one and two in turn.
fn polling(receiver: &Receiver<u64>) -> Vec<Message<u64>> {
    common::within(async {
        let mut buffer = Vec::new();
        while let Some(message) = poll_fn(|context| receiver.poll_recv(context)).await {
            buffer.push(message);
            assert_eq!(poll_fn(|context| receiver.poll_recv_many(context, &mut buffer, 0)).await, 0);
            poll_fn(|context| receiver.poll_recv_many(context, &mut buffer, 2)).await;
        }
        assert_eq!(poll_fn(|context| receiver.poll_recv_many(context, &mut buffer, 2)).await, 0);
        buffer
    })
}

/// Receives all there is in several threads.
fn share(receivers: Vec<Receiver<u64>>) -> String {
    let threads: Vec<_> = receivers
        .into_iter()
        .map(|receiver| thread::spawn(move || receiver.blocking_iter().map(|message| *message).collect::<Vec<u64>>()))
        .collect();
    let parts: Vec<Vec<u64>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let in_order = parts.iter().all(|part| part.is_sorted());
    let mut all = parts.concat();
    all.sort_unstable();
    let once = all.iter().copied().eq(0..all.len() as u64);
    format!("{} once {once} in order {in_order}", all.len())
}

/// Receives 1000 messages that wait already, each handled for 50 µs, beside a task that counts its turns.
#[cfg(feature = "tokio")]
fn take_turns(receiver: std::sync::Arc<Receiver<u64>>) -> String {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    common::within(async {
        let turns = Arc::new(AtomicUsize::new(0));
        let other = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        // 50 ms of work: by the number of operations it would be 7 turns, by the time some 500.
        let busy = tokio::spawn(async move {
            for _ in 0..1000 {
                receiver.recv().await;
                let handled = std::time::Instant::now();
                while handled.elapsed() < std::time::Duration::from_micros(50) {
                    std::hint::spin_loop();
                }
            }
            turns.load(Ordering::Relaxed)
        });
        let disturbed = busy.await.unwrap();
        other.abort();
        format!("a hundred times in 50 ms {}", disturbed >= 100)
    })
}
