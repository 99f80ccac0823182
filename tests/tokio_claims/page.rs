//! `docs/tokio_claims.md` is what is run.

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use crate::{
    claims::CLAIMS,
    local::{DIFFERENCES, LOCAL},
};

const HEAD: &str = "\
# tokio's mpsc, claim by claim

What `tokio::sync::mpsc` promises, and its own tests (`tests/sync_mpsc.rs` and `tests/sync_mpsc_weak.rs` of tokio 1.54) look after;
where that holds here, and where it does not. This page is written by `tests/tokio_claims`, which also compares it with what is run:
`WATERWAY_UPDATE_CLAIMS=1 cargo test --test tokio_claims page`.

";

fn page() -> String {
    let mut page = HEAD.to_owned();
    writeln!(page, "## The same, in one process and between two\n").unwrap();
    writeln!(
        page,
        "Each is a script that is played twice: in one process, and with the receiving side in another one.\n"
    )
    .unwrap();
    let head = "|---|---|---|\n";
    write!(page, "| tokio's claim | test | tokio's tests |\n{head}").unwrap();
    for claim in CLAIMS {
        assert!(claim.script.is_some_and(|script| script.contains("s: ")), "{}", claim.test);
        writeln!(page, "| {} | `{}` | {} |", claim.words, claim.test, names(claim.theirs)).unwrap();
    }
    writeln!(page, "\n## The same, of one process\n\nTypes, texts, panics and wakers.\n").unwrap();
    write!(page, "| tokio's claim | test | tokio's tests |\n{head}").unwrap();
    for claim in LOCAL {
        writeln!(page, "| {} | `{}` | {} |", claim.words, claim.test, names(claim.theirs)).unwrap();
    }
    writeln!(page, "\n## Not the same\n").unwrap();
    writeln!(page, "| tokio | here | test | tokio's tests |\n|---|---|---|---|").unwrap();
    for row in DIFFERENCES {
        let test = if row.test.is_empty() { String::new() } else { format!("`{}`", row.test) };
        writeln!(page, "| {} | {} | {test} | {} |", row.words, row.here, names(row.theirs)).unwrap();
    }
    page
}

fn names(theirs: &str) -> String {
    theirs.split_whitespace().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_lists_what_is_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("docs/tokio_claims.md");
    let page = page();
    if std::env::var_os("WATERWAY_UPDATE_CLAIMS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let listed = fs::read_to_string(&path).unwrap_or_default();
    for (number, (listed, run)) in listed.lines().zip(page.lines()).enumerate() {
        assert_eq!(listed, run, "line {}: to write the page anew, set WATERWAY_UPDATE_CLAIMS=1", number + 1);
    }
    assert_eq!(listed.len(), page.len(), "to write the page anew, set WATERWAY_UPDATE_CLAIMS=1");
}

/// The harness is asked what it has, so that a row whose test was left out, renamed or not compiled is seen.
#[test]
fn every_row_is_a_test_that_is_run() {
    let listing = std::process::Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    let run: BTreeSet<&str> = listing.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let only_with_tokio = ["a_busy_channel_lets_others_run", "blocking_in_a_task_panics"];
    let is_there = |test: &str| cfg!(feature = "tokio") || !only_with_tokio.contains(&test);
    let mut rows = BTreeSet::new();
    for claim in CLAIMS.iter().filter(|claim| is_there(claim.test)) {
        rows.extend(["in_process", "between_processes"].map(|how| format!("claims::{}::{how}", claim.test)));
    }
    rows.extend(LOCAL.iter().filter(|claim| is_there(claim.test)).map(|claim| format!("local::{}", claim.test)));
    for row in DIFFERENCES.iter().filter(|row| !row.test.is_empty()) {
        match row.test.split_once(": ") {
            Some((file, function)) => {
                let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
                assert!(source.contains(&format!("#[test]\nfn {function}()")), "{}", row.test);
            }
            None if CLAIMS.iter().any(|claim| claim.test == row.test) => {}
            None => drop(rows.insert(format!("local::{}", row.test))),
        }
    }
    let run: BTreeSet<String> = run
        .into_iter()
        .filter(|test| test.starts_with("claims::") || test.starts_with("local::"))
        .map(str::to_owned)
        .collect();
    assert_eq!(run, rows, "tests on the left, rows of the page on the right");
}
