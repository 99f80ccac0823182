//! Ends of channels for who does not have the type: tools, bridges, other languages.
//!
//! A raw end carries a payload as the bytes that it is in the segment: of plain data the value, of slices the elements one behind the
//! other, of what a codec writes what it has written. It is opened with a [`Schema`](crate::Schema), which is compared like that of any
//! other end, or without one, as what the channel is. The typed ends of the channel do not see a difference.
//!
//! ```
//! use waterway::{Schema, Segment};
//!
//! #[waterway::plain]
//! #[derive(Debug, PartialEq)]
//! struct Tick { id: u64, price: f64 }
//!
//! # let segment = Segment::options().in_process()?;
//! let typed = segment.channel::<Tick>("ticks").receiver()?;
//!
//! // A tool that knows the channel by its name only.
//! let sender = segment.raw("ticks", None).sender()?;
//! assert!(sender.schema().is_some_and(|text| text.ends_with("id: u64 at 0\nprice: f64 at 8")));
//! let mut tick = 7_u64.to_ne_bytes().to_vec();
//! tick.extend(0.5_f64.to_ne_bytes());
//! sender.try_send(tick.clone())?;
//! assert_eq!(*typed.try_recv()?, Tick { id: 7, price: 0.5 });
//!
//! // One that insists on the layout that it was written for.
//! let receiver = segment.raw("ticks", Some(&Schema::of::<Tick>())).receiver()?;
//! sender.try_send(tick.clone())?;
//! assert_eq!(*receiver.try_recv()?, tick[..]);
//! assert!(segment.raw("ticks", Some(&Schema::of::<u64>())).receiver().is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ends;
mod options;
mod payload;

pub use ends::{Message, Receiver, Sender};
pub use options::Options;
pub(crate) use payload::{Framed, Raw};
