//! Waterway between processes beside its peers, in one harness: see docs/performance.md.

mod cases;
mod claims;
mod page;
mod patterns;
mod peers;
mod report;
mod results;
mod run;
mod spec;
mod stamp;
mod svg;
mod syscalls;
mod worker;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    cases::{Case, cases},
    peers::{Peer, peers},
    report::Setting,
    results::{Figure, Results},
    spec::{Kind, Spec},
};

/// How long a run takes at most in which system calls are counted.
const COUNTED_MILLIS: u64 = 100;

const HELP: &str = "\
Measures Waterway between processes beside its peers, and prints tables in Markdown.

  --cases PATTERN   cases whose name is PATTERN, or one of several with commas between; with a * at its end,
                    those whose name begins so (all)
  --peers PATTERN   the same for peers
  --runs N          interleaved runs, of which the medians are shown (5)
  --seconds N       how long each measurement takes (0.5)
  --messages N      how many messages, or round trips, each measurement has, instead of --seconds
  --quick           only what must hold, in some three minutes
  --into FILE       puts the tables into a page, between its two marks, instead of printing them
  --json FILE       writes every figure of every run
  --svg DIR         writes charts
  --list            names cases and peers
  --no-build        (to the example) runs what was built before
";

struct Options {
    cases: String,
    peers: String,
    runs: usize,
    millis: u64,
    messages: u64,
    quick: bool,
    list: bool,
    into: Option<PathBuf>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            cases: "*".to_owned(),
            peers: "*".to_owned(),
            runs: 5,
            millis: 500,
            messages: 0,
            quick: false,
            list: false,
            into: None,
            json: None,
            svg: None,
        };
        while let Some(option) = args.next() {
            let mut value = || args.next().ok_or(format!("{option} needs a value"));
            fn number<N: std::str::FromStr>(value: String) -> Result<N, String> {
                value.parse().map_err(|_| format!("{value} is no number that fits"))
            }
            match option.as_str() {
                "--cases" => options.cases = value()?,
                "--peers" => options.peers = value()?,
                "--runs" => options.runs = number::<usize>(value()?)?.max(1),
                "--seconds" => options.millis = ((number::<f64>(value()?)? * 1e3) as u64).clamp(10, 60_000),
                "--messages" => options.messages = number(value()?)?,
                "--into" => options.into = Some(value()?.into()),
                "--json" => options.json = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--quick" => options.quick = true,
                "--list" => options.list = true,
                _ => return Err(HELP.to_owned()),
            }
        }
        Ok(options)
    }

    /// Who is to be measured in a case.
    fn peers(&self, case: &Case) -> Vec<&'static Peer> {
        if !matches(&self.cases, case.name) {
            return Vec::new();
        }
        let among = |list: &[&str], peer: &Peer| list.is_empty() || list.contains(&peer.name);
        let wanted = |peer: &&Peer| {
            among(case.peers, peer)
                && (!self.quick || case.quick.is_some_and(|list| among(list, peer)))
                && matches(&self.peers, peer.name)
                && (peer.fits)(&case.spec(peer.name, self.millis, self.messages))
        };
        peers().filter(wanted).collect()
    }
}

fn matches(patterns: &str, name: &str) -> bool {
    patterns.split(',').any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    })
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == run::WORKER).is_some() {
        run::work(args).expect("a worker is started by this program, with all that it needs to know");
        return ExitCode::SUCCESS;
    }
    let options = match Options::read(args) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        cases().iter().for_each(|case| println!("case {:14} {}", case.name, case.title));
        peers().for_each(|peer| println!("peer {:20} {}", peer.name, peer.title.replace(['*', '`'], "")));
        return ExitCode::SUCCESS;
    }
    match compare(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Marks of a page between which the tables stand.
const MARKS: [&str; 2] = ["<!-- figures: begin -->\n", "<!-- figures: end -->\n"];

fn page(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// A page with other tables; `None` if it has no marks.
fn put(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some([before, MARKS[0], tables, MARKS[1], after].concat())
}

fn compare(options: &Options) -> Result<(), String> {
    if let Some(path) = &options.into {
        put(&page(path)?, "").ok_or_else(|| format!("{} has no lines {MARKS:?}", path.display()))?;
    }
    run::heed_interrupts();
    let place = run::Place::new().map_err(|error| format!("no directory in /dev/shm: {error}"))?;
    let mut setting = Setting::new(options.runs, options.millis);
    let mut results = Results { cases: cases(), figures: Vec::new() };
    let counts = syscalls::can_be_counted();
    for (index, case) in results.cases.iter().enumerate() {
        let mut figures: Vec<_> = options.peers(case).into_iter().map(|peer| Figure::new(index, peer)).collect();
        let runs = if let Kind::Idle { .. } = case.kind { 1 } else { options.runs };
        for run in 1..=runs {
            for figure in &mut figures {
                if run::interrupted() {
                    return Err("interrupted".to_owned());
                }
                let spec = case.spec(figure.peer.name, options.millis, options.messages);
                figure.add(case, run::measure(&place, &spec));
                let said = match figure.runs.last() {
                    Some(Some(run)) => report::time(run.nanos),
                    _ => figure.failures.last().cloned().unwrap_or_default(),
                };
                eprintln!("{} {run}/{runs} {}: {said}", case.name, figure.peer.name);
            }
        }
        for figure in figures.iter_mut().filter(|_| counts && case.kind.has_system_calls()) {
            if run::interrupted() {
                return Err("interrupted".to_owned());
            }
            let spec = case.spec(figure.peer.name, options.millis.min(COUNTED_MILLIS), options.messages);
            figure.add_counted(run::measure(&place, &Spec { counted: true, ..spec }));
        }
        figures.iter_mut().for_each(|figure| figure.samples.sort_unstable());
        results.figures.extend(figures);
    }
    setting.done();
    let write = |path: &PathBuf, text: &str| {
        fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
    };
    let tables = report::markdown(&results, &setting);
    match &options.into {
        Some(path) => write(path, &put(&page(path)?, &tables).ok_or("the page has lost its marks")?)?,
        None => print!("{tables}"),
    }
    if let Some(path) = &options.json {
        write(path, &report::json(&results, &setting))?;
    }
    if let Some(dir) = &options.svg {
        fs::create_dir_all(dir).map_err(|error| format!("{} cannot be made: {error}", dir.display()))?;
        if let Some(chart) = svg::throughput(&results) {
            write(&dir.join("throughput.svg"), &chart)?;
        }
        for (index, case) in results.cases.iter().enumerate() {
            if let Some(chart) = svg::round_trips(&results, index) {
                write(&dir.join(format!("{}.svg", case.name)), &chart)?;
            }
        }
    }
    Ok(())
}
