//! Reading of foreign bytes that ends: a `Deserializer` around that of a format which has no bounds of its own.
//!
//! Whoever reads by recursion needs stack for every level, and a stack that overflows ends the process. Whoever reads as many
//! elements as a length says, of elements that take no bytes, reads for as long as a peer likes. So two things are counted
//! while a value is read:
//!
//! * the levels that are open: whatever holds something else, as serde sees it (a struct, a tuple, a sequence, a map, an enum, a
//!   newtype, an option);
//! * the elements, of all sequences and maps of the value, that took no byte of the input. All others are bounded by its length.
//!
//! What is above a bound is an error, like any other bytes that are no value.

use std::{cell::Cell, fmt};

use postcard::de_flavors::Flavor;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// Levels that may be open. A list of boxes has two for each of its nodes, the struct and the option; so this is as deep as
/// `serde_json` reads them, and fits several times into the stack of a thread.
const LEVELS: usize = 256;
/// Elements without bytes that a value may have.
const EMPTY_ELEMENTS: usize = 1 << 16;

/// What is left of the bounds.
#[derive(Debug)]
struct Bounds<'a> {
    levels: Cell<usize>,
    empty_elements: Cell<usize>,
    /// Bytes of the input that have not been read.
    unread: &'a Cell<usize>,
}

impl<'a> Bounds<'a> {
    /// Whoever reads the input says in `unread` how much of it is left.
    fn new(unread: &'a Cell<usize>) -> Self {
        Self { levels: Cell::new(LEVELS), empty_elements: Cell::new(EMPTY_ELEMENTS), unread }
    }

    /// Goes one level down for as long as it is kept.
    fn descend<E: Error>(&self) -> Result<Level<'_>, E> {
        let left = self.levels.get().checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        self.levels.set(left);
        Ok(Level(&self.levels))
    }

    /// Reads an element.
    fn element<R, E: Error>(&self, read: impl FnOnce() -> Result<Option<R>, E>) -> Result<Option<R>, E> {
        let before = self.unread.get();
        let element = read()?;
        if element.is_some() && self.unread.get() == before {
            let left = self.empty_elements.get().checked_sub(1);
            self.empty_elements.set(left.ok_or_else(|| E::custom("too many elements without bytes"))?);
        }
        Ok(element)
    }
}

/// A level that is open.
struct Level<'a>(&'a Cell<usize>);

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Anything of serde's (a deserializer, a visitor, an access, a seed), within bounds.
struct Bounded<'b, T> {
    inner: T,
    bounds: &'b Bounds<'b>,
}

impl<'b, T> Bounded<'b, T> {
    fn around<U>(&self, inner: U) -> Bounded<'b, U> {
        Bounded { inner, bounds: self.bounds }
    }
}

macro_rules! deserialize {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.around(visitor);
            self.inner.$method($($argument,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    visit! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let _level = self.bounds.descend()?;
        let deserializer = self.around(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let _level = self.bounds.descend()?;
        let deserializer = self.around(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let _level = self.bounds.descend()?;
        let access = self.around(access);
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let _level = self.bounds.descend()?;
        let access = self.around(access);
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let _level = self.bounds.descend()?;
        let access = self.around(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        self.bounds.element(|| self.inner.next_element_seed(seed))
    }

    /// No more than can be there: whoever believes it takes memory for so many.
    fn size_hint(&self) -> Option<usize> {
        let most = self.bounds.unread.get().max(self.bounds.empty_elements.get());
        self.inner.size_hint().map(|hint| hint.min(most))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        self.bounds.element(|| self.inner.next_key_seed(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        let most = self.bounds.unread.get().max(self.bounds.empty_elements.get());
        self.inner.size_hint().map(|hint| hint.min(most))
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'b, A> {
    type Error = A::Error;
    type Variant = Bounded<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (seed, bounds) = (self.around(seed), self.bounds);
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Bounded { inner: variant, bounds }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}

/// The bytes that postcard reads, which say how many are left.
#[derive(Debug)]
struct Input<'de> {
    rest: &'de [u8],
    unread: &'de Cell<usize>,
}

impl<'de> Flavor<'de> for Input<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    #[inline]
    fn pop(&mut self) -> postcard::Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        self.unread.set(rest.len());
        Ok(*first)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }

    #[inline]
    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        self.unread.set(rest.len());
        Ok(taken)
    }

    fn finalize(self) -> postcard::Result<&'de [u8]> {
        Ok(self.rest)
    }
}

/// Reads a value as postcard writes it, of which nothing is left.
pub(super) fn from_postcard<T: DeserializeOwned>(bytes: &[u8]) -> postcard::Result<T> {
    let unread = Cell::new(bytes.len());
    let bounds = Bounds::new(&unread);
    let mut deserializer = postcard::Deserializer::from_flavor(Input { rest: bytes, unread: &unread });
    let value = T::deserialize(Bounded { inner: &mut deserializer, bounds: &bounds })?;
    match deserializer.finalize()? {
        [] => Ok(value),
        // Of another type, or more than one.
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}
