//! What patterns cost one thread that nobody disturbs; and what tokio's of the same names cost, within one process.
//!
//! `cargo bench --bench patterns`

use std::{hint::black_box, pin::pin, time::Duration};

use criterion::{BenchmarkId, Criterion};
use tokio::sync;
use waterway::Segment;

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    // A file, with room for 256 processes, as between processes.
    let segment = Segment::options().size(64 << 20).anonymous().unwrap();
    watch::<64>(&mut criterion, &segment);
    watch::<65536>(&mut criterion, &segment);
    semaphore(&mut criterion, &segment);
    notify(&mut criterion, &segment);
    criterion.final_summary();
}

fn watch<const SIZE: usize>(criterion: &mut Criterion, segment: &Segment) {
    let mut group = criterion.benchmark_group("watch");
    let (sender, mut receiver) = segment.watch::<[u8; SIZE]>(&format!("value-{SIZE}")).open().unwrap();
    group.bench_function(BenchmarkId::new("borrow", SIZE), |bencher| {
        bencher.iter(|| black_box(receiver.borrow()[SIZE / 2]));
    });
    group.bench_function(BenchmarkId::new("borrow_and_update", SIZE), |bencher| {
        bencher.iter(|| black_box(receiver.borrow_and_update()[SIZE / 2]));
    });
    let value = [7; SIZE];
    group.bench_function(BenchmarkId::new("send", SIZE), |bencher| {
        bencher.iter(|| sender.send(black_box(value)).unwrap());
    });
    group.bench_function(BenchmarkId::new("send, borrow", SIZE), |bencher| {
        bencher.iter(|| {
            sender.send(black_box(value)).unwrap();
            black_box(receiver.borrow_and_update()[SIZE / 2])
        });
    });
    let (sender, receiver) = sync::watch::channel([0_u8; SIZE]);
    group.bench_function(BenchmarkId::new("tokio: borrow", SIZE), |bencher| {
        bencher.iter(|| black_box(receiver.borrow()[SIZE / 2]));
    });
    group.bench_function(BenchmarkId::new("tokio: send", SIZE), |bencher| {
        bencher.iter(|| sender.send(black_box(value)).unwrap());
    });
    group.finish();
}

fn semaphore(criterion: &mut Criterion, segment: &Segment) {
    let mut group = criterion.benchmark_group("semaphore");
    let semaphore = segment.semaphore("jobs").permits(10).open().unwrap();
    group.bench_function("acquire, drop", |bencher| {
        bencher.iter(|| drop(black_box(semaphore.try_acquire().unwrap())));
    });
    let semaphore = sync::Semaphore::new(10);
    group.bench_function("tokio: acquire, drop", |bencher| {
        bencher.iter(|| drop(black_box(semaphore.try_acquire().unwrap())));
    });
    group.finish();
}

fn notify(criterion: &mut Criterion, segment: &Segment) {
    let mut group = criterion.benchmark_group("notify");
    let notify = segment.notify("tick").unwrap();
    group.bench_function("notify, stored", |bencher| {
        bencher.iter(|| {
            notify.notify_one();
            assert!(pin!(notify.notified()).enable());
        });
    });
    let notify = sync::Notify::new();
    group.bench_function("tokio: notify, stored", |bencher| {
        bencher.iter(|| {
            notify.notify_one();
            assert!(pin!(notify.notified()).enable());
        });
    });
    group.finish();
}
