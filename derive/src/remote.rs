//! `#[derive(Remote)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields, LitInt, LitStr, Result, Type};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let mut reply: Type = syn::parse_quote!(());
    let mut name = None::<LitStr>;
    let mut deadline = quote!(::core::option::Option::Some(
        ::core::time::Duration::from_secs(5)
    ));
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("remote")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("reply") {
                reply = meta.value()?.parse()?;
            } else if meta.path.is_ident("name") {
                name = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("deadline_ms") {
                let millis: LitInt = meta.value()?.parse()?;
                deadline = quote!(::core::option::Option::Some(::core::time::Duration::from_millis(#millis)));
            } else if meta.path.is_ident("no_deadline") {
                deadline = quote!(::core::option::Option::None);
            } else {
                return Err(meta.error("expected reply, name, deadline_ms or no_deadline"));
            }
            Ok(())
        })?;
    }
    let ident = &input.ident;
    let name = match name {
        Some(name) => quote!(#name),
        None => {
            let text = LitStr::new(&ident.to_string(), ident.span());
            quote!(::core::concat!(::core::env!("CARGO_PKG_NAME"), ".", #text))
        }
    };
    let shape = shape(&input.data, &reply);
    let (impl_generics, type_generics, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::portcullis::__derive::actix::Message for #ident #type_generics #bounds {
            type Result = ::core::result::Result<#reply, ::portcullis::__derive::Error>;
        }
        #[automatically_derived]
        impl #impl_generics ::portcullis::__derive::Remote for #ident #type_generics #bounds {
            type Reply = #reply;
            const NAME: &'static str = #name;
            const DEADLINE: ::core::option::Option<::core::time::Duration> = #deadline;
            const SHAPE: u32 = ::portcullis::__derive::wire_id(#shape);
        }
    })
}

/// What the wire form depends on, as far as it is written in the message itself: the fields in order, and the reply.
fn shape(data: &Data, reply: &Type) -> String {
    let fields = |fields: &Fields| -> String {
        let field = |field: &syn::Field| {
            let (name, kind) = (&field.ident, &field.ty);
            quote!(#name : #kind,).to_string()
        };
        fields.iter().map(field).collect()
    };
    let text = match data {
        Data::Struct(data) => fields(&data.fields),
        Data::Enum(data) => {
            let variant = |variant: &syn::Variant| {
                format!("{}{{{}}}", variant.ident, fields(&variant.fields))
            };
            data.variants.iter().map(variant).collect()
        }
        Data::Union(_) => String::new(),
    };
    let text = format!("{text}->{}", quote!(#reply));
    // Compilers differ in where they put spaces.
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
