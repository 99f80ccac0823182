//! `top`: what goes on in all segments, live, by observers.
//!
//! A look is taken twice a second, and drawn, as is every key. What was seen (`seen`) is apart from how it is shown (`screen`), so that
//! a screen can be drawn without a terminal.

mod screen;
mod seen;

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};

use crate::{
    say::Failure,
    top::{screen::Paint, seen::Seen},
};

/// By what the channels are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Name,
    Sent,
    Received,
    Depth,
    Unacknowledged,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Name => Self::Sent,
            Self::Sent => Self::Received,
            Self::Received => Self::Depth,
            Self::Depth => Self::Unacknowledged,
            Self::Unacknowledged => Self::Name,
        }
    }
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    All,
    Channel,
    Payloads,
    Help,
}

/// What somebody is doing in front of the screen.
struct Top {
    seen: Seen,
    page: Page,
    sort: Sort,
    is_reverse: bool,
    is_frozen: bool,
    filter: String,
    is_typing: bool,
    /// The name of the segment and of the channel.
    selected: Option<(String, String)>,
    paint: Paint,
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Draw,
    Quit,
}

impl Top {
    fn new(filter: String, paint: Paint) -> Self {
        Self {
            seen: Seen::default(),
            page: Page::All,
            sort: Sort::Name,
            is_reverse: false,
            is_frozen: false,
            filter,
            is_typing: false,
            selected: None,
            paint,
        }
    }

    /// Takes a look, unless what is seen is to stay.
    fn look(&mut self) -> Result<(), Failure> {
        if !self.is_frozen {
            self.seen.look()?;
            self.look_at_payloads();
        }
        Ok(())
    }

    fn look_at_payloads(&mut self) {
        let selected = self.selection().map(|(segment, channel)| (segment.to_owned(), channel.to_owned()));
        match selected.filter(|_| self.page == Page::Payloads) {
            Some((segment, channel)) => self.seen.peek(&segment, &channel),
            None => self.seen.peeked = Ok(Vec::new()),
        }
    }

    /// The rows that are shown, in their order: indices of a segment, and of a channel there.
    fn rows(&self) -> Vec<(usize, usize)> {
        let mut rows = Vec::new();
        for (index, segment) in self.seen.segments.iter().enumerate() {
            let is_shown = |name: &str| format!("{}/{name}", segment.name).contains(&self.filter);
            let channels = segment.views.iter().enumerate().filter(|(_, view)| is_shown(&view.name));
            rows.extend(channels.map(|(channel, _)| (index, channel)));
        }
        // Of equal ones the names decide, by which they come in order.
        rows.sort_by(|a, b| {
            let figure = |(segment, channel): &(usize, usize)| {
                let segment = &self.seen.segments[*segment];
                let (view, rates) = (&segment.views[*channel], segment.rates(*channel));
                match self.sort {
                    Sort::Name => 0.0,
                    Sort::Sent => rates.0,
                    Sort::Received => rates.1,
                    Sort::Depth => view.depth as f64,
                    Sort::Unacknowledged => view.unacknowledged as f64,
                }
            };
            figure(b).total_cmp(&figure(a))
        });
        if self.is_reverse {
            rows.reverse();
        }
        rows
    }

    /// Which row is selected: the first one if that one has gone.
    fn row(&self, rows: &[(usize, usize)]) -> usize {
        let is_it = |(segment, channel): &(usize, usize)| {
            let segment = &self.seen.segments[*segment];
            self.selected.as_ref().is_some_and(|it| (&it.0, &it.1) == (&segment.name, &segment.views[*channel].name))
        };
        rows.iter().position(is_it).unwrap_or(0)
    }

    /// The segment and the channel that are selected.
    fn selection(&self) -> Option<(&str, &str)> {
        let rows = self.rows();
        let (segment, channel) = *rows.get(self.row(&rows))?;
        let segment = &self.seen.segments[segment];
        Some((&segment.name, &segment.views[channel].name))
    }

    fn select(&mut self, step: isize) {
        let rows = self.rows();
        let row = self.row(&rows).saturating_add_signed(step).min(rows.len().saturating_sub(1));
        self.selected = rows.get(row).map(|(segment, channel)| {
            let segment = &self.seen.segments[*segment];
            (segment.name.clone(), segment.views[*channel].name.clone())
        });
    }

    fn key(&mut self, key: KeyEvent) -> Then {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Then::Quit;
        }
        if self.is_typing {
            match key.code {
                KeyCode::Enter => self.is_typing = false,
                KeyCode::Esc => (self.is_typing, self.filter) = (false, String::new()),
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(letter) => self.filter.push(letter),
                _ => {}
            }
            return Then::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return Then::Quit,
            KeyCode::Esc if self.page == Page::All && self.filter.is_empty() => return Then::Quit,
            KeyCode::Esc if self.page == Page::All => self.filter.clear(),
            KeyCode::Esc | KeyCode::Backspace => self.page = Page::All,
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::PageUp => self.select(-10),
            KeyCode::PageDown => self.select(10),
            KeyCode::Home => self.select(isize::MIN),
            KeyCode::End => self.select(isize::MAX),
            KeyCode::Enter if self.selection().is_some() => {
                // What is selected now stays it, whatever comes before it.
                self.select(0);
                self.page = if self.page == Page::Channel { Page::All } else { Page::Channel };
            }
            KeyCode::Char('p') if self.selection().is_some() => {
                self.select(0);
                self.page = if self.page == Page::Payloads { Page::All } else { Page::Payloads };
                self.look_at_payloads();
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.is_reverse = !self.is_reverse,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char(' ' | 'f') => self.is_frozen = !self.is_frozen,
            KeyCode::Char('?' | 'h') => self.page = if self.page == Page::Help { Page::All } else { Page::Help },
            _ => {}
        }
        Then::Draw
    }
}

/// The terminal as it was, when this is dropped.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

pub(crate) fn top(interval: Duration, filter: &str) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::Usage("top needs a terminal: stats tells the same to others, with --interval".into()));
    }
    let mut top = Top::new(filter.to_owned(), Paint::of_environment());
    // What can be wrong is said before the screen is taken.
    top.look()?;
    let mut terminal = ratatui::try_init()?;
    let _restored = Restored;
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| screen::draw(&top, frame))?;
        if event::poll(next.saturating_duration_since(Instant::now()))? {
            match event::read()? {
                Event::Key(key) if key.is_press() && top.key(key) == Then::Quit => return Ok(()),
                _ => {}
            }
        }
        if Instant::now() >= next {
            top.look()?;
            next = Instant::now() + interval;
        }
    }
}

#[cfg(test)]
mod tests;
