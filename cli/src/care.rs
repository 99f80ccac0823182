//! Whether segments are well, and who tidies up: `check`, `reap`, `sweep`, `remove`.

use std::{io::Write, process::ExitCode, thread, time::Duration};

use serde_json::json;
use waterway::{
    Observer, OpenError, Segment,
    observer::{ObserveError, ParticipantView},
    segment::ChannelKind,
};

use crate::say::{Failure, say, word};

/// What counts as too full, in per cent, and whether `check` may be in the segment for a moment.
pub(crate) struct Care {
    pub(crate) warning: u8,
    pub(crate) critical: u8,
    pub(crate) only_look: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Ok,
    Warning,
    Critical,
}

/// What a check of a segment has found.
struct Checked {
    segment: String,
    findings: Vec<(Severity, String)>,
    channels: usize,
    waiting: usize,
    used: usize,
    max_size: usize,
}

impl Checked {
    fn add(&mut self, severity: Severity, what: impl Into<String>) {
        self.findings.push((severity, what.into()));
    }

    fn severity(&self) -> Severity {
        self.findings.iter().map(|(severity, _)| *severity).max().unwrap_or(Severity::Ok)
    }
}

/// How long a participant may be dead before that is a finding: others bury it within milliseconds.
const BURIAL: Duration = Duration::from_millis(500);

/// The dead that nobody has buried for a while, and everybody else.
fn participants(observer: &Observer) -> Result<(Vec<ParticipantView>, Vec<ParticipantView>), ObserveError> {
    let split = || Ok::<_, ObserveError>(observer.try_participants()?.into_iter().partition(|one| !one.alive));
    let (dead, living): (Vec<ParticipantView>, Vec<ParticipantView>) = split()?;
    if dead.is_empty() {
        return Ok((dead, living));
    }
    thread::sleep(BURIAL);
    let (mut still_dead, living) = split()?;
    still_dead.retain(|one| dead.iter().any(|before| (before.slot, before.pid) == (one.slot, one.pid)));
    Ok((still_dead, living))
}

impl Care {
    /// How bad it is that so much of so much is in use.
    fn of_full(&self, used: usize, most: usize) -> Severity {
        let is_above = |percent: u8| most > 0 && used as u128 * 100 >= most as u128 * u128::from(percent);
        match () {
            () if is_above(self.critical) => Severity::Critical,
            () if is_above(self.warning) => Severity::Warning,
            () => Severity::Ok,
        }
    }

    fn check(&self, name: &str) -> Result<Checked, Failure> {
        let mut checked =
            Checked { segment: name.into(), findings: Vec::new(), channels: 0, waiting: 0, used: 0, max_size: 0 };
        match Observer::open(name) {
            Ok(observer) => {
                if let Err(error) = self.check_observed(&observer, &mut checked) {
                    checked.add(Severity::Critical, error.to_string());
                }
            }
            Err(error @ (OpenError::NotFound { .. } | OpenError::InvalidName { .. })) => return Err(error.into()),
            Err(error) => checked.add(Severity::Critical, error.to_string()),
        }
        Ok(checked)
    }

    fn check_observed(&self, observer: &Observer, checked: &mut Checked) -> Result<(), ObserveError> {
        let may_join = self.look(observer, checked)?;
        if may_join && !self.only_look {
            match Segment::open(&checked.segment) {
                Ok(segment) => {
                    for problem in segment.check_live().problems {
                        checked.add(Severity::Critical, problem);
                    }
                }
                // It has gone while it was looked at.
                Err(OpenError::NotFound { .. }) => {}
                Err(error) => checked.add(Severity::Warning, format!("its memory was not checked: {error}")),
            }
        }
        // After that: who opens a segment that nobody uses takes what is broken out of use.
        let memory = observer.try_memory()?;
        for (index, _) in memory.sectors.iter().enumerate().filter(|(_, sector)| sector.quarantined) {
            checked.add(Severity::Critical, format!("sector {index} is quarantined"));
        }
        (checked.used, checked.max_size) = (memory.used, memory.max_size);
        let full = self.of_full(memory.used, memory.max_size);
        if full > Severity::Ok {
            checked.add(full, format!("{} of {} bytes of memory are in use", memory.used, memory.max_size));
        }
        Ok(())
    }

    /// Looks; returns whether one may be in it without ending it.
    fn look(&self, observer: &Observer, checked: &mut Checked) -> Result<bool, ObserveError> {
        let (dead, living) = participants(observer)?;
        for one in &dead {
            checked.add(
                Severity::Warning,
                format!("participant {} (process {}) has died and nobody has buried it: reap", one.slot, one.pid),
            );
        }
        for one in living.iter().filter(|one| one.stopped) {
            checked.add(Severity::Warning, format!("participant {} (process {}) is stopped", one.slot, one.pid));
        }
        if living.is_empty() && !observer.is_persistent() {
            checked.add(Severity::Warning, "nobody lives in it, and it is not to stay: sweep");
        }
        for view in observer.try_channels()? {
            checked.channels += 1;
            checked.waiting += if view.kind == ChannelKind::Channel { view.depth } else { 0 };
            if let Some(problem) = &view.problem {
                checked.add(Severity::Critical, format!("channel {:?}: {problem}", view.name));
            }
            let full = self.of_full(view.depth, view.capacity);
            if view.kind == ChannelKind::Channel && full > Severity::Ok {
                checked
                    .add(full, format!("channel {:?}: {} of {} messages wait", view.name, view.depth, view.capacity));
            }
            for group in view.groups.iter().filter(|group| group.evicted) {
                checked.add(Severity::Warning, format!("group {:?} was put out of {:?}", group.name, view.name));
            }
        }
        Ok(!living.is_empty() || observer.is_persistent())
    }

    fn check_all(&self, segment: Option<&str>) -> Result<Vec<Checked>, Failure> {
        if let Some(segment) = segment {
            return Ok(vec![self.check(segment)?]);
        }
        let mut all = Vec::new();
        for listed in Segment::list()? {
            match self.check(&listed.name) {
                // It has gone since it was listed.
                Err(Failure::Open(OpenError::NotFound { .. })) => {}
                checked => all.push(checked?),
            }
        }
        Ok(all)
    }
}

pub(crate) fn check(
    segment: Option<&str>,
    care: &Care,
    as_nagios: bool,
    as_json: bool,
    out: &mut impl Write,
) -> Result<ExitCode, Failure> {
    if as_nagios {
        return nagios(care.check_all(segment), out);
    }
    let all = care.check_all(segment)?;
    for checked in &all {
        let severity = word(checked.severity());
        if as_json {
            let findings: Vec<_> =
                checked.findings.iter().map(|(how, what)| json!({ "severity": word(how), "what": what })).collect();
            say(out, json!({ "segment": checked.segment, "status": severity, "findings": findings }))?;
        } else {
            writeln!(out, "{}  {severity}", checked.segment)?;
            for (how, what) in &checked.findings {
                writeln!(out, "  {}  {what}", word(how))?;
            }
        }
    }
    out.flush()?;
    let is_ill = all.iter().any(|checked| checked.severity() == Severity::Critical);
    if is_ill { Err(Failure::Unhealthy("not all is well".into())) } else { Ok(ExitCode::SUCCESS) }
}

/// One line, with what is measured behind a bar, and the plugin's own status.
fn nagios(all: Result<Vec<Checked>, Failure>, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let one_line = |text: &str| text.replace(['\n', '|'], " ");
    let all = match all {
        Ok(all) => all,
        Err(failure) => {
            writeln!(out, "WATERWAY UNKNOWN - {}", one_line(&failure.to_string()))?;
            out.flush()?;
            return Ok(ExitCode::from(3));
        }
    };
    let worst = all.iter().map(Checked::severity).max().unwrap_or(Severity::Ok);
    let mut findings: Vec<(Severity, String)> = all
        .iter()
        .flat_map(|checked| checked.findings.iter().map(|(how, what)| (*how, format!("{}: {what}", checked.segment))))
        .collect();
    findings.sort_by_key(|(how, _)| std::cmp::Reverse(*how));
    let channels: usize = all.iter().map(|checked| checked.channels).sum();
    let said = match findings.first() {
        None => format!("{} segments, {channels} channels", all.len()),
        Some((_, what)) if findings.len() == 1 => what.clone(),
        Some((_, what)) => format!("{what} (and {} more)", findings.len() - 1),
    };
    let measured: Vec<String> = all
        .iter()
        .map(|checked| {
            let name = &checked.segment;
            format!(
                "'{name}_used'={}B;;;0;{} '{name}_waiting'={};;;0;",
                checked.used, checked.max_size, checked.waiting
            )
        })
        .collect();
    writeln!(
        out,
        "WATERWAY {} - {} | {}",
        word(worst).to_uppercase(),
        one_line(&said),
        if measured.is_empty() { "segments=0".into() } else { measured.join(" ") }
    )?;
    out.flush()?;
    Ok(ExitCode::from(worst as u8))
}

pub(crate) fn reap(name: &str, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let observer = Observer::open(name)?;
    let before = observer.try_participants()?;
    if !observer.is_persistent() && before.iter().all(|one| !one.alive) {
        // Whoever opens it would end it.
        return Err(Failure::Refused(format!("nobody lives in {name}, and it is not to stay: sweep removes it")));
    }
    let segment = Segment::open(name)?;
    segment.bury_the_dead();
    let after = observer.try_participants()?;
    let is_in = |all: &[ParticipantView], one: &ParticipantView| {
        all.iter().any(|other| (other.slot, other.pid, other.alive) == (one.slot, one.pid, one.alive))
    };
    for one in before.iter().filter(|one| !one.alive && !is_in(&after, one)) {
        if as_json {
            say(out, json!({ "segment": name, "slot": one.slot, "pid": one.pid, "bytes": one.bytes }))?;
        } else {
            writeln!(out, "{name}  participant {} (process {}) is buried", one.slot, one.pid)?;
        }
    }
    match before.iter().filter(|one| !one.alive && is_in(&after, one)).count() {
        0 => Ok(()),
        left => Err(Failure::Refused(format!("{left} could not be buried: somebody who lives is in the way"))),
    }
}

pub(crate) fn sweep(as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    for segment in Segment::sweep()? {
        if as_json {
            say(
                out,
                json!({
                    "name": segment.name, "id": segment.id.to_string(), "size": segment.size,
                    "path": segment.path.to_string_lossy(),
                }),
            )?;
        } else {
            writeln!(out, "{}  {} bytes", segment.name, segment.size)?;
        }
    }
    Ok(())
}

pub(crate) fn remove(name: &str, by_force: bool, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if !by_force {
        match Observer::open(name) {
            Ok(observer) => {
                let living = observer.try_participants()?.iter().filter(|one| one.alive).count();
                if living > 0 {
                    return Err(Failure::Refused(format!(
                        "{living} participants live in {name}: with --force they go on with what they have, and who comes \
                         later does not find them"
                    )));
                }
            }
            Err(error @ (OpenError::NotFound { .. } | OpenError::InvalidName { .. })) => return Err(error.into()),
            // In what cannot be opened nobody can be found.
            Err(error) => {
                return Err(Failure::Refused(format!("{error}; with --force it is removed all the same")));
            }
        }
    }
    Segment::remove(name)?;
    if as_json {
        say(out, json!({ "removed": name }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fuller_than_asked_for_is_worse() {
        let care = Care { warning: 80, critical: 95, only_look: true };
        let severities = [(0, 100), (79, 100), (80, 100), (95, 100), (0, 0), (usize::MAX, usize::MAX)];
        let severities = severities.map(|(used, most)| care.of_full(used, most));
        use Severity::{Critical, Ok, Warning};
        assert_eq!(severities, [Ok, Ok, Warning, Critical, Ok, Critical]);
    }
}
