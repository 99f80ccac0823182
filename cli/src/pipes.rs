//! Channels of bytes and the two ends of a pipe: `send` from standard input, `recv` to standard output.

use std::{
    fs::File,
    future::poll_fn,
    io::{self, BufRead, Read, Write},
    os::fd::AsFd,
    process::ExitCode,
    sync::mpsc::{Receiver as Frames, SyncSender, TryRecvError, sync_channel},
    task::Poll,
    thread::{self, Thread},
    time::Duration,
};

use serde_json::json;
use waterway::{
    ChannelOptions, Delivery, Message, Observer, Segment, Sender,
    channel::{RecvTimeoutError, SendTimeoutError},
};

use crate::{
    looks::{hex, views_of},
    say::{Failure, channel_of, say},
    stop::{Stop, status_of},
};

/// Where a message ends.
#[derive(Clone, Copy, clap::Args)]
#[group(multiple = false)]
pub(crate) struct Framing {
    /// A message ends with a NUL, not with a line
    #[arg(short = '0', long)]
    null: bool,
    /// Each message has its length before it: four bytes, the highest first
    #[arg(short, long)]
    length_prefixed: bool,
}

impl Framing {
    fn end(self) -> u8 {
        if self.null { 0 } else { b'\n' }
    }

    /// The next message; `None` at the end.
    fn read(self, input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        if !self.length_prefixed {
            if input.read_until(self.end(), &mut message)? == 0 {
                return Ok(None);
            }
            message.pop_if(|last| *last == self.end());
            return Ok(Some(message));
        }
        let mut length = Vec::new();
        input.by_ref().take(4).read_to_end(&mut length)?;
        if length.is_empty() {
            return Ok(None);
        }
        let length = <[u8; 4]>::try_from(length).map_err(|_| ends_inside())?;
        let length = u32::from_be_bytes(length);
        // The memory grows with what is there, whatever the length says.
        input.by_ref().take(length.into()).read_to_end(&mut message)?;
        if message.len() == length as usize { Ok(Some(message)) } else { Err(ends_inside()) }
    }

    /// All of a message, to be written at once.
    fn write(self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut frame = Vec::with_capacity(message.len() + 4);
        if self.length_prefixed {
            let too_long =
                |_| Failure::Refused(format!("{} bytes are too many for a length of 32 bits", message.len()));
            frame.extend_from_slice(&u32::try_from(message.len()).map_err(too_long)?.to_be_bytes());
            frame.extend_from_slice(message);
        } else {
            frame.extend_from_slice(message);
            frame.push(self.end());
        }
        Ok(frame)
    }
}

fn ends_inside() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "standard input ends inside a message")
}

/// How a channel is made that is not there.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Making {
    /// Make the segment and the channel, if they are not there
    #[arg(long)]
    create: bool,
    /// The most messages that may wait in a new channel
    #[arg(long, requires = "create")]
    capacity: Option<usize>,
    /// A new channel delivers at least once: so many times at most, until a message is acknowledged
    #[arg(long, requires = "create", value_parser = clap::value_parser!(u32).range(1..))]
    deliveries: Option<u32>,
    /// The new channel, and a new segment, are to stay when nobody is there
    #[arg(long, requires = "create")]
    persistent: bool,
}

impl Making {
    fn open(&self, place: &str) -> Result<(Segment, ChannelOptions<[u8]>), Failure> {
        let (segment, channel) = channel_of(place)?;
        if !self.create {
            views_of(&Observer::open(segment)?, Some(channel))?;
            let segment = Segment::open(segment)?;
            let options = segment.bytes(channel);
            return Ok((segment, options));
        }
        let segment = Segment::options().persistent(self.persistent).open_or_create(segment)?;
        let mut options = segment.bytes(channel);
        if let Some(capacity) = self.capacity {
            options = options.capacity(capacity);
        }
        if let Some(max_deliveries) = self.deliveries {
            options = options.delivery(Delivery::AtLeastOnce { max_deliveries });
        }
        if self.persistent {
            options = options.persistent(true);
        }
        Ok((segment, options))
    }
}

/// Reads messages for another thread, which is woken for each; ends with the input, an error, or who reads them.
fn read_all(framing: Framing, frames: &SyncSender<io::Result<Vec<u8>>>, reader: &Thread) {
    let mut input = io::stdin().lock();
    while let Some(frame) = framing.read(&mut input).transpose() {
        let is_over = frame.is_err();
        if frames.send(frame).is_err() || is_over {
            break;
        }
        reader.unpark();
    }
}

/// Messages that were read and not yet sent.
const AHEAD: usize = 64;

fn read_ahead(framing: Framing) -> Frames<io::Result<Vec<u8>>> {
    let (frames, read) = sync_channel(AHEAD);
    let reader = thread::current();
    thread::spawn(move || {
        read_all(framing, &frames, &reader);
        drop(frames);
        // It is over.
        reader.unpark();
    });
    read
}

/// How long `send` waits before it looks again whether somebody receives what it has sent.
const SOMEBODY: Duration = Duration::from_millis(20);

/// Whether what waits stays when this sender goes.
fn may_leave(segment: &Segment, sender: &Sender<[u8]>, place: &str) -> Result<bool, Failure> {
    if sender.is_empty() || sender.receiver_count() > 0 {
        return Ok(true);
    }
    let (_, channel) = channel_of(place)?;
    // Of a segment that others have taken the name of nothing stays.
    let Some(path) = segment.path() else { return Ok(true) };
    let observer = Observer::open_path(path)?;
    let stays = observer.is_persistent() || segment.participants().len() > 1;
    let is_persistent = || views_of(&observer, Some(channel)).is_ok_and(|views| views[0].persistent);
    Ok(observer.id() != segment.id() || stays && is_persistent())
}

pub(crate) fn send(
    place: &str,
    framing: Framing,
    making: &Making,
    timeout: Option<Duration>,
    as_json: bool,
    out: &mut impl Write,
) -> Result<ExitCode, Failure> {
    let stop = Stop::new()?;
    let (segment, options) = making.open(place)?;
    let sender = options.sender()?;
    let frames = read_ahead(framing);
    let mut sent: u64 = 0;
    let next = || {
        poll_fn(|_| match frames.try_recv() {
            Ok(frame) => Poll::Ready(Some(frame)),
            Err(TryRecvError::Empty) => Poll::Pending,
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
        })
    };
    let stopped = loop {
        let frame = match stop.run(next()) {
            Ok(Some(frame)) => frame?,
            Ok(None) => break None,
            Err(signal) => break Some(signal),
        };
        let sending = async {
            match timeout {
                Some(timeout) => sender.send_timeout(frame, timeout).await,
                None => sender.send(frame).await.map_err(SendTimeoutError::from),
            }
        };
        match stop.run(sending) {
            Ok(Ok(())) => sent += 1,
            Ok(Err(SendTimeoutError::Closed(_))) => {
                return Err(Failure::Closed(format!(
                    "nobody receives from {place} any more: {sent} messages were sent"
                )));
            }
            Ok(Err(SendTimeoutError::Timeout(_))) => {
                return Err(Failure::Timeout(format!("{place} had no room for that long: {sent} messages were sent")));
            }
            Ok(Err(error)) => return Err(Failure::Refused(format!("{error}: {sent} messages were sent"))),
            Err(signal) => break Some(signal),
        }
    };
    if let Some(signal) = stopped {
        return Ok(ExitCode::from(status_of(signal)));
    }
    let started = std::time::Instant::now();
    while !may_leave(&segment, &sender, place)? {
        if let Some(signal) = stop.signal() {
            return Ok(ExitCode::from(status_of(signal)));
        }
        if timeout.is_some_and(|timeout| started.elapsed() > timeout) {
            return Err(Failure::Timeout(format!(
                "nobody came to receive from {place}: what waits there goes with this sender, as it is not persistent"
            )));
        }
        thread::sleep(SOMEBODY);
    }
    if as_json {
        say(out, json!({ "sent": sent }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// When `recv` acknowledges a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ack {
    /// When it was written: if it cannot be, or the process is killed, the message comes back
    AfterPrint,
    /// Before it is written
    Received,
}

/// What `recv` was asked for.
pub(crate) struct Receiving {
    pub(crate) framing: Framing,
    pub(crate) ack: Ack,
    pub(crate) number: Option<u64>,
    pub(crate) timeout: Option<Duration>,
}

impl Receiving {
    fn frame(&self, message: &Message<[u8]>, as_json: bool) -> Result<Vec<u8>, Failure> {
        if !as_json {
            return self.framing.write(message);
        }
        let mut line = Vec::new();
        say(
            &mut line,
            json!({
                "sequence": message.sequence(), "delivery_count": message.delivery_count(),
                "hex": hex(message), "text": message.escape_ascii().to_string(),
            }),
        )?;
        Ok(line)
    }
}

pub(crate) fn recv(place: &str, making: &Making, asked: &Receiving, as_json: bool) -> Result<ExitCode, Failure> {
    let stop = Stop::new()?;
    // Written without a buffer: what is acknowledged has gone to whoever reads it.
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (_segment, options) = making.open(place)?;
    let receiver = options.receiver()?;
    let mut received = 0;
    while asked.number.is_none_or(|number| received < number) {
        let receiving = async {
            match asked.timeout {
                Some(timeout) => receiver.recv_timeout(timeout).await,
                None => receiver.recv().await.ok_or(RecvTimeoutError::Disconnected),
            }
        };
        let message = match stop.run(receiving) {
            Ok(Ok(message)) => message,
            Ok(Err(RecvTimeoutError::Timeout)) => {
                return Err(Failure::Timeout(format!("nothing has come to {place} for that long")));
            }
            Ok(Err(_)) if asked.number.is_none() => break,
            Ok(Err(_)) => return Err(Failure::Closed(format!("{place} was closed after {received} messages"))),
            Err(signal) => return Ok(ExitCode::from(status_of(signal))),
        };
        let frame = match asked.frame(&message, as_json) {
            Ok(frame) => frame,
            Err(failure) => {
                message.nack();
                return Err(failure);
            }
        };
        if asked.ack == Ack::Received {
            message.ack();
            output.write_all(&frame)?;
        } else if let Err(error) = output.write_all(&frame).and_then(|()| output.flush()) {
            message.nack();
            return Err(error.into());
        } else {
            message.ack();
        }
        received += 1;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMINGS: [Framing; 3] = [
        Framing { null: false, length_prefixed: false },
        Framing { null: true, length_prefixed: false },
        Framing { null: false, length_prefixed: true },
    ];

    #[test]
    fn what_is_written_is_read_in_the_same_pieces() {
        for framing in FRAMINGS {
            let messages = [&b"one"[..], b"", b"three", b"\r"];
            let written: Vec<u8> = messages.iter().flat_map(|message| framing.write(message).unwrap()).collect();
            let mut input = &written[..];
            for message in messages {
                assert_eq!(framing.read(&mut input).unwrap().as_deref(), Some(message));
            }
            assert_eq!(framing.read(&mut input).unwrap(), None);
        }
        let [lines, _, prefixed] = FRAMINGS;
        assert_eq!(lines.read(&mut &b"the last one"[..]).unwrap().unwrap(), b"the last one");
        for cut in [&b"\0\0"[..], b"\0\0\0\x05four", b"\xff\xff\xff\xff"] {
            assert!(prefixed.read(&mut &*cut).is_err());
        }
    }
}
