//! `#[derive(Component)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::{DeriveInput, Error, Ident, LitInt, LitStr, Result, Token, bracketed};

const ROLES: [&str; 5] = ["transform", "decoder", "converter", "source", "sink"];

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let mut role = None::<Ident>;
    let mut class = None::<LitStr>;
    let mut about = None::<LitStr>;
    let mut accepts = Vec::new();
    let mut produces = Vec::new();
    let mut inline = quote!();
    let mut version = quote!();
    for attribute in input
        .attrs
        .iter()
        .filter(|a| a.path().is_ident("component"))
    {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("class") {
                class = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("about") {
                about = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("accepts") || meta.path.is_ident("produces") {
                let list;
                let value = meta.value()?;
                bracketed!(list in value);
                let names = Punctuated::<Ident, Token![,]>::parse_terminated(&list)?;
                let target = if meta.path.is_ident("accepts") {
                    &mut accepts
                } else {
                    &mut produces
                };
                target.extend(names);
            } else if meta.path.is_ident("version") {
                let number: LitInt = meta.value()?.parse()?;
                version = quote!(.version(#number));
            } else if meta.path.is_ident("inline") {
                inline = quote!(.inline());
            } else if let Some(ident) = meta
                .path
                .get_ident()
                .filter(|i| ROLES.iter().any(|r| i == r))
            {
                role = Some(ident.clone());
            } else {
                return Err(meta.error(format!(
                    "expected a role ({}), class, about, version, accepts, produces or inline",
                    ROLES.join(", ")
                )));
            }
            Ok(())
        })?;
    }
    let missing =
        |what: &str| Error::new_spanned(&input.ident, format!("#[component({what})] is missing"));
    let role = role.ok_or_else(|| missing("transform, source, sink, ..."))?;
    let class = class.ok_or_else(|| missing("class = \"...\""))?;
    let about = about.ok_or_else(|| missing("about = \"...\""))?;
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl ::portcullis::__derive::Component for #ident {
            type Settings = Self;
            const INFO: ::portcullis::__derive::ComponentInfo =
                ::portcullis::__derive::ComponentInfo::#role(#class, #about)
                    .accepts(&[#(::portcullis::__derive::Subtype::#accepts),*])
                    .produces(&[#(::portcullis::__derive::Subtype::#produces),*])
                    #version
                    #inline;
            fn new(settings: Self) -> ::portcullis::__derive::Result<Self> {
                ::core::result::Result::Ok(settings)
            }
        }
    })
}
