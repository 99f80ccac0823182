//! What stands behind `#[waterway::plain]`, and what is known of types that do not have it.

use std::any::type_name;

use crate::{
    channel::{Plain, short_name},
    schema::{Detail, Field, Schema, Variant},
};

/// What a type consists of.
#[derive(Debug)]
pub enum Body {
    /// Fields, one behind the other.
    Struct(Vec<Field>),
    /// Variants.
    Enum {
        /// The representation.
        integer: &'static str,
        /// Bytes of the discriminant.
        discriminant: usize,
        /// What it can be.
        variants: Vec<Variant>,
    },
    /// Something that is not known.
    Opaque,
}

/// The schema of a type of that name.
pub fn plain<T>(name: String, body: Body) -> Schema {
    let leaf = Schema::leaf(name, size_of::<T>(), align_of::<T>());
    match body {
        Body::Opaque => Schema { detail: Detail::Opaque, ..leaf },
        Body::Struct(fields) => Schema { detail: Detail::Parts, fields, ..leaf },
        Body::Enum { integer, discriminant, mut variants } => {
            // A variant is a struct in C's manner whose first field is the discriminant.
            for variant in &mut variants {
                let mut at = discriminant as u64;
                for field in &mut variant.fields {
                    field.offset = at.next_multiple_of(field.alignment);
                    at = field.offset + field.size;
                }
            }
            Schema { detail: Detail::Parts, variants: Some((integer.to_owned(), variants)), ..leaf }
        }
    }
}

/// The schema of a type that is plain.
pub fn of<T: Plain>() -> Schema {
    T::plain_schema()
}

/// The schema of so many of one type. The attribute sees that a field is an array: the compiler's word for it has no more than
/// its element's name.
pub fn array(element: Schema, count: usize) -> Schema {
    let name = format!("[{}; {count}]", element.name);
    let leaf = Schema::leaf(name, element.size() * count, element.alignment());
    let element = Field { is_array: true, ..Field::whole(String::new(), 0, element, count as u64) };
    Schema { detail: Detail::Parts, fields: vec![element], ..leaf }
}

/// A field of that type.
pub fn field(name: &str, offset: usize, schema: Schema) -> Field {
    Field::of(name.to_owned(), offset as u64, schema)
}

/// A variant of that discriminant.
pub fn variant(name: &str, value: String, fields: Vec<Field>) -> Variant {
    Variant { name: name.to_owned(), value, fields }
}

/// What a type with parameters is called.
pub fn name_of<T>() -> String {
    short_name(type_name::<T>())
}

/// The schema of a type of which nothing is known but what the compiler calls it, and how large it is.
pub(crate) fn of_name(full: &str, size: usize, alignment: usize) -> Schema {
    match parts_of_array(full) {
        Some((element, count)) => array(of_name(element, size.checked_div(count).unwrap_or(0), alignment), count),
        None => {
            let detail = if says_all(full) { Detail::Name } else { Detail::Opaque };
            Schema { detail, ..Schema::leaf(short_name(full), size, alignment) }
        }
    }
}

/// Of `[element; count]` both.
fn parts_of_array(full: &str) -> Option<(&str, usize)> {
    let (element, count) = full.strip_prefix('[')?.strip_suffix(']')?.rsplit_once("; ")?;
    Some((element, count.parse().ok()?))
}

/// Crates whose types stay as they are: a name of theirs says all.
const STABLE: [&str; 5] = ["core", "alloc", "std", "zerocopy", "waterway"];

/// Whether a type is known by its name: a number, or a type of the standard library, of zerocopy, or of this crate. What a `ReplyTo`
/// leads to is compared when it is used.
fn says_all(full: &str) -> bool {
    let paths = full.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let mut crates = paths.filter_map(|path| path.split_once("::")).map(|(first, _)| first);
    full.starts_with("waterway::service::") || crates.all(|first| STABLE.contains(&first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_says_is_told() {
        for known in [
            "u64",
            "()",
            "core::option::Option<core::num::nonzero::NonZero<u32>>",
            "waterway::blocks::allocator::Handle",
        ] {
            assert!(says_all(known), "{known}");
        }
        for unknown in ["app::Tick", "core::num::wrapping::Wrapping<app::Tick>", "waterways::Tick"] {
            assert!(!says_all(unknown), "{unknown}");
        }
        assert!(says_all("waterway::service::reply_to::ReplyTo<app::Tick>"));
    }

    #[test]
    fn arrays_are_seen_in_a_name() {
        let schema = of_name("[[app::Tick; 3]; 4]", 96, 8);
        assert_eq!(schema.to_string().lines().count(), 3, "{schema}");
        let rows = &schema.fields()[0];
        assert_eq!((rows.ty(), rows.count(), schema.is_opaque()), ("[Tick; 3]", 4, false));
        let ticks = &rows.nested().unwrap().fields()[0];
        assert_eq!((ticks.ty(), ticks.count(), ticks.nested().unwrap().size()), ("Tick", 3, 8));
        assert!(ticks.nested().unwrap().is_opaque());
        assert_eq!(of_name("[u8; 0]", 0, 1), array(of_name("u8", 0, 1), 0));
        assert_eq!(of_name("[u64; 2]", 16, 8), array(u64::plain_schema(), 2));
    }
}
