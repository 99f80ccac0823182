//! Waterway between processes, beside its peers in one process and between processes: builds and runs the harness in
//! `benches/peers`, a package of its own, so that nobody else has to build the peers.
//!
//! `cargo run --release --example compare -- --quick`; `--help` says what else there is.
//!
//! `--no-build` runs what was built before.

use std::{
    env,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    if !package.join("Cargo.toml").is_file() {
        eprintln!("{} is not here: the harness comes with the repository, not with the crate", package.display());
        return ExitCode::FAILURE;
    }
    // Beside what cargo has built this program into: target/release/examples/compare.
    let this = env::current_exe().ok();
    let target = this.as_deref().and_then(|this| this.ancestors().nth(3)).unwrap_or(Path::new("target")).join("peers");
    let (own, others): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|arg| arg == "--no-build");
    if own.is_empty() && !build(&package, &target) {
        return ExitCode::FAILURE;
    }
    let harness = target.join("release/waterway-peers");
    // In this process's place, so that an interrupt gets to whoever has to tidy up.
    let error = Command::new(&harness).args(others).exec();
    eprintln!("{} cannot be run: {error}; leave out --no-build", harness.display());
    ExitCode::FAILURE
}

/// Builds the harness with all peers, or, if they cannot be had, with those that Waterway's own tests need anyway.
fn build(package: &Path, target: &Path) -> bool {
    let cargo = || {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--release", "--manifest-path"]).arg(package.join("Cargo.toml"));
        cargo.arg("--target-dir").arg(target);
        cargo
    };
    let built = |mut cargo: Command| cargo.status().is_ok_and(|status| status.success());
    if built(cargo()) {
        return true;
    }
    eprintln!("the peers cannot be built; trying without those that must be downloaded");
    let mut few = cargo();
    few.args(["--offline", "--no-default-features"]);
    if built(few) {
        eprintln!("left out: async-channel, crossfire, flume, iceoryx2, ipc-channel, kanal, tonic");
        return true;
    }
    eprintln!("the harness cannot be built without its dependencies: connect to the network and try again");
    false
}
