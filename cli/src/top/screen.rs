//! How it is shown: lines of text, that say all without colour, and in 80 columns and 24 lines.

use std::{collections::VecDeque, env};

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};
use waterway::{
    observer::{ChannelView, MemoryView, ParticipantView},
    segment::ChannelKind,
};

use crate::{
    say::{bytes, short, word},
    top::{Page, Sort, Top, seen::SeenSegment},
};

/// With what it is drawn.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    pub(super) has_colour: bool,
    /// Whether there are bars and blocks to draw with.
    pub(super) has_blocks: bool,
}

impl Paint {
    pub(super) fn of_environment() -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| env::var(name).ok().filter(|it| !it.is_empty()));
        let locale = locale.unwrap_or_default().to_lowercase();
        Self {
            has_colour: !is_set("NO_COLOR") && env::var("TERM").is_ok_and(|term| term != "dumb"),
            has_blocks: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    fn colour(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// How full something is: from nothing to all of the width.
    fn bar(self, part: f64, width: usize) -> Span<'static> {
        let full = (part.clamp(0.0, 1.0) * width as f64).round() as usize;
        let (mark, rest) = if self.has_blocks { ("█", "░") } else { ("#", "-") };
        let colour = match part {
            _ if part >= 0.95 => Color::Red,
            _ if part >= 0.8 => Color::Yellow,
            _ => Color::Green,
        };
        Span::styled(mark.repeat(full) + &rest.repeat(width - full), self.colour(colour))
    }

    /// The last of some rates, each as high as its share of the highest.
    fn spark(self, rates: &VecDeque<f64>, width: usize) -> Span<'static> {
        let levels: Vec<char> = if self.has_blocks { "▁▂▃▄▅▆▇█" } else { "_.-:=+*#" }.chars().collect();
        let last = rates.len().saturating_sub(width);
        let highest = rates.iter().skip(last).copied().fold(0.0, f64::max);
        let level = |rate: &f64| match *rate / highest * levels.len() as f64 {
            level if level > 0.0 => levels[(level.ceil() as usize).clamp(1, levels.len()) - 1],
            _ => ' ',
        };
        let text: String = rates.iter().skip(last).map(level).collect();
        Span::styled(format!("{text:>width$}"), self.colour(Color::Cyan))
    }

    /// What a sector's memory is used for.
    fn map(self, parts: [(usize, [&'static str; 2], Color); 4], width: usize) -> Vec<Span<'static>> {
        let all: usize = parts.iter().map(|(bytes, _, _)| bytes).sum();
        let (mut done, mut drawn, mut spans) = (0, 0, Vec::new());
        for (bytes, marks, colour) in parts {
            done += bytes;
            let until = (done as f64 / all.max(1) as f64 * width as f64).round() as usize;
            // What is there at all is seen.
            let until = until.max(drawn + usize::from(bytes > 0 && drawn < width)).min(width);
            spans.push(Span::styled(marks[usize::from(!self.has_blocks)].repeat(until - drawn), self.colour(colour)));
            drawn = until;
        }
        spans
    }
}

/// A text in so many columns: cut, or filled.
fn fit(text: &str, width: usize) -> String {
    let shown: String = text.chars().map(|letter| if letter.is_control() { '.' } else { letter }).collect();
    match shown.chars().count() {
        many if many <= width => format!("{shown:<width$}"),
        _ => shown.chars().take(width.saturating_sub(1)).chain(['~']).take(width).collect(),
    }
}

fn heading(text: String) -> Line<'static> {
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
}

/// A window on so many lines of more, around one of them.
fn window(lines: usize, around: usize, height: usize) -> std::ops::Range<usize> {
    let from = around.saturating_sub(height / 2).min(lines.saturating_sub(height));
    from..(from + height).min(lines)
}

fn kind(view: &ChannelView) -> &'static str {
    match view.kind {
        ChannelKind::Channel => "chan",
        ChannelKind::Broadcast => "bcast",
        ChannelKind::Group => "group",
        ChannelKind::Routed => "route",
        ChannelKind::Semaphore => "sema",
        ChannelKind::Notify => "notif",
        ChannelKind::Watch => "watch",
        _ => "?",
    }
}

/// How full a channel is; a permit that somebody has fills a semaphore.
fn fullness(view: &ChannelView) -> (usize, f64) {
    let many = if view.kind == ChannelKind::Semaphore { view.reserved } else { view.depth };
    (many, many as f64 / view.capacity.max(1) as f64)
}

/// Lines of the two panes below, with their heading.
const BELOW: usize = 7;
/// The most segments that are shown at once.
const SEGMENTS: usize = 4;

pub(super) fn draw(top: &Top, frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let room = height.saturating_sub(2);
    let mut lines = match top.page {
        Page::All => all(top, width, room),
        Page::Channel => channel(top, width, room),
        Page::Payloads => payloads(top, width, room),
        Page::Help => help(),
    };
    lines.truncate(room);
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    let channels: usize = top.seen.segments.iter().map(|segment| segment.views.len()).sum();
    let mut title = format!(" waterway top  {} segments  {channels} channels", top.seen.segments.len());
    if top.is_typing || !top.filter.is_empty() {
        title += &format!("  /{}{}", top.filter, if top.is_typing { "_" } else { "" });
    }
    if top.is_frozen {
        title += "  FROZEN";
    }
    frame.render_widget(Line::styled(fit(&title, width), reversed), Rect { height: area.height.min(1), ..area });
    let below = Rect { y: area.y + area.height.min(1), height: room as u16, ..area };
    frame.render_widget(Paragraph::new(lines), below);
    if height > 1 {
        let keys = " ? help  enter look into  p payloads  s sort  / filter  space freeze  q quit";
        let foot = Rect { y: area.y + area.height - 1, height: 1, ..area };
        frame.render_widget(Line::styled(fit(keys, width), reversed), foot);
    }
}

fn all(top: &Top, width: usize, height: usize) -> Vec<Line<'static>> {
    let (rows, segments) = (top.rows(), &top.seen.segments);
    let row = top.row(&rows);
    let selected = rows.get(row).map_or(0, |(segment, _)| *segment);
    let name = width.saturating_sub(59).clamp(12, 40);
    let mut lines = vec![heading(format!(
        "{} {:<25} {:>4} {:>5} {:>8} {:>8}",
        fit(" SEGMENT", name),
        "MEMORY",
        "PART",
        "CHANS",
        "SENT/S",
        "RECV/S"
    ))];
    for index in window(segments.len(), selected, SEGMENTS) {
        lines.push(segment_line(top.paint, &segments[index], index == selected, name));
    }
    if segments.is_empty() {
        lines.push(Line::from(" there are no segments: set WATERWAY_DIR to where they are"));
    }
    lines.push(Line::default());
    let below = BELOW + 1;
    let room = height.saturating_sub(lines.len() + 1 + below);
    let name = width.saturating_sub(60).clamp(12, 44);
    let spark = width.saturating_sub(name + 53).min(60);
    let mark = |sort: Sort, text: &str| if top.sort == sort { format!("{text}*") } else { text.to_owned() };
    lines.push(heading(format!(
        "{} {:<5} {:<16} {:>7} {:>7} {:>6} {:>5} {:>spark$}",
        fit(&format!(" {}", mark(Sort::Name, "CHANNEL")), name),
        "KIND",
        mark(Sort::Depth, "DEPTH"),
        mark(Sort::Sent, "SENT/S"),
        mark(Sort::Received, "RECV/S"),
        mark(Sort::Unacknowledged, "UNACK"),
        "S/R",
        if spark > 6 { "SENDING" } else { "" },
    )));
    for index in window(rows.len(), row, room) {
        let (segment, channel) = rows[index];
        lines.push(channel_line(top.paint, &segments[segment], channel, index == row, (name, spark)));
    }
    while lines.len() < height.saturating_sub(below) {
        lines.push(Line::default());
    }
    if let Some(segment) = segments.get(selected) {
        lines.push(Line::default());
        lines.extend(beside(
            participants(segment, (width / 2).saturating_sub(1), BELOW - 1),
            memory(top.paint, &segment.name, &segment.memory, width - width / 2),
            width / 2,
        ));
    }
    lines
}

/// The line of what is selected.
fn line(spans: Vec<Span<'static>>, is_selected: bool) -> Line<'static> {
    let style = if is_selected { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    Line::from(spans).style(style)
}

fn pointed(text: &str, is_selected: bool, width: usize) -> Span<'static> {
    Span::raw(fit(&format!("{}{text}", if is_selected { '>' } else { ' ' }), width))
}

fn segment_line(paint: Paint, segment: &SeenSegment, is_selected: bool, width: usize) -> Line<'static> {
    let name = pointed(&segment.name, is_selected, width);
    if let Some(problem) = &segment.problem {
        return line(vec![name, Span::styled(format!(" {problem}"), paint.colour(Color::Red))], is_selected);
    }
    let memory = &segment.memory;
    let rates = (0..segment.views.len()).map(|channel| segment.rates(channel));
    let (sent, received) = rates.fold((0.0, 0.0), |sum, rates| (sum.0 + rates.0, sum.1 + rates.1));
    let used = format!(" {} of {}", bytes(memory.used as f64), bytes(memory.max_size as f64));
    let living = segment.participants.iter().filter(|one| one.alive).count();
    line(
        vec![
            name,
            Span::raw(" "),
            paint.bar(memory.used as f64 / memory.max_size.max(1) as f64, 5),
            Span::raw(format!(
                "{} {living:>4} {:>5} {:>8} {:>8}",
                fit(&used, 20),
                segment.views.len(),
                short(sent),
                short(received)
            )),
        ],
        is_selected,
    )
}

fn channel_line(
    paint: Paint,
    segment: &SeenSegment,
    channel: usize,
    is_selected: bool,
    (name, spark): (usize, usize),
) -> Line<'static> {
    let view = &segment.views[channel];
    let (sent, received) = segment.rates(channel);
    let (many, part) = fullness(view);
    let depth = format!("{}/{}", short(many as f64), short(view.capacity as f64));
    let mut spans = vec![
        pointed(&format!("{}/{}", segment.name, view.name), is_selected, name),
        Span::raw(format!(" {:<5} ", kind(view))),
        paint.bar(part, 5),
        Span::raw(format!(
            " {depth:<10} {:>7} {:>7} {:>6} {:>5} ",
            short(sent),
            short(received),
            view.unacknowledged,
            format!("{}/{}", view.senders, view.receivers),
        )),
    ];
    spans.push(match &view.problem {
        Some(problem) => Span::styled(problem.clone(), paint.colour(Color::Red)),
        None => paint.spark(&segment.histories[channel].sending, spark),
    });
    line(spans, is_selected)
}

fn state(one: &ParticipantView) -> &'static str {
    match (one.alive, one.stopped, &one.command) {
        (false, _, _) => "dead",
        (true, true, _) => "stop",
        (true, false, None) => "?",
        (true, false, Some(_)) => "live",
    }
}

/// How a process was started, without the directory of its program.
fn without_path(command: &str) -> String {
    let (program, rest) = command.split_once(' ').unwrap_or((command, ""));
    format!("{} {rest}", program.rsplit('/').next().unwrap_or(program))
}

fn participants(segment: &SeenSegment, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = vec![heading(fit(&format!("{:>7} {:<4} {:>9} COMMAND", "PID", "", "HOLDS"), width))];
    for one in segment.participants.iter().take(height) {
        let command = one.command.as_deref().map_or("in another namespace, or another user's".into(), without_path);
        let text = format!("{:>7} {:<4} {:>9} {command}", one.pid, state(one), bytes(one.bytes as f64));
        lines.push(Line::from(fit(&text, width)));
    }
    lines
}

/// The sectors, with what they are used for.
fn memory(paint: Paint, name: &str, memory: &MemoryView, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![heading(fit(&format!("MEMORY of {name}"), width))];
    let map = width.saturating_sub(24).max(4);
    for (name, sector) in ["small", "medium", "large"].into_iter().zip(&memory.sectors) {
        let mut spans = vec![Span::raw(format!("{name:<6} {:>8} ", bytes(sector.bytes as f64)))];
        if sector.quarantined {
            spans.push(Span::styled("quarantined", paint.colour(Color::Red)));
        } else {
            let parts = [
                (sector.allocated_bytes, ["█", "#"], Color::Green),
                (sector.in_flight_bytes, ["▓", "="], Color::Yellow),
                (sector.cached_bytes, ["▒", "-"], Color::Blue),
                (sector.free_bytes, ["░", "."], Color::DarkGray),
            ];
            spans.extend(paint.map(parts, map));
        }
        lines.push(Line::from(spans));
    }
    let marks = if paint.has_blocks { ["█", "▓", "▒", "░"] } else { ["#", "=", "-", "."] };
    lines.push(Line::from(fit(
        &format!("{} held {} on its way {} cached {} free", marks[0], marks[1], marks[2], marks[3]),
        width,
    )));
    lines.push(Line::from(fit(
        &format!(
            "{:.0} % fragmented  {} growths  {} waits",
            100.0 * memory.fragmentation(),
            memory.growths,
            memory.memory_waits
        ),
        width,
    )));
    lines
}

/// Two panes side by side, the left one so wide.
fn beside(left: Vec<Line<'static>>, right: Vec<Line<'static>>, width: usize) -> Vec<Line<'static>> {
    let lines = left.len().max(right.len());
    let (mut left, mut right) = (left.into_iter(), right.into_iter());
    (0..lines)
        .map(|_| {
            let (left, right) = (left.next().unwrap_or_default(), right.next().unwrap_or_default());
            let gap = width.saturating_sub(left.width());
            // The style of a line is that of all its spans.
            let styled = |line: Line<'static>| {
                let style = line.style;
                line.spans.into_iter().map(move |span| span.patch_style(style))
            };
            let spans: Vec<Span<'static>> =
                styled(left).chain([Span::raw(" ".repeat(gap))]).chain(styled(right)).collect();
            Line::from(spans)
        })
        .collect()
}

/// The channel that is selected, if it is still there.
fn selected(top: &Top) -> Option<(&SeenSegment, usize)> {
    let rows = top.rows();
    let (segment, channel) = *rows.get(top.row(&rows))?;
    let segment = &top.seen.segments[segment];
    let is_it = |it: &(String, String)| (&it.0, &it.1) == (&segment.name, &segment.views[channel].name);
    top.selected.as_ref().is_some_and(is_it).then_some((segment, channel))
}

fn gone() -> Vec<Line<'static>> {
    vec![Line::from(" it has gone: escape leads back")]
}

fn channel(top: &Top, width: usize, height: usize) -> Vec<Line<'static>> {
    let Some((segment, index)) = selected(top) else { return gone() };
    let (view, history) = (&segment.views[index], &segment.histories[index]);
    let (sent, received) = segment.rates(index);
    let (many, part) = fullness(view);
    let mut lines = vec![heading(fit(&format!(" {}/{}", segment.name, view.name), width))];
    let deliveries = match view.max_deliveries {
        0 => "at most once".to_owned(),
        most => format!("at least once, at most {most} times"),
    };
    let stays = if view.persistent { "  persistent" } else { "" };
    let closed = if view.closed { "  closed" } else { "" };
    lines.push(Line::from(format!(" {} of {}  {deliveries}{stays}{closed}", word(view.kind), view.payload)));
    lines.push(Line::from(vec![
        Span::raw(" depth     "),
        top.paint.bar(part, 20),
        Span::raw(format!(" {many} of {}  {} with what is not acknowledged", view.capacity, bytes(view.bytes as f64),)),
    ]));
    let spark = width.saturating_sub(34);
    for (name, rate, total, rates) in
        [("sent", sent, view.sent, &history.sending), ("received", received, view.received, &history.receiving)]
    {
        let figures = format!(" {name:<9} {:>8}/s {total:>11} ", short(rate));
        lines.push(Line::from(vec![Span::raw(figures), top.paint.spark(rates, spark)]));
    }
    lines.push(Line::from(format!(
        " {} unacknowledged  {} parked receivers  {} parked senders  {} permits",
        view.unacknowledged, view.parked_receivers, view.parked_senders, view.reserved
    )));
    let counts = &view.counts;
    lines.push(Line::from(format!(
        " {} expired  {} dropped  {} dead letters  {} discarded",
        counts.expired, counts.dropped, counts.dead_letters, counts.discarded
    )));
    if let Some(problem) = &view.problem {
        lines.push(Line::styled(format!(" {problem}"), top.paint.colour(Color::Red)));
    }
    if !view.groups.is_empty() {
        lines.push(Line::default());
        lines.push(heading(format!(
            "{} {:>8} {:>8} {:>8} {:>8}",
            fit(" GROUP", 30),
            "LAG",
            "HELD",
            "MISSED",
            "MEMBERS"
        )));
        for group in &view.groups {
            let evicted = if group.evicted { "  put out" } else { "" };
            lines.push(Line::from(format!(
                "{} {:>8} {:>8} {:>8} {:>8}{evicted}",
                fit(&format!(" {}", group.name), 30),
                group.lag,
                group.held,
                group.missed,
                group.members
            )));
        }
    }
    lines.push(Line::default());
    lines.push(heading(fit(&format!("{:>7} {:<4} {:<13} {:>9} COMMAND", "PID", "", "ENDS", "HOLDS"), width)));
    let ends = segment.participants.iter().filter_map(|one| {
        let has = |slots: &[u16]| slots.contains(&one.slot);
        let ends = match (has(&view.sender_slots), has(&view.receiver_slots)) {
            (true, true) => "both",
            (true, false) => "sender",
            (false, true) => "receiver",
            (false, false) => return None,
        };
        let command = one.command.as_deref().map_or(String::new(), without_path);
        let text = format!("{:>7} {:<4} {ends:<13} {:>9} {command}", one.pid, state(one), bytes(one.bytes as f64));
        Some(Line::from(fit(&text, width)))
    });
    lines.extend(ends.take(height.saturating_sub(lines.len())));
    lines
}

fn payloads(top: &Top, width: usize, height: usize) -> Vec<Line<'static>> {
    let Some((segment, index)) = selected(top) else { return gone() };
    let view = &segment.views[index];
    let mut lines = vec![
        heading(fit(&format!(" {}/{}: {} wait", segment.name, view.name, view.depth), width)),
        heading(format!("{:>12} {:>9} {:>5} {:>8}  PAYLOAD", "SEQUENCE", "AGE", "COUNT", "BYTES")),
    ];
    match &top.seen.peeked {
        Err(problem) => lines.push(Line::styled(format!(" {problem}"), top.paint.colour(Color::Red))),
        Ok(peeked) => lines.extend(peeked.iter().take(height).map(|peeked| {
            let age = peeked.age.map_or_else(String::new, |age| format!("{:.1} s", age.as_secs_f64()));
            let text = format!(
                "{:>12} {age:>9} {:>5} {:>8}  {}",
                peeked.sequence,
                peeked.delivery_count,
                peeked.bytes.len(),
                // More than a line has room for is not looked at.
                peeked.bytes[..peeked.bytes.len().min(width)].escape_ascii()
            );
            Line::from(fit(&text, width))
        })),
    }
    lines
}

fn help() -> Vec<Line<'static>> {
    [
        "",
        " up, down, j, k      select a channel; page up and down, home, end",
        " enter               look into it: rates, groups, who is at its ends",
        " p                   the payloads that wait there; nothing is taken",
        " escape              back; forget the filter; quit",
        " s, r                sort by name, sent, received, depth, unacknowledged; reverse",
        " /                   show only what has a text in SEGMENT/CHANNEL",
        " space, f            freeze, and go on",
        " q, control-c        quit",
        "",
        " DEPTH   messages that wait, of as many as may; of a semaphore, permits that are held",
        " UNACK   messages that were received and are not acknowledged",
        " S/R     participants with a sender, and with a receiver",
        " HOLDS   memory of messages received, permits and blocks of a participant",
        " An observer looks: nobody in the segments notices it.",
    ]
    .into_iter()
    .map(Line::from)
    .collect()
}
