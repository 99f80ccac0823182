//! Policies: what a channel does with its messages besides keeping them in order.
//!
//! A policy is asked for when a channel is opened, by [`ChannelOptions::policy`](crate::ChannelOptions::policy); several compose.
//! They are part of the channel: a later opener who asks for others gets [`OpenError::Mismatch`](crate::OpenError::Mismatch), and one
//! who asks for none gets what there is. A channel without policies pays nothing for them.
//!
//! | policy | says |
//! |---|---|
//! | [`ByMessage`] | the type of the messages says it, by [`Policy`] |
//! | [`PriorityBy`] | which messages come first |
//! | [`Retention`] | for how long, and how many, messages wait |
//! | [`DeadLetter`] | where those go that nobody could work on, or whose time was over |

mod priority;
mod retention;
mod route;

use std::{
    any::Any,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

pub use crate::{attachment::policies::Counts, channel::options::DeadLetter};

pub use self::{
    priority::{Priority, PriorityBy},
    retention::Retention,
    route::RouteKey,
};

use crate::{
    attachment::policies::{Marks, Order, PolicyRequest},
    channel::{Coded, Payload},
};

/// What a type of messages says of each of them. Followed by channels that were opened with [`ByMessage`].
///
/// All methods are called by the sender, once per message, before it waits for anything. What they do not say is as in a
/// channel without policies.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use waterway::{policy::{ByMessage, Policy, Priority, Retention}, Segment};
///
/// waterway::plain_types! {
///     #[derive(Debug)]
///     struct Order { number: u64, customer: u32, urgent: u32 }
/// }
///
/// impl Policy for Order {
///     fn priority(&self) -> Priority {
///         if self.urgent == 1 { Priority::High } else { Priority::Normal }
///     }
///
///     fn retention(&self) -> Retention {
///         Retention::ttl(Duration::from_secs(3600))
///     }
/// }
///
/// # let segment = Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<Order>("orders").policy(ByMessage).open()?;
/// sender.try_send(Order { number: 1, customer: 7, urgent: 0 })?;
/// sender.try_send(Order { number: 2, customer: 9, urgent: 1 })?;
/// assert_eq!(receiver.try_recv()?.number, 2);
/// assert_eq!(receiver.try_recv()?.number, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Policy {
    /// How soon the message is received, compared with others that wait.
    fn priority(&self) -> Priority {
        Priority::default()
    }

    /// Which messages belong together: in a [routed](crate::ChannelOptions::routed) channel they keep their order, and are with one
    /// receiver at a time. Other channels do not ask.
    fn route(&self) -> RouteKey {
        RouteKey::default()
    }

    /// For how long the message waits. Of a single message only the [time to live](Retention::ttl) counts; if it has none, that of
    /// the channel.
    fn retention(&self) -> Retention {
        Retention::default()
    }
}

/// The policy of a channel whose messages say themselves what is to be done with them: their type has a [`Policy`].
///
/// It has to be asked for once per channel and process, as Rust has no way to find out by itself whether a type has one; a sender
/// that does not ask for it is refused. A receiver need not ask. The channel has four levels, and messages may expire. A
/// [`ReplyTo`](crate::service::ReplyTo) of such a channel knows nothing of the type, and sends with [`Priority::Normal`].
///
/// With a codec it can be asked for before or after [`codec`](crate::ChannelOptions::codec).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByMessage;

/// What a value is asked before it is sent.
pub(crate) type Rules<V> = Arc<dyn Fn(&V) -> Marks + Send + Sync>;

/// What was asked for of a channel's policies.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Asked {
    pub(crate) dead_letter: Option<String>,
    pub(crate) request: PolicyRequest,
    /// `Rules` of the values that the channel carries.
    rules: Option<Arc<dyn Any + Send + Sync>>,
    /// What was asked for and cannot be.
    pub(crate) impossible: Option<String>,
}

impl Asked {
    /// What a value is asked before it is sent.
    pub(crate) fn rules<V: ?Sized + 'static>(&self) -> Option<Rules<V>> {
        self.rules.as_ref()?.downcast_ref::<Rules<V>>().cloned()
    }

    fn order<V: ?Sized + 'static>(&mut self, order: Order, rules: Rules<V>) {
        if self.request.order.is_some_and(|before| before != order) {
            self.impossible =
                Some("messages have priorities by their type or by a function: ask for one of them".into());
        }
        self.request.order = Some(order);
        self.rules = Some(Arc::new(rules));
    }
}

// Functions are only called, and nothing of ours is half done while they are.
impl UnwindSafe for Asked {}
impl RefUnwindSafe for Asked {}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("dead_letter", &self.dead_letter)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ByMessage {}
    impl<F> Sealed for super::PriorityBy<F> {}
    impl Sealed for super::Retention {}
    impl Sealed for crate::channel::DeadLetter {}
}

/// A policy of a channel that carries `T`: [`ByMessage`], [`PriorityBy`], [`Retention`] or [`DeadLetter`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no policy of a channel of `{T}`",
    note = "`ByMessage` needs `{T}` to implement `Policy`",
    note = "`PriorityBy` takes a function of what is sent, and comes after `codec`"
)]
pub trait ChannelPolicy<T: ?Sized>: sealed::Sealed {
    /// Asks for it.
    #[doc(hidden)]
    fn ask(self, asked: &mut Asked);
}

/// What has rules of its own: what implements [`Policy`], and what a codec makes of that.
#[doc(hidden)]
pub trait HasRules {
    /// What is asked of each value.
    #[doc(hidden)]
    fn put_into(asked: &mut Asked);
}

impl<T: Policy + 'static> HasRules for T {
    fn put_into(asked: &mut Asked) {
        asked.order::<T>(Order::Message, Arc::new(marks_of::<T>));
    }
}

impl<T: Policy + 'static, C> HasRules for Coded<T, C> {
    fn put_into(asked: &mut Asked) {
        T::put_into(asked);
    }
}

fn marks_of<T: Policy>(value: &T) -> Marks {
    Marks { level: value.priority().level(), ttl: value.retention().marks() }
}

impl<T: HasRules + ?Sized> ChannelPolicy<T> for ByMessage {
    fn ask(self, asked: &mut Asked) {
        T::put_into(asked);
    }
}

impl<T, F> ChannelPolicy<T> for PriorityBy<F>
where
    T: Payload + ?Sized,
    F: Fn(&T::Value) -> Priority + Send + Sync + 'static,
{
    fn ask(self, asked: &mut Asked) {
        asked.order::<T::Value>(
            Order::Function,
            Arc::new(move |value: &T::Value| Marks { level: (self.0)(value).level(), ttl: 0 }),
        );
    }
}

impl<T: ?Sized> ChannelPolicy<T> for Retention {
    fn ask(self, asked: &mut Asked) {
        self.ask_for(asked);
    }
}

impl<T: ?Sized> ChannelPolicy<T> for crate::channel::DeadLetter {
    fn ask(self, asked: &mut Asked) {
        asked.dead_letter = Some(self.into_name());
    }
}
