//! A child that works by itself at what the parent has prepared: killed, stopped, or killed and then buried by one who is killed as
//! well, in every place that it passes.

use super::*;

/// One round. It is told where the child is to end and how, and where the reaper dies that comes then, if one does.
type Round<'a> = dyn Fn(&str, &str, Option<&str>) -> (End, End) + 'a;

impl Scene {
    /// A child works that kills or stops itself somewhere; then perhaps comes a reaper, which is killed as well. Also says
    /// what happened.
    pub(super) fn work(&self, role: &str, at: &str, by: &str, reaper_at: Option<&str>) -> ((End, End), String) {
        let mut child = self.start(role, at, by);
        *self.rounds.borrow_mut() += 1;
        let status = match by {
            "stop" => within(self.watch(child, by, ())),
            _ => {
                eventually("the child ends", || child.ended().is_some());
                child.finish()
            }
        };
        self.then_reap(self.ended(status, at, by), at, reaper_at)
    }

    /// The same once the child has ended.
    pub(super) fn then_reap(&self, end: End, at: &str, reaper_at: Option<&str>) -> ((End, End), String) {
        let at = format!("{at} ({end:?}), then {reaper_at:?}");
        let reaper =
            reaper_at.map_or(End::Done, |reaper_at| self.end(self.start("visit", reaper_at, "kill").finish(), &at));
        ((end, reaper), at)
    }

    fn places_of(&self, round: &Round<'_>) -> Places {
        assert!(matches!(round("end", "kill", None).0, End::Done));
        self.places()
    }

    /// Kills the child everywhere; more often in places of `core`, which are passed often, and where it matters when.
    pub(super) fn kill_everywhere(&self, core: &[&str], round: &Round<'_>) {
        let started = Instant::now();
        let places = self.places_of(round);
        let points: u64 = places.values().sum();
        let (mut kills, mut killed) = (0, BTreeSet::new());
        let mut run = |at: &str| {
            if let (End::At(place), _) = round(at, "kill", None) {
                kills += 1;
                killed.insert(place);
            }
        };
        let is_core = |place: &str| core.iter().any(|name| place.contains(name));
        assert!(places.keys().any(|place| is_core(place)), "{places:?}");
        for (place, count) in &places {
            let step = (count / if is_core(place) { 12 } else { 3 }).max(1);
            (1..=*count).step_by(step as usize).for_each(|time| run(&format!("{place}#{time}")));
        }
        (0..SPREAD).for_each(|step| run(&(1 + step * points / SPREAD).to_string()));
        println!("{points} points: killed {kills} times, in {:?}", started.elapsed());
        let again = |place: &str, _| round(&format!("{place}#1"), "kill", None).0;
        insist("killed", of_the_pattern(&places), &mut killed, again);
    }

    /// Stops the child everywhere.
    pub(super) fn stop_everywhere(&self, round: &Round<'_>) {
        let started = Instant::now();
        let places = self.places_of(round);
        let mut stopped = BTreeSet::new();
        for (place, count) in &places {
            for time in times(*count) {
                if let (End::At(place), _) = round(&format!("{place}#{time}"), "stop", None) {
                    stopped.insert(place);
                }
            }
        }
        let again = |place: &str, _| round(&format!("{place}#1"), "stop", None).0;
        insist("stopped", of_the_pattern(&places), &mut stopped, again);
        println!("in {:?}", started.elapsed());
    }

    /// Kills the child in every place that matters, and whoever buries it in every place of that.
    pub(super) fn kill_reapers(&self, matters: impl Fn(&str) -> bool, round: &Round<'_>) {
        let (passed, mut killed) = self.kill_reapers_by_chance(matters, round);
        insist_on_reapers(&passed, &mut killed, |grave, at| round(grave, "kill", Some(at)).1);
    }

    /// The same where it is chance what a reaper finds to do. Says what reapers passed, and in which of those places they were killed.
    pub(super) fn kill_reapers_by_chance(
        &self,
        matters: impl Fn(&str) -> bool,
        round: &Round<'_>,
    ) -> (Graves, BTreeSet<String>) {
        let started = Instant::now();
        let victim = self.places_of(round);
        let mut passed = Graves::new();
        for (place, count) in victim.iter().filter(|(place, _)| matters(place)) {
            let grave = format!("{place}#{}", count.div_ceil(2));
            if let (End::At(_), End::Done) = round(&grave, "kill", Some("end")) {
                note_grave(&mut passed, &grave, self.places());
            }
        }
        let (mut kills, mut killed) = (0, BTreeSet::new());
        for (place, graves) in &passed {
            let (grave, count) = &graves[0];
            for time in (1..=*count).step_by((count / 8).max(1) as usize) {
                // The watchdog of the parent may have been quicker.
                for _ in 0..10 {
                    if let (_, End::At(place)) = round(grave, "kill", Some(&format!("{place}#{time}"))) {
                        kills += 1;
                        killed.insert(place);
                        break;
                    }
                    if killed.contains(place) {
                        break;
                    }
                }
            }
        }
        println!("reapers were killed {kills} times, in {:?}", started.elapsed());
        (passed, killed)
    }
}

/// Which lines of the allocator a script passes depends on what the rounds before have left in magazines: those are for the scripts
/// about memory and of a life to insist on.
fn of_the_pattern(places: &Places) -> impl ExactSizeIterator<Item = &String> {
    let those: Vec<&String> = places.keys().filter(|place| !place.contains("src/alloc/")).collect();
    those.into_iter()
}
