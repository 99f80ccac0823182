//! Routing by rule: the sender decides, message by message, into which channel it goes.

use std::{fmt, marker::PhantomData, time::Duration};

use crate::channel::{self, Payload, SendError, SendTimeoutError, Sendable, TrySendError, wait::block_on};

/// Where a [`RuleSender`] has sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Into the channel of the rule of that number, from 0.
    Rule(usize),
    /// Into the channel for what no rule wants.
    Default,
}

/// Sends each message into the channel of the first rule that wants it, or else into the channel that it was made from.
///
/// Made by [`channel::Sender::route`]. Rules are functions of the sender's process, asked in the order in which they were added; other
/// senders of the same channels have their own, or none. What a receiver wants to send on it
/// [forwards](crate::Message::forward), without a copy.
pub struct RuleSender<T: Payload + ?Sized, V> {
    rules: Vec<(Rule<V>, channel::Sender<T>)>,
    default: channel::Sender<T>,
    value: PhantomData<fn(&V)>,
}

type Rule<V> = Box<dyn Fn(&V) -> bool + Send + Sync>;

impl<T: Payload + ?Sized> channel::Sender<T> {
    /// Sends what `rule` wants into another channel, and the rest into this one.
    ///
    /// # Examples
    ///
    /// ```
    /// use waterway::routing::Route;
    ///
    /// let segment = waterway::Segment::options().in_process()?;
    /// let (small, here) = segment.channel::<u64>("small").open()?;
    /// let (large, there) = segment.channel::<u64>("large").open()?;
    /// let numbers = small.route(|number: &u64| *number > 1000, large);
    /// assert_eq!(numbers.try_send(7)?, Route::Default);
    /// assert_eq!(numbers.try_send(7000)?, Route::Rule(0));
    /// assert_eq!((*here.try_recv()?, *there.try_recv()?), (7, 7000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn route<V: Sendable<T>>(
        self,
        rule: impl Fn(&V) -> bool + Send + Sync + 'static,
        to: Self,
    ) -> RuleSender<T, V> {
        RuleSender { rules: Vec::new(), default: self, value: PhantomData }.route(rule, to)
    }
}

impl<T: Payload + ?Sized, V: Sendable<T>> RuleSender<T, V> {
    /// One more rule, asked after the others.
    pub fn route(mut self, rule: impl Fn(&V) -> bool + Send + Sync + 'static, to: channel::Sender<T>) -> Self {
        self.rules.push((Box::new(rule), to));
        self
    }

    /// Where a value would go, and through which sender.
    pub fn choose(&self, value: &V) -> (Route, &channel::Sender<T>) {
        let rules = self.rules.iter().enumerate();
        rules
            .filter(|(_, (rule, _))| rule(value))
            .map(|(number, (_, to))| (Route::Rule(number), to))
            .next()
            .unwrap_or((Route::Default, &self.default))
    }

    /// Sends a value to where it belongs, waiting for room there and for memory: see [`channel::Sender::send`](channel::Sender#method.send).
    ///
    /// # Errors
    ///
    /// [`SendError`] with the value: if the channel where it belongs is closed, or if it can never fit. It goes nowhere
    /// else then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the message has not been sent, and the value is lost.
    pub async fn send(&self, value: V) -> Result<Route, SendError<V>> {
        let (route, to) = self.choose(&value);
        to.send_value(value).await.map(|()| route)
    }

    /// Sends as [`send`](Self::send), blocking the thread.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    #[track_caller]
    pub fn blocking_send(&self, value: V) -> Result<Route, SendError<V>> {
        block_on(self.send(value))
    }

    /// Sends a value to where it belongs, waiting for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError`] with the value.
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn send_timeout(&self, value: V, time: Duration) -> Result<Route, SendTimeoutError<V>> {
        let (route, to) = self.choose(&value);
        to.send_value_within(value, time).await.map(|()| route)
    }

    /// Sends as [`send_timeout`](Self::send_timeout), blocking the thread. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// As for [`send_timeout`](Self::send_timeout).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waterway::routing::Route;
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (small, here) = segment.channel::<u64>("small").capacity(1).open()?;
    /// let (large, there) = segment.channel::<u64>("large").capacity(1).open()?;
    /// let numbers = small.route(|number: &u64| *number > 1000, large);
    /// assert_eq!(numbers.blocking_send_timeout(2000, Duration::from_secs(10))?, Route::Rule(0));
    /// // There is no room for another one.
    /// assert!(numbers.blocking_send_timeout(3000, Duration::from_millis(10)).is_err());
    /// # drop((here, there));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_send_timeout(&self, value: V, time: Duration) -> Result<Route, SendTimeoutError<V>> {
        block_on(self.send_timeout(value, time))
    }

    /// Sends a value to where it belongs if there is room there now.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the value.
    pub fn try_send(&self, value: V) -> Result<Route, TrySendError<V>> {
        let (route, to) = self.choose(&value);
        to.try_send_value(value).map(|()| route)
    }
}

impl<T: Payload + ?Sized, V> fmt::Debug for RuleSender<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleSender")
            .field("rules", &self.rules.len())
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}
