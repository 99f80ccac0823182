//! What the macros write.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Expr, Fields, Ident, Index, LitStr, Meta, Path, Result, Token, Type,
    ext::IdentExt,
    parse::{Parse, ParseStream, Parser},
    parse_quote,
    punctuated::Punctuated,
    spanned::Spanned,
};

/// What zerocopy derives for plain data. `FromZeros` and `FromBytes` have the first of them in them.
/// Not `KnownLayout`: what has all four is plain without the attribute, and known by its name only.
const DERIVES: [&str; 3] = ["TryFromBytes", "IntoBytes", "Immutable"];

/// Representations that say how large the discriminant of an enum is.
const INTEGERS: [&str; 12] = ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "u128", "i128", "usize", "isize"];

/// The crate's name, unless it is told otherwise.
const WATERWAY: &str = "::waterway";

pub(crate) fn attribute(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    expand(syn::parse2(item)?, &name_of_crate.parse2(arguments)?)
}

pub(crate) fn items(items: TokenStream) -> Result<TokenStream> {
    let Items(items) = syn::parse2(items)?;
    items
        .into_iter()
        .map(|mut item| {
            let derived = derived(&item.attrs)?;
            for copied in ["clone::Clone", "marker::Copy"] {
                let path: Path = syn::parse_str(&format!("::core::{copied}"))?;
                if !derived.iter().any(|name| path.segments.last().is_some_and(|last| last.ident == name)) {
                    item.attrs.push(parse_quote!(#[derive(#path)]));
                }
            }
            expand(item, WATERWAY)
        })
        .collect()
}

/// Types, one after the other.
struct Items(Vec<DeriveInput>);

impl Parse for Items {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut items = Vec::new();
        while !input.is_empty() {
            items.push(input.parse()?);
        }
        Ok(Self(items))
    }
}

/// Reads `crate = "path"`, or nothing.
fn name_of_crate(input: ParseStream<'_>) -> Result<String> {
    if input.is_empty() {
        return Ok(WATERWAY.to_owned());
    }
    input.parse::<Token![crate]>()?;
    input.parse::<Token![=]>()?;
    Ok(input.parse::<LitStr>()?.value())
}

/// Names of what is derived already, without their paths.
fn derived(attributes: &[Attribute]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
        let paths = attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated)?;
        names.extend(paths.iter().filter_map(|path| path.segments.last()).map(|last| last.ident.to_string()));
    }
    Ok(names)
}

/// Words of the `repr` attributes: `C`, `u8`, `align`, …
fn representation(attributes: &[Attribute]) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        let parts = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)?;
        words.extend(parts.iter().filter_map(|part| part.path().get_ident()).map(Ident::to_string));
    }
    Ok(words)
}

/// Takes `KnownLayout` out of what is derived. A type that had the derives may keep the line, and gains its fields.
fn without_layout(attributes: &mut [Attribute]) -> Result<()> {
    for attribute in attributes.iter_mut().filter(|attribute| attribute.path().is_ident("derive")) {
        let paths = attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated)?;
        let is_layout = |path: &&Path| path.segments.last().is_some_and(|last| last.ident == "KnownLayout");
        if paths.iter().any(|path| is_layout(&path)) {
            let rest = paths.iter().filter(|path| !is_layout(path));
            *attribute = parse_quote!(#[derive(#(#rest),*)]);
        }
    }
    Ok(())
}

fn expand(mut item: DeriveInput, waterway: &str) -> Result<TokenStream> {
    without_layout(&mut item.attrs)?;
    let root: Path = syn::parse_str(waterway)?;
    if let Some(lifetime) = item.generics.lifetimes().next() {
        return Err(Error::new(
            lifetime.span(),
            "plain data borrows nothing: another process cannot follow a reference. Have the value itself, or send it by a codec",
        ));
    }
    let repr = representation(&item.attrs)?;
    let has = |word: &str| repr.iter().any(|have| have == word);
    let (repr_c, schema) = match &item.data {
        Data::Struct(data) => {
            ((!has("C") && !has("transparent")).then(|| quote!(#[repr(C)])), of_struct(&root, &data.fields))
        }
        Data::Enum(data) => {
            let Some(integer) = INTEGERS.into_iter().find(|integer| has(integer)) else {
                return Err(Error::new(
                    item.ident.span(),
                    "an enum in shared memory says how large it is: write #[repr(u8)] below #[waterway::plain]",
                ));
            };
            (None, of_enum(&root, integer, data)?)
        }
        Data::Union(data) => {
            return Err(Error::new(
                data.union_token.span,
                "a union cannot be plain data: nobody could tell which of its fields is there. Use an enum with #[repr(u8)]",
            ));
        }
    };

    let derived = derived(&item.attrs)?;
    let has = |name: &str| derived.iter().any(|have| have == name);
    let derives = DERIVES
        .into_iter()
        .filter(|name| !has(name) && !(*name == "TryFromBytes" && (has("FromZeros") || has("FromBytes"))));
    let derives = derives.map(|name| Ident::new(name, Span::call_site()));
    let zerocopy = format!("{waterway}::zerocopy");

    // Below all derives that take it.
    item.attrs.push(parse_quote!(#[zerocopy(crate = #zerocopy)]));

    let name = &item.ident;
    let spelt = name.unraw().to_string();
    let (implemented, arguments, _) = item.generics.split_for_impl();
    let mut bounds = item.generics.clone();
    let called = if item.generics.params.is_empty() {
        quote!(::std::string::String::from(#spelt))
    } else {
        // What is plain depends on the arguments.
        let predicates = &mut bounds.make_where_clause().predicates;
        predicates.push(parse_quote! {
            Self: #root::zerocopy::TryFromBytes + #root::zerocopy::IntoBytes + #root::zerocopy::Immutable
                + ::core::marker::Send + ::core::marker::Sync + 'static
        });
        for field in fields_of(&item.data) {
            let ty = element(&field.ty);
            predicates.push(parse_quote!(#ty: #root::channel::Plain));
        }
        quote!(#root::schema::written::name_of::<Self>())
    };
    let (_, _, bounds) = bounds.split_for_impl();

    Ok(quote! {
        #[derive(#(#root::zerocopy::#derives),*)]
        #repr_c
        #item

        #[automatically_derived]
        impl #implemented #root::channel::Plain for #name #arguments #bounds {
            fn plain_schema() -> #root::Schema {
                #root::schema::written::plain::<Self>(#called, #schema)
            }
        }
    })
}

fn fields_of(data: &Data) -> Vec<&syn::Field> {
    match data {
        Data::Struct(data) => data.fields.iter().collect(),
        Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
        Data::Union(_) => Vec::new(),
    }
}

/// What an array, of arrays, consists of.
fn element(ty: &Type) -> &Type {
    match ty {
        Type::Array(array) => element(&array.elem),
        Type::Paren(inner) => element(&inner.elem),
        Type::Group(inner) => element(&inner.elem),
        other => other,
    }
}

/// The schema of a field's type.
fn schema_of(root: &Path, ty: &Type) -> TokenStream {
    match ty {
        Type::Array(array) => {
            let (element, count) = (schema_of(root, &array.elem), &array.len);
            quote!(#root::schema::written::array(#element, #count))
        }
        Type::Paren(inner) => schema_of(root, &inner.elem),
        Type::Group(inner) => schema_of(root, &inner.elem),
        other => quote_spanned!(other.span()=> #root::schema::written::of::<#other>()),
    }
}

fn of_struct(root: &Path, fields: &Fields) -> TokenStream {
    let fields = fields.iter().enumerate().map(|(number, field)| {
        let (ty, spelt) = (&field.ty, spelt(field, number));
        let member = field.ident.clone().map_or_else(|| syn::Member::Unnamed(Index::from(number)), syn::Member::Named);
        let schema = schema_of(root, ty);
        // An error about a field points to its type.
        quote_spanned!(ty.span()=> #root::schema::written::field(#spelt, ::core::mem::offset_of!(Self, #member), #schema))
    });
    quote!(#root::schema::written::Body::Struct(::std::vec![#(#fields),*]))
}

/// Where the fields of a variant stand follows from its representation: behind the discriminant, in order.
fn of_enum(root: &Path, integer: &str, data: &DataEnum) -> Result<TokenStream> {
    let integer = Ident::new(integer, Span::call_site());
    let mut variants = Vec::new();
    let mut last: Option<Expr> = None;
    for variant in &data.variants {
        let value: Expr = match (&variant.discriminant, last) {
            (Some((_, value)), _) => value.clone(),
            (None, Some(last)) => parse_quote!((#last) + 1),
            (None, None) => parse_quote!(0),
        };
        let spelled = variant.ident.unraw().to_string();
        let fields = variant.fields.iter().enumerate().map(|(number, field)| {
            let (ty, spelt) = (&field.ty, spelt(field, number));
            let schema = schema_of(root, ty);
            quote_spanned!(ty.span()=> #root::schema::written::field(#spelt, 0, #schema))
        });
        variants.push(quote! {
            #root::schema::written::variant(
                #spelled,
                { const VALUE: #integer = #value; ::std::string::ToString::to_string(&VALUE) },
                ::std::vec![#(#fields),*],
            )
        });
        last = Some(value);
    }
    let spelled = integer.to_string();
    Ok(quote! {
        #root::schema::written::Body::Enum {
            integer: #spelled,
            discriminant: ::core::mem::size_of::<#integer>(),
            variants: ::std::vec![#(#variants),*],
        }
    })
}

fn spelt(field: &syn::Field, number: usize) -> String {
    field.ident.as_ref().map_or_else(|| number.to_string(), |name| name.unraw().to_string())
}
