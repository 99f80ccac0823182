//! `doctor`: what this machine, and this process's place on it, lack for segments; each finding with its remedy.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
    process::{Resource, getrlimit, getuid},
    system::uname,
    thread::{
        ClockId,
        futex::{WaitvFlags, waitv},
        membarrier_query,
    },
};
use serde_json::json;
use waterway::Segment;

use crate::say::{Failure, bytes, say, word};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Ok,
    Note,
    Warning,
    Critical,
}

/// What was looked at, how it is, and what to do about it.
struct Finding {
    about: &'static str,
    grade: Grade,
    what: String,
    remedy: &'static str,
}

impl Finding {
    fn new(about: &'static str, grade: Grade, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { about, grade, what: what.into(), remedy }
    }

    fn ok(about: &'static str, what: impl Into<String>) -> Self {
        Self::new(about, Grade::Ok, what, "")
    }
}

/// What a new segment takes unless told otherwise, and what it may grow to.
const SEGMENT: u64 = 16 << 20;
const GROWN: u64 = 1 << 30;

pub(crate) fn doctor(as_json: bool, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let directory = directory();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut findings = vec![kernel(), deaths(), barriers(), seccomp(&read("/proc/self/status"))];
    findings.extend(file_system(&directory, &mounts));
    findings.push(huge_pages(&read("/sys/kernel/mm/transparent_hugepage/shmem_enabled")));
    findings.extend(limits());
    findings.push(remove_ipc(&directory));
    findings.push(memory_group());
    findings.push(namespaces(&read("/proc/self/status")));
    findings.push(trial());
    for Finding { about, grade, what, remedy } in &findings {
        if as_json {
            say(out, json!({ "about": about, "grade": word(grade), "what": what, "remedy": remedy }))?;
        } else {
            writeln!(out, "{:<8}  {about}: {what}", word(grade))?;
            if !remedy.is_empty() {
                writeln!(out, "          {remedy}")?;
            }
        }
    }
    out.flush()?;
    if findings.iter().any(|finding| finding.grade == Grade::Critical) {
        return Err(Failure::Unhealthy("segments cannot be used here as things are".into()));
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value behind `name:` in a file of lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Where segments are unless told otherwise.
fn directory() -> PathBuf {
    match std::env::var_os("WATERWAY_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => directory.into(),
        None => format!("/dev/shm/waterway-{}", getuid().as_raw()).into(),
    }
}

fn kernel() -> Finding {
    let uname = uname();
    let what = format!("Linux {} on {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy());
    Finding::ok("kernel", what)
}

fn deaths() -> Finding {
    // Of nothing: a kernel that knows the call says that this makes no sense.
    match waitv(&[], WaitvFlags::empty(), None, ClockId::Monotonic) {
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => Finding::new(
            "futex_waitv",
            Grade::Warning,
            "is refused: a death is noticed by whoever waits, within 250 ms, and not at once",
            "use Linux 5.16 or later, and a seccomp profile that allows futex_waitv (docker 23 or later has one)",
        ),
        _ => Finding::ok("futex_waitv", "is there: deaths are pushed"),
    }
}

fn barriers() -> Finding {
    if membarrier_query().is_empty() {
        return Finding::new(
            "membarrier",
            Grade::Note,
            "is refused: what seldom looks at counters of others is a little dearer",
            "allow membarrier in the seccomp profile",
        );
    }
    Finding::ok("membarrier", "is there")
}

fn seccomp(status: &str) -> Finding {
    match field(status, "Seccomp") {
        Some("2") => Finding::new(
            "seccomp",
            Grade::Note,
            "this process is under a filter",
            "if something is refused that should not be, look there first",
        ),
        _ => Finding::ok("seccomp", "no filter"),
    }
}

/// The type of the file system of a directory, and the options of its mount: the last one that begins like it.
fn mount_of(directory: &Path, mounts: &str) -> Option<(String, String)> {
    let mut best: Option<(usize, String, String)> = None;
    for line in mounts.lines() {
        let (before, behind) = line.split_once(" - ")?;
        let (before, behind): (Vec<&str>, Vec<&str>) = (before.split(' ').collect(), behind.split(' ').collect());
        let (Some(point), Some(options), Some(kind)) = (before.get(4), before.get(5), behind.first()) else { continue };
        let point = point.replace("\\040", " ");
        let all = format!("{options},{}", behind.get(2).unwrap_or(&""));
        if directory.starts_with(&point) && best.as_ref().is_none_or(|best| best.0 <= point.len()) {
            best = Some((point.len(), (*kind).to_owned(), all));
        }
    }
    best.map(|(_, kind, options)| (kind, options))
}

fn file_system(directory: &Path, mounts: &str) -> Vec<Finding> {
    // It is made when it is needed: until then its parents tell.
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
    let Ok(there) = there.canonicalize() else {
        return vec![Finding::new("directory", Grade::Critical, "it is not to be found", "set WATERWAY_DIR")];
    };
    let (kind, options) = mount_of(&there, mounts).unwrap_or_else(|| ("unknown".into(), String::new()));
    let place = format!("{} ({kind}: {options})", directory.display());
    let mut findings = vec![match kind.as_str() {
        "tmpfs" | "ramfs" | "hugetlbfs" => Finding::ok("directory", place),
        _ => Finding::new(
            "directory",
            Grade::Warning,
            format!("{place} is not in memory: the kernel writes messages to a disk"),
            "set WATERWAY_DIR to a directory of a tmpfs, such as /dev/shm",
        ),
    }];
    let Ok(facts) = statvfs(&there) else { return findings };
    let (all, free) = (facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize);
    let room = format!("{} free of {}", bytes(free as f64), bytes(all as f64));
    let larger = "mount it with a larger size (`mount -o remount,size=2G /dev/shm`; docker: --shm-size; Kubernetes: an \
                  emptyDir with medium Memory), or set WATERWAY_DIR";
    findings.push(match free {
        free if free < SEGMENT => {
            Finding::new("room", Grade::Critical, format!("{room}: too little for a segment of 16 MiB"), larger)
        }
        free if free < GROWN => {
            Finding::new("room", Grade::Note, format!("{room}: less than the 1 GiB that a segment may grow to"), larger)
        }
        _ => Finding::ok("room", room),
    });
    if facts.f_flag.contains(StatVfsMountFlags::RDONLY) {
        findings.push(Finding::new(
            "mount",
            Grade::Critical,
            "it is mounted read-only",
            "remount it, or set WATERWAY_DIR",
        ));
    }
    if facts.f_files > 0 && facts.f_favail == 0 {
        findings.push(Finding::new(
            "inodes",
            Grade::Critical,
            "none is free",
            "remove files, or mount it with nr_inodes",
        ));
    }
    findings
}

fn huge_pages(enabled: &str) -> Finding {
    let chosen = enabled.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    match chosen {
        Some("never" | "deny") => Finding::new(
            "huge pages",
            Grade::Note,
            "shared memory has none: SegmentOptions::huge_pages changes nothing",
            "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled",
        ),
        Some(chosen) => Finding::ok("huge pages", format!("for shared memory: {chosen}")),
        None => Finding::ok("huge pages", "the kernel has none for shared memory"),
    }
}

fn limits() -> Vec<Finding> {
    [
        (Resource::Nofile, "open files", 256, "each segment has a descriptor and its bridge another", "ulimit -n 1024"),
        (Resource::Fsize, "file size", GROWN, "a segment may grow to 1 GiB", "ulimit -f unlimited"),
        (Resource::As, "address space", 4 * GROWN, "each segment maps what it may grow to", "ulimit -v unlimited"),
        (Resource::Nproc, "processes", 64, "each participant has a thread", "ulimit -u 1024"),
    ]
    .into_iter()
    .map(|(resource, name, least, why, remedy)| match getrlimit(resource).current {
        Some(limit) if limit < least => {
            Finding::new("limits", Grade::Warning, format!("{name}: {limit}; {why}"), remedy)
        }
        Some(limit) => Finding::ok("limits", format!("{name}: {limit}")),
        None => Finding::ok("limits", format!("{name}: unlimited")),
    })
    .collect()
}

/// What `logind.conf` and the files beside it say of RemoveIPC, the last one last.
fn says_remove(texts: impl Iterator<Item = String>) -> bool {
    let mut removes = true;
    for text in texts {
        for line in text.lines() {
            if let Some(value) =
                line.trim().strip_prefix("RemoveIPC").and_then(|rest| rest.trim_start().strip_prefix('='))
            {
                removes = !matches!(value.trim().to_lowercase().as_str(), "no" | "false" | "off" | "0");
            }
        }
    }
    removes
}

fn remove_ipc(directory: &Path) -> Finding {
    let about = "RemoveIPC";
    let user = getuid().as_raw();
    if !directory.starts_with("/dev/shm") || !Path::new("/run/systemd/seats").exists() {
        return Finding::ok(about, "logind looks after nothing here");
    }
    if user < 1000 {
        return Finding::ok(about, "logind leaves the files of users below 1000 alone");
    }
    let mut files: Vec<PathBuf> = vec!["/etc/systemd/logind.conf".into()];
    for more in ["/usr/lib/systemd/logind.conf.d", "/run/systemd/logind.conf.d", "/etc/systemd/logind.conf.d"] {
        let mut found: Vec<PathBuf> = fs::read_dir(more).into_iter().flatten().flatten().map(|it| it.path()).collect();
        found.sort();
        files.append(&mut found);
    }
    if says_remove(files.into_iter().map(read)) {
        return Finding::new(
            about,
            Grade::Warning,
            "logind removes all that this user has in /dev/shm when the user's last session ends, under whoever works on",
            "RemoveIPC=no in /etc/systemd/logind.conf; or run services as a system user; or loginctl enable-linger",
        );
    }
    Finding::ok(about, "is off")
}

/// The least of the limits of a control group and of those above it.
fn memory_limit(groups: &str, root: &Path) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = root.join(group.trim_start_matches('/'));
    let limits = path
        .ancestors()
        .take_while(|path| path.starts_with(root))
        .flat_map(|path| ["memory.max", "memory.high"].map(|name| read(path.join(name)).trim().parse::<u64>().ok()));
    limits.flatten().min()
}

fn memory_group() -> Finding {
    let (groups, root) = (read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    match memory_limit(&groups, root) {
        Some(limit) if limit < 2 * GROWN => Finding::new(
            "cgroup",
            Grade::Note,
            format!("its memory is limited to {}, and segments count", bytes(limit as f64)),
            "a segment takes its size at once and grows up to its max_size: choose them with that in mind",
        ),
        Some(limit) => Finding::ok("cgroup", format!("its memory is limited to {}", bytes(limit as f64))),
        None => Finding::ok("cgroup", "its memory is not limited"),
    }
}

fn namespaces(status: &str) -> Finding {
    if status.is_empty() {
        return Finding::new(
            "namespaces",
            Grade::Warning,
            "/proc is not there: nobody can say who the participants are",
            "mount /proc",
        );
    }
    match field(status, "NSpid").map(|pids| pids.split_whitespace().count()) {
        Some(depth) if depth > 1 => Finding::ok("namespaces", format!("{depth} of processes, one within the other")),
        _ => Finding::ok("namespaces", "one of processes; those in others have numbers of their own"),
    }
}

/// Makes a segment, and sends a message through it.
fn trial() -> Finding {
    let about = "a trial";
    let sent = || -> Result<bool, waterway::OpenError> {
        let segment = Segment::options().size(1 << 20).create(&format!("doctor-{}", std::process::id()))?;
        let (sender, receiver) = segment.bytes("trial").open()?;
        let is_whole = sender.try_send("message").is_ok() && receiver.try_recv().is_ok_and(|it| *it == *b"message");
        Ok(is_whole && segment.check_live().is_clean())
    };
    match sent() {
        Ok(true) => Finding::ok(about, "a segment was made, and a message went through it"),
        Ok(false) => Finding::new(about, Grade::Critical, "a message did not come through", "please report this"),
        Err(error) => Finding::new(about, Grade::Critical, error.to_string(), "the message says what to do"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        let mounts = "1 0 0:1 / / rw,relatime - overlay overlay rw\n\
                      2 1 0:2 / /dev rw - tmpfs tmpfs rw,size=64k\n\
                      3 2 0:3 / /dev/shm rw,nosuid - tmpfs shm rw,size=65536k\n";
        let (kind, options) = mount_of(Path::new("/dev/shm/waterway-0"), mounts).unwrap();
        assert_eq!((kind.as_str(), options.as_str()), ("tmpfs", "rw,nosuid,rw,size=65536k"));
        assert_eq!(mount_of(Path::new("/tmp"), mounts).unwrap().0, "overlay");
        assert_eq!(seccomp("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n").grade, Grade::Note);
        assert_eq!(seccomp("Name:\tx\nSeccomp:\t0\n").grade, Grade::Ok);
        assert_eq!(huge_pages("always within_size advise [never] deny force").grade, Grade::Note);
        assert_eq!(huge_pages("always within_size [advise] never deny force").grade, Grade::Ok);
        assert_eq!(namespaces("").grade, Grade::Warning);
        assert!(namespaces("NSpid:\t123\t7\n").what.starts_with("2 of processes"));
    }

    #[test]
    fn the_last_word_on_remove_ipc_counts() {
        let says = |texts: &[&str]| says_remove(texts.iter().map(|text| (*text).to_owned()));
        assert!(says(&["#RemoveIPC=no\n"]) && says(&["RemoveIPC=no", "RemoveIPC = yes"]));
        assert!(!says(&["[Login]\nRemoveIPC=no\n"]) && !says(&["RemoveIPC=yes", " RemoveIPC= off "]));
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("waterway-test-doctor-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/memory.max"), "1000\n").unwrap();
        fs::write(root.join("a/b/memory.max"), "max\n").unwrap();
        fs::write(root.join("a/b/memory.high"), "2000\n").unwrap();
        let limits =
            [memory_limit("0::/a/b\n", &root), memory_limit("0::/\n", &root), memory_limit("1:cpu:/\n", &root)];
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(limits, [Some(1000), None, None]);
    }
}
