//! The macros of the crate `waterway`, which re-exports and documents them.
//!
//! Both make a type plain data: they write its representation, zerocopy's derives, and an implementation of `Plain` that knows
//! the fields. All unsafe code is zerocopy's.

use proc_macro::TokenStream;

mod expand;

/// Makes a struct or an enum plain data; see `waterway::plain`.
#[proc_macro_attribute]
pub fn plain(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes several structs and enums plain data that can be copied; see `waterway::plain_types`.
#[proc_macro]
pub fn plain_types(items: TokenStream) -> TokenStream {
    expand::items(items.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
