//! Actors that are reachable over a link: exported ones and imported ones, with their counts.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use actix::Actor;
use portcullis_engine::Result;
use portcullis_transport::FrameHeader;
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::core::{LinkCore, protocol};
use super::wire::{ROOT, kind};
use crate::bridge::handle::{AnyHandle, Handle, Home, Shared};
use crate::bridge::interface::{Interface, ServedBy};
use crate::bridge::proxy::Proxy;

/// A handle on the wire.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct WireHandle {
    /// The receiver's own actor comes home; otherwise the sender's.
    home: bool,
    id: u32,
    generation: u32,
    pub(crate) interface: u32,
}

/// Makes the proxy for an actor of the peer.
#[derive(Clone, Copy)]
pub(crate) struct Importer {
    interface: u32,
    start: fn(&Rc<LinkCore>, u32, u32, u64) -> Arc<Shared>,
}

impl Importer {
    pub(crate) fn of<I: Interface>() -> Self {
        Self {
            interface: I::ID,
            start: |link, id, generation, import| {
                let proxy = Proxy::<I>::new(Rc::clone(link), id, generation, import).start();
                let home = Home {
                    link: link.id,
                    id,
                    generation,
                    sweep: Arc::clone(&link.sweep),
                };
                Shared::new(I::ID, <I as ServedBy<Proxy<I>>>::slots(&proxy), Some(home))
            },
        }
    }
}

/// The objects of a link.
#[derive(Default)]
pub(super) struct Objects {
    exports: Slab<Export>,
    by_object: HashMap<u64, usize>,
    generations: u32,
    /// Exports that the message being encoded refers to, to be undone if encoding fails.
    encoding: Vec<ExportRef>,
    imports: HashMap<(u32, u32), Import>,
    imported: u64,
}

/// One reference to an export.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExportRef {
    index: usize,
    generation: u32,
}

struct Export {
    generation: u32,
    shared: Arc<Shared>,
    references: u64,
}

struct Import {
    shared: Weak<Shared>,
    references: u64,
    import: u64,
}

impl LinkCore {
    /// Makes the first export, id 0 generation 0: what the peer finds without having been told.
    pub(super) fn export_root(&self, root: AnyHandle) {
        let mut objects = self.objects.borrow_mut();
        let object = root.shared().object;
        let index = objects.exports.insert(Export {
            generation: 0,
            shared: root.into_shared(),
            references: 1,
        });
        objects.by_object.insert(object, index);
    }

    pub(super) fn import_root<I: Interface>(self: &Rc<Self>) -> Result<Handle<I>> {
        self.check()?;
        let wire = WireHandle {
            home: false,
            id: ROOT,
            generation: 0,
            interface: I::ID,
        };
        self.import(wire, Importer::of::<I>())
            .map(Handle::from_shared)
            .map_err(protocol)
    }

    /// Takes references back that were not sent after all.
    pub(super) fn take_back(&self, references: Vec<ExportRef>) {
        let released: Vec<_> = {
            let mut objects = self.objects.borrow_mut();
            let take_back = |of: ExportRef| {
                let export = objects.exports.get(of.index)?;
                (export.generation == of.generation).then(|| objects.give_back(of.index, 1))?
            };
            references.into_iter().filter_map(take_back).collect()
        };
        // Dropped outside of the borrow: it may be the last handle to an actor.
        drop(released);
    }

    /// The form in which a handle leaves this process.
    pub(crate) fn export(&self, shared: &Arc<Shared>) -> Result<WireHandle, String> {
        if let Some(home) = shared.home.as_ref().filter(|home| home.link == self.id) {
            return Ok(WireHandle {
                home: true,
                id: home.id,
                generation: home.generation,
                interface: shared.interface,
            });
        }
        let mut objects = self.objects.borrow_mut();
        let index = match objects.by_object.get(&shared.object) {
            Some(&index) => {
                objects.exports[index].references += 1;
                index
            }
            None => {
                if objects.exports.len() >= self.agreed.limits.max_objects as usize {
                    return Err("more exported objects than agreed".into());
                }
                objects.generations = objects.generations.wrapping_add(1).max(1);
                let generation = objects.generations;
                let index = objects.exports.insert(Export {
                    generation,
                    shared: Arc::clone(shared),
                    references: 1,
                });
                objects.by_object.insert(shared.object, index);
                index
            }
        };
        let generation = objects.exports[index].generation;
        objects.encoding.push(ExportRef { index, generation });
        Ok(WireHandle {
            home: false,
            id: u32::try_from(index).map_err(|_| "too many objects")?,
            generation,
            interface: shared.interface,
        })
    }

    /// The handle behind a form that arrived.
    pub(crate) fn import(
        self: &Rc<Self>,
        wire: WireHandle,
        importer: Importer,
    ) -> Result<Arc<Shared>, String> {
        if wire.home {
            let shared = self
                .exported(wire.id, wire.generation)
                .map_err(|error| error.to_string())?;
            if shared.interface != importer.interface {
                return Err("an object under another interface".into());
            }
            return Ok(shared);
        }
        let key = (wire.id, wire.generation);
        let import = {
            let mut objects = self.objects.borrow_mut();
            let known = objects.imports.get_mut(&key).and_then(|known| {
                let shared = known.shared.upgrade()?;
                known.references += 1;
                Some(shared)
            });
            if let Some(shared) = known {
                if shared.interface != importer.interface {
                    return Err("an object under another interface".into());
                }
                return Ok(shared);
            }
            if objects.imports.len() >= self.agreed.limits.max_objects as usize {
                return Err("more imported objects than agreed".into());
            }
            objects.imported += 1;
            objects.imported
        };
        let shared = (importer.start)(self, wire.id, wire.generation, import);
        let replaced = self.objects.borrow_mut().imports.insert(
            key,
            Import {
                shared: Arc::downgrade(&shared),
                references: 1,
                import,
            },
        );
        if let Some(old) = replaced {
            // Its last handle is gone and its proxy is about to stop: what it holds is given back here.
            self.push_release(wire.id, wire.generation, old.references);
        }
        Ok(shared)
    }

    /// The last handle of an imported object was dropped.
    pub(crate) fn release_import(&self, id: u32, generation: u32, import: u64) {
        let references = {
            let mut objects = self.objects.borrow_mut();
            match objects.imports.get(&(id, generation)) {
                Some(known) if known.import == import => objects
                    .imports
                    .remove(&(id, generation))
                    .map(|known| known.references),
                _ => None,
            }
        };
        if let Some(references) = references.filter(|_| !self.is_lost()) {
            self.push_release(id, generation, references);
        }
    }

    fn push_release(&self, object: u32, generation: u32, references: u64) {
        let header = FrameHeader {
            kind: kind::RELEASE,
            object,
            generation,
            call: references,
            ..FrameHeader::default()
        };
        self.push_control(header, &[]);
    }

    pub(super) fn receive_release(&self, header: &FrameHeader) -> Result<()> {
        let released = {
            let mut objects = self.objects.borrow_mut();
            let index = header.object as usize;
            match objects.exports.get(index) {
                Some(export)
                    if export.generation == header.generation
                        && export.references >= header.call =>
                {
                    objects.give_back(index, header.call)
                }
                _ => return Err(protocol("a release of what was not given")),
            }
        };
        // Dropped outside of the borrow: it may be the last handle to an actor.
        drop(released);
        Ok(())
    }

    pub(super) fn exported(&self, id: u32, generation: u32) -> Result<Arc<Shared>> {
        match self.objects.borrow().exports.get(id as usize) {
            Some(export) if export.generation == generation => Ok(Arc::clone(&export.shared)),
            _ => Err(protocol(format!("object {id} does not exist"))),
        }
    }
}

impl Objects {
    /// Exported and imported objects.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.exports.len(), self.imports.len())
    }

    /// References that the message being encoded has taken.
    pub(super) fn take_encoding(&mut self) -> Vec<ExportRef> {
        std::mem::take(&mut self.encoding)
    }

    /// Takes references away; the export's handle comes out with the last of them.
    fn give_back(&mut self, index: usize, references: u64) -> Option<Arc<Shared>> {
        let export = self.exports.get_mut(index)?;
        export.references = export.references.saturating_sub(references);
        if export.references > 0 {
            return None;
        }
        let export = self.exports.remove(index);
        self.by_object.remove(&export.shared.object);
        Some(export.shared)
    }
}
