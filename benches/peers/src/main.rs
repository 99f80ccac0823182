//! Waterway between processes beside its peers, in one harness: see docs/performance.md.

mod cases;
mod page;
mod peers;
mod run;
mod spec;
mod stamp;
mod worker;

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == run::WORKER).is_some() {
        run::work(args).expect("a worker is started by this program, with all that it needs to know");
        return;
    }
    let pat = args.next().unwrap_or_default();
    let peer = args.next().unwrap_or_default();
    run::heed_interrupts();
    let place = run::Place::new().unwrap();
    for case in cases::cases() {
        if !pat.is_empty() && case.name != pat {
            continue;
        }
        println!("{}", case.title);
        for p in peers::PEERS {
            let spec = case.spec(p.name, 300, 0);
            if !(p.fits)(&spec) || (!peer.is_empty() && !p.name.contains(&peer)) {
                continue;
            }
            match run::measure(&place, &spec) {
                Ok(s) if s.samples.is_empty() => println!(
                    "{:30} {:8.1} ns/msg {:9} {:.4} sleeps cpu {:.3}",
                    p.name,
                    s.seconds * 1e9 / s.messages as f64,
                    s.messages,
                    s.sleeps,
                    s.cpu_seconds
                ),
                Ok(s) => println!(
                    "{:30} p50 {:8.0} p99 {:8.0} p99.9 {:8.0} n {} sleeps {:.3}",
                    p.name,
                    s.percentile(0.5),
                    s.percentile(0.99),
                    s.percentile(0.999),
                    s.messages,
                    s.sleeps
                ),
                Err(e) => println!("{:30} {e}", p.name),
            }
        }
    }
}
