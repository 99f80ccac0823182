//! [`Schema`]: what a type looks like in shared memory.
//!
//! Two programs mean the same by a type if its schema is the same: name, size, alignment, and of plain data each field with its
//! name, its type and its place. A channel is created with the schema of what it carries. Whoever comes later is compared by
//! the [hash](Schema::hash); the text, which stands behind the channel's ring, says what differs.
//!
//! The text is the schema: the hash is of the text, and a difference is one of lines. A line says one thing, with the whole
//! path of the field that it is about, so two texts differ exactly in the lines of what has changed.

mod opaque;
#[doc(hidden)]
pub mod written;

use std::{
    any::type_name,
    cell::RefCell,
    fmt::{self, Write},
};

pub use self::opaque::Opaque;
use crate::channel::{Payload, Plain, short_name};

/// What kind of payload a [`Schema`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// One value of [`Plain`] data.
    Plain,
    /// Any number of values of plain data.
    Slice,
    /// Any number of bytes.
    Bytes,
    /// What a [codec](crate::codec::Codec) writes.
    Codec,
}

/// The order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endianness {
    /// The least significant byte comes first.
    Little,
    /// The most significant byte comes first.
    Big,
}

impl Endianness {
    const HERE: Self = if cfg!(target_endian = "little") { Self::Little } else { Self::Big };
}

/// What a type of payload looks like in shared memory.
///
/// A channel is opened only by those whose type has the same schema: a field that was moved, renamed or given another type
/// makes it another one, though name and size stay. Whoever comes with another one gets
/// [`OpenError::Mismatch`](crate::OpenError::Mismatch), which shows the fields that differ.
///
/// ```
/// use waterway::Schema;
///
/// #[waterway::plain]
/// struct Tick { id: u64, prices: [f64; 2] }
///
/// let schema = Schema::of::<Tick>();
/// assert_eq!((schema.name(), schema.size(), schema.alignment()), ("Tick", 24, 8));
/// let prices = &schema.fields()[1];
/// assert_eq!((prices.name(), prices.offset(), prices.ty(), prices.count()), ("prices", 8, "f64", 2));
///
/// mod before {
///     #[waterway::plain]
///     pub struct Tick { prices: [f64; 2], id: u64 }
/// }
/// assert_ne!(schema.hash(), Schema::of::<before::Tick>().hash());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    name: String,
    kind: Kind,
    size: u64,
    alignment: u64,
    endianness: Endianness,
    codec: Option<String>,
    detail: Detail,
    fields: Vec<Field>,
    /// Of an enum: its representation, and what it can be.
    variants: Option<(String, Vec<Variant>)>,
}

/// What is known of a type besides its name, its size and its alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// The name says all.
    Name,
    /// What it consists of.
    Parts,
    /// It consists of something.
    Opaque,
}

/// A field of plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    name: String,
    offset: u64,
    ty: String,
    count: u64,
    is_array: bool,
    nested: Option<Schema>,
    size: u64,
    alignment: u64,
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    name: String,
    value: String,
    fields: Vec<Field>,
}

impl Schema {
    /// The schema of what a channel of that type carries: of plain data, of slices (`[T]`), of bytes (`[u8]`), or of
    /// [`Coded`](crate::codec::Coded).
    pub fn of<T: Payload + ?Sized>() -> Self {
        T::schema()
    }

    /// What the type is called, without the modules it is in; of what a codec writes, the message's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What kind of payload it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of a value; of slices and bytes those of an element, of what a codec writes 1.
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// The alignment in bytes.
    pub fn alignment(&self) -> usize {
        self.alignment as usize
    }

    /// The order of the bytes of its numbers.
    pub fn endianness(&self) -> Endianness {
        self.endianness
    }

    /// Which codec writes it.
    pub fn codec(&self) -> Option<&str> {
        self.codec.as_deref()
    }

    /// Whether it is known by name, size and alignment only, see [`Opaque`].
    pub fn is_opaque(&self) -> bool {
        self.detail == Detail::Opaque
    }

    /// The fields of plain data, in order. Of an array or a slice there is one without a name, its element.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The variants of an enum.
    pub fn variants(&self) -> &[Variant] {
        self.variants.as_ref().map_or(&[], |(_, variants)| variants)
    }

    /// A number that tells it from every other schema, in any program and by any compiler: FNV-1a of its text, which `Display` writes.
    pub fn hash(&self) -> u64 {
        crate::region::fnv1a(self.to_string().as_bytes())
    }

    /// As a channel of it says them: the size of an element of slices is negative.
    pub(crate) fn size_and_alignment(&self) -> (u64, u64) {
        let size = match self.kind {
            Kind::Plain => self.size,
            Kind::Slice | Kind::Bytes | Kind::Codec => self.size.wrapping_neg(),
        };
        (size, self.alignment)
    }

    /// Bytes of any number.
    pub(crate) fn bytes() -> Self {
        Self { kind: Kind::Bytes, ..Self::leaf("bytes", 1, 1) }
    }

    /// Values of plain data, of any number.
    pub(crate) fn slice_of<T: Plain>() -> Self {
        // As many as there are.
        let element = Field::whole(String::new(), 0, T::plain_schema(), 0);
        Self {
            kind: Kind::Slice,
            detail: Detail::Parts,
            fields: vec![element],
            ..Self::leaf(format!("[{}]", T::plain_schema().name), size_of::<T>(), align_of::<T>())
        }
    }

    /// What a codec writes.
    pub(crate) fn coded<T>(codec: &str) -> Self {
        let leaf = Self::leaf(format!("{} via {codec}", short_name(type_name::<T>())), 1, 1);
        Self { kind: Kind::Codec, codec: Some(codec.to_owned()), ..leaf }
    }

    /// Of what carries nothing.
    pub(crate) fn of_nothing() -> Self {
        Self::leaf("nothing", 0, 1)
    }

    /// A payload of which it is said, too, what it is for, or what comes back.
    pub(crate) fn with(self, name: String, parts: Vec<(&str, Schema)>) -> Self {
        let fields = parts.into_iter().map(|(name, schema)| Field::of(name.to_owned(), 0, schema)).collect();
        Self { name, fields, variants: None, detail: Detail::Parts, ..self }
    }

    fn leaf(name: impl Into<String>, size: usize, alignment: usize) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Plain,
            size: size as u64,
            alignment: alignment as u64,
            endianness: Endianness::HERE,
            codec: None,
            detail: Detail::Name,
            fields: Vec::new(),
            variants: None,
        }
    }

    /// Whether there is no more to say of it than its name.
    fn is_leaf(&self) -> bool {
        self.detail == Detail::Name && self.kind == Kind::Plain
    }

    /// What is said of the whole in one line.
    fn summary(&self) -> String {
        let mut text = match self.kind {
            Kind::Plain => format!("{} bytes, alignment {}", self.size, self.alignment),
            Kind::Slice => format!("any number of {} bytes each, alignment {}", self.size, self.alignment),
            Kind::Bytes | Kind::Codec => "any number of bytes".into(),
        };
        if let Some((integer, _)) = &self.variants {
            let _ = write!(text, ", enum of {integer}");
        }
        if self.is_opaque() {
            text.push_str(", opaque");
        }
        text
    }

    /// Writes a line for each thing that it consists of.
    fn parts(&self, path: &str, lines: &mut String) {
        for field in &self.fields {
            field.describe(path, lines);
        }
        for variant in self.variants() {
            let within = if path.is_empty() { variant.name.clone() } else { format!("{path}::{}", variant.name) };
            let _ = writeln!(lines, "{within} = {}", variant.value);
            variant.fields.iter().for_each(|field| field.describe(&within, lines));
        }
    }
}

/// The whole schema in lines: of the type, and of each field with its offset, of nested ones by their whole path. Two schemas are the
/// same if this is.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.endianness {
            Endianness::Little => "little-endian",
            Endianness::Big => "big-endian",
        };
        let mut lines = format!("{}: {}, {order}\n", self.name, self.summary());
        self.parts("", &mut lines);
        f.write_str(lines.trim_end())
    }
}

impl Field {
    /// A field of that type; an array is so many of its element.
    fn of(name: String, offset: u64, schema: Schema) -> Self {
        let mut field = Self::whole(name, offset, schema, 1);
        if let Some(Schema { kind: Kind::Plain, fields, .. }) = &field.nested
            && let [element] = &fields[..]
            && element.is_array
            && element.name.is_empty()
        {
            let element = element.clone();
            field = Self { ty: element.ty, count: element.count, is_array: true, nested: element.nested, ..field };
        }
        field
    }

    /// So many of that type.
    fn whole(name: String, offset: u64, schema: Schema, count: u64) -> Self {
        Self {
            name,
            offset,
            ty: schema.name.clone(),
            count,
            is_array: false,
            size: schema.size,
            alignment: schema.alignment,
            nested: (!schema.is_leaf()).then_some(schema),
        }
    }

    /// Its name; of a tuple struct its number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it begins, in bytes from the beginning of what it is in.
    pub fn offset(&self) -> usize {
        self.offset as usize
    }

    /// What its type is called; of an array that of an element.
    pub fn ty(&self) -> &str {
        &self.ty
    }

    /// How many there are of that type: 1, or the length of an array. 0 in a slice: any number.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// What the type consists of; `None` for numbers and the like.
    pub fn nested(&self) -> Option<&Schema> {
        self.nested.as_ref()
    }

    fn describe(&self, path: &str, lines: &mut String) {
        let separator = if path.is_empty() || self.name.is_empty() { "" } else { "." };
        let mut within = format!("{path}{separator}{}", self.name);
        let ty = match (self.is_array, self.count) {
            (true, count) => format!("[{}; {count}]", self.ty),
            (false, 0) => format!("[{}]", self.ty),
            (false, _) => self.ty.clone(),
        };
        let _ = write!(lines, "{within}: {ty} at {}", self.offset);
        let Some(nested) = &self.nested else { return lines.push('\n') };
        let _ = writeln!(lines, " ({})", nested.summary());
        if self.is_array || self.count == 0 {
            within.push_str("[]");
        }
        nested.parts(&within, lines);
    }
}

impl Variant {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number that stands for it, as text: a number of any representation.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Its fields; offsets are from the beginning of the enum.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// The most lines of a difference: so many are read.
const MOST_LINES: usize = 24;

/// The most lines of two texts that are looked at together.
const MOST_COMPARED: usize = 1024;

/// What differs between two texts: a line for each line that only one of them has, marked `-` or `+`. What is the same is left out.
pub(crate) fn difference(there: &str, asked: &str) -> String {
    let (there, asked): (Vec<_>, Vec<_>) = (there.lines().collect(), asked.lines().collect());
    let same_first = there.iter().zip(&asked).take_while(|(there, asked)| there == asked).count();
    let (there, asked) = (&there[same_first..], &asked[same_first..]);
    let same_last = there.iter().rev().zip(asked.iter().rev()).take_while(|(there, asked)| there == asked).count();
    let (there, asked) = (&there[..there.len() - same_last], &asked[..asked.len() - same_last]);
    let (there, asked) = (&there[..there.len().min(MOST_COMPARED)], &asked[..asked.len().min(MOST_COMPARED)]);

    // The longest common subsequence of what begins at each pair of lines.
    let mut common = vec![vec![0_u16; asked.len() + 1]; there.len() + 1];
    for (row, there) in there.iter().enumerate().rev() {
        for (column, asked) in asked.iter().enumerate().rev() {
            common[row][column] = match there == asked {
                true => common[row + 1][column + 1] + 1,
                false => common[row + 1][column].max(common[row][column + 1]),
            };
        }
    }
    let (mut row, mut column, mut lines) = (0, 0, Vec::new());
    while row < there.len() || column < asked.len() {
        if row < there.len() && column < asked.len() && there[row] == asked[column] {
            (row, column) = (row + 1, column + 1);
        } else if column == asked.len() || row < there.len() && common[row + 1][column] >= common[row][column + 1] {
            lines.push(format!("  - {}", there[row]));
            row += 1;
        } else {
            lines.push(format!("  + {}", asked[column]));
            column += 1;
        }
    }
    let more = lines.len().saturating_sub(MOST_LINES);
    lines.truncate(MOST_LINES);
    if more > 0 {
        lines.push(format!("  … and {more} lines more"));
    }
    lines.join("\n")
}

/// The hash of the schema of a type, as channels compute it.
pub(crate) fn hash_of<T: Payload + ?Sized>() -> u64 {
    thread_local! {
        /// Those that were asked for, by where the function is that makes the schema: the same code makes the same.
        static KNOWN: RefCell<Vec<(usize, u64)>> = const { RefCell::new(Vec::new()) };
    }
    let key = T::schema as fn() -> Schema as usize;
    let find = |known: &RefCell<Vec<(usize, u64)>>| {
        let mut known = known.borrow_mut();
        let at = known.iter().position(|(of, _)| *of == key)?;
        // The last one comes first: most often it is the same.
        known.swap(0, at);
        Some(known[0].1)
    };
    KNOWN.try_with(find).ok().flatten().unwrap_or_else(|| {
        let hash = T::schema().hash();
        // A thread that ends has none, and needs none.
        let _ = KNOWN.try_with(|known| known.borrow_mut().push((key, hash)));
        hash
    })
}
