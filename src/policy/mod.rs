//! What a message says of itself: policies.

mod route;

pub use route::RouteKey;

/// What messages of a type want, read by the sender when they are sent.
///
/// Every method has a default, so a type says only what it cares about.
///
/// ```
/// use waterway::{Policy, RouteKey};
///
/// struct Order { customer: u64 }
///
/// impl Policy for Order {
///     fn route(&self) -> RouteKey {
///         self.customer.into()
///     }
/// }
/// ```
pub trait Policy {
    /// Messages of the same key keep their order in a [routed channel](crate::RoutedOptions), and are with one receiver
    /// at a time. By default there is no key: the message goes wherever there is room.
    fn route(&self) -> RouteKey {
        RouteKey::default()
    }
}
