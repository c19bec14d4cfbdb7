//! Derive macros of Portcullis: a message that crosses a process wall, and a component in one struct.
//!
//! They exist so that nobody marshals by hand. Paths lead to the `portcullis` facade.
#![forbid(unsafe_code)]

mod component;
mod remote;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a serde type a message that works across a process wall.
///
/// Options: `#[remote(reply = Type)]` (default `()`), `name = "crate.Message"` (the stable wire name; default is the crate
/// and the type), `deadline_ms = 5000`, `no_deadline` for a request that waits by design.
#[proc_macro_derive(Remote, attributes(remote))]
pub fn derive_remote(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    remote::expand(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// Makes a serde struct a component whose settings are the struct itself.
///
/// `#[component(transform, class = "audio.gain", about = "Multiplies PCM by a constant", accepts = [PCM_S16], produces =
/// [PCM_S16])]`; the role is one of `transform`, `decoder`, `converter`, `source`, `sink`; `inline` marks a cheap one, `version = 2`
/// gives a version other than 1.
#[proc_macro_derive(Component, attributes(component))]
pub fn derive_component(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    component::expand(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
