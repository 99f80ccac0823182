//! The main job: five processes count the words of real files.
//!
//! ```text
//! reader ──lines──► worker, worker, worker ──counts──► gatherer
//! ```
//!
//! `cargo run --release --example pipeline [FILE...]` counts the given files, or this project's sources and documents.
//! The gatherer compares the totals with a plain pass in a single process: the exit status is 1 if they differ.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    ffi::OsString,
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    time::{Duration, Instant},
};

use waterway::Segment;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WORKERS: usize = 3;
/// A worker reports after so many lines.
const REPORT_EVERY: u64 = 2000;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let role = std::env::var("WATERWAY_PIPELINE_ROLE").unwrap_or_default();
    let done = match role.as_str() {
        "" => coordinate(arguments),
        "reader" => block_on(read_lines(&arguments)),
        "gatherer" => block_on(gather(&arguments)),
        worker => block_on(count_words(worker.to_owned())),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pipeline {role}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(job: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(job)
}

/// The segment that this run shares.
fn segment() -> Result<Segment> {
    let name = std::env::var("WATERWAY_PIPELINE_SEGMENT")?;
    Ok(Segment::options().size(64 << 20).open_or_create(&name)?)
}

/// Starts the others and waits for them.
fn coordinate(arguments: Vec<OsString>) -> Result<ExitCode> {
    let files = match arguments.is_empty() {
        true => own_files(Path::new(env!("CARGO_MANIFEST_DIR")))?,
        false => arguments.into_iter().map(PathBuf::from).collect(),
    };
    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
        return Err(format!("{} is not a file", missing.display()).into());
    }
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("WATERWAY_PIPELINE_SEGMENT", format!("pipeline-{}", std::process::id())) };
    let segment = segment()?;
    // We hold an end of each channel, so that nothing is over before everybody has come.
    let lines = segment.bytes("lines").receiver()?;
    let counts = segment.bytes("counts").sender()?;

    let start = |role: &str| -> Result<Running> {
        let child = Command::new(std::env::current_exe()?).env("WATERWAY_PIPELINE_ROLE", role).args(&files).spawn()?;
        Ok(Running { role: role.to_owned(), child })
    };
    let mut gatherer = start("gatherer")?;
    let mut workers = (1..=WORKERS).map(|number| start(&format!("worker {number}"))).collect::<Result<Vec<_>>>()?;
    let mut reader = start("reader")?;

    reader.wait()?;
    workers.iter_mut().try_for_each(Running::wait)?;
    drop((lines, counts));
    let code = gatherer.child.wait()?.code().unwrap_or(1);
    Ok(ExitCode::from(code as u8))
}

/// A process that we have started: it does not outlive us.
struct Running {
    role: String,
    child: Child,
}

impl Running {
    fn wait(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        status.success().then_some(()).ok_or_else(|| format!("the {} ended with {status}", self.role).into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Streams the lines of the files.
async fn read_lines(files: &[OsString]) -> Result<ExitCode> {
    let lines = segment()?.bytes("lines").sender()?;
    for file in files {
        let text = fs::read(file)?;
        for line in text.split(|byte| *byte == b'\n') {
            lines.send(line).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts words in the lines it gets, and reports now and then.
async fn count_words(name: String) -> Result<ExitCode> {
    let segment = segment()?;
    let lines = segment.bytes("lines").receiver()?;
    let counts = segment.bytes("counts").sender()?;
    let mut report = Report::default();
    while let Some(line) = lines.recv().await {
        report.add(&line);
        if report.lines == REPORT_EVERY {
            counts.send(std::mem::take(&mut report).encode(&name)).await?;
        }
    }
    counts.send(report.encode(&name)).await?;
    Ok(ExitCode::SUCCESS)
}

/// Adds up what the workers report, and prints it.
async fn gather(files: &[OsString]) -> Result<ExitCode> {
    let counts = segment()?.bytes("counts").receiver()?;
    let mut total = Report::default();
    let mut workers = BTreeMap::new();
    let mut reports = 0_u64;
    let mut started = None;
    let mut shown = Instant::now();
    while let Some(message) = counts.recv().await {
        started.get_or_insert_with(Instant::now);
        let (worker, report) = Report::decode(&message)?;
        *workers.entry(worker).or_insert(0_u64) += report.lines;
        total.merge(report);
        reports += 1;
        if io::stderr().is_terminal() && shown.elapsed() > Duration::from_millis(100) {
            eprint!("\r{} lines, {} words", total.lines, total.words.values().sum::<u64>());
            shown = Instant::now();
        }
    }
    let seconds = started.map_or(0.0, |started| started.elapsed().as_secs_f64());
    let expected = single_process(files)?;
    print_table(&total, &workers, reports, seconds)?;
    if total == expected {
        println!("\nThe totals equal those of a single process.");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "\nDIFFERENT from a single process, which counted {} lines and {} words.",
        expected.lines,
        expected.words.values().sum::<u64>()
    );
    Ok(ExitCode::FAILURE)
}

fn print_table(total: &Report, workers: &BTreeMap<String, u64>, reports: u64, seconds: f64) -> Result<()> {
    let mut out = io::stdout().lock();
    if io::stderr().is_terminal() {
        eprint!("\r");
    }
    let messages = total.lines + reports;
    writeln!(out, "{:<24}{:>12}", "lines", total.lines)?;
    writeln!(out, "{:<24}{:>12}", "words", total.words.values().sum::<u64>())?;
    writeln!(out, "{:<24}{:>12}", "different words", total.words.len())?;
    writeln!(out, "{:<24}{:>12}", "messages", messages)?;
    // From the first report on: the start of the processes is not the channel's doing.
    writeln!(out, "{:<24}{:>12.0}", "messages per second", messages as f64 / seconds.max(1e-9))?;
    writeln!(out)?;
    for (worker, lines) in workers {
        writeln!(out, "{:<24}{:>12}", format!("lines of {worker}"), lines)?;
    }
    writeln!(out)?;
    let mut top: Vec<_> = total.words.iter().collect();
    top.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    for (word, count) in top.into_iter().take(10) {
        writeln!(out, "{word:<24}{count:>12}")?;
    }
    Ok(())
}

/// Lines and the words in them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    lines: u64,
    words: HashMap<String, u64>,
}

impl Report {
    fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        for word in String::from_utf8_lossy(line).split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
        {
            *self.words.entry(word.to_lowercase()).or_default() += 1;
        }
    }

    fn merge(&mut self, other: Self) {
        self.lines += other.lines;
        for (word, count) in other.words {
            *self.words.entry(word).or_default() += count;
        }
    }

    /// A line with the worker's name, one with the number of lines, and one for each word.
    fn encode(self, worker: &str) -> String {
        let words: String = self.words.iter().map(|(word, count)| format!("\n{count} {word}")).collect();
        format!("{worker}\n{}{words}", self.lines)
    }

    fn decode(message: &[u8]) -> Result<(String, Self)> {
        let mut lines = std::str::from_utf8(message)?.lines();
        let worker = lines.next().ok_or("a report without a worker")?.to_owned();
        let mut report = Self { lines: lines.next().ok_or("a report without lines")?.parse()?, ..Self::default() };
        for line in lines {
            let (count, word) = line.split_once(' ').ok_or("a word without a count")?;
            report.words.insert(word.to_owned(), count.parse()?);
        }
        Ok((worker, report))
    }
}

/// The same count, the plain way.
fn single_process(files: &[OsString]) -> Result<Report> {
    let mut report = Report::default();
    for file in files {
        fs::read(file)?.split(|byte| *byte == b'\n').for_each(|line| report.add(line));
    }
    Ok(report)
}

/// This project's sources and documents.
fn own_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "examples", "tests", "benches", "docs"].map(|folder| root.join(folder)).into();
    files.extend(["README.md", "CHANGELOG.md"].map(|file| root.join(file)).into_iter().filter(|file| file.is_file()));
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ["rs", "md", "py"].iter().any(|known| ending == *known)) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
