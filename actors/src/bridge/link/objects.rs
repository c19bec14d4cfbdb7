//! Actors that are reachable over a link: exported ones and imported ones, with their counts.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use portcullis_engine::{Error, Result};
use portcullis_transport::{FrameHeader, TransportError};
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::core::{LinkCore, protocol};
use super::death::AbortOnDrop;
use super::incoming::Served;
use super::wire::{FLAG_WATCHED, ROOT, kind};
use crate::bridge::context::Context;
use crate::bridge::gate::{Gate, Permit};
use crate::bridge::handle::{AnyHandle, Handle, Home, Shared};
use crate::bridge::interface::Interface;
use crate::bridge::life::Life;
use crate::bridge::proxy::Proxy;

/// A handle on the wire.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct WireHandle {
    /// The process where the actor lives: one of the two that the link connects, until there are links between hosts.
    host: u64,
    id: u32,
    generation: u32,
    pub(crate) interface: u32,
}

/// The objects of a link.
#[derive(Default)]
pub(super) struct Objects {
    exports: Slab<Export>,
    by_object: HashMap<u64, usize>,
    generations: u32,
    /// Exports that the message being encoded refers to, to be undone if encoding fails.
    encoding: Vec<ExportRef>,
    /// Imports by their number. One whose handles are gone stays until its proxy has stopped.
    imports: HashMap<u64, Import>,
    /// The newest import of each object of the peer.
    current: HashMap<(u32, u32), u64>,
    imported: u64,
    /// The places on the way to each object of the peer. Calls outlive their handles, and an object may come again.
    gates: HashMap<(u32, u32), Weak<Gate>>,
    /// Keeps the peer's root, which is given once and for all.
    root: Option<Arc<Shared>>,
}

/// One reference to an export.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExportRef {
    index: usize,
    generation: u32,
}

pub(super) struct Export {
    pub(super) generation: u32,
    shared: Arc<Shared>,
    /// The peer's calls of it.
    served: Rc<Served>,
    references: u64,
    /// Waits for the actor's end.
    pub(super) mourner: AbortOnDrop,
    /// The peer is told of the actor's end also when it has no handle any more.
    pub(super) is_watched: bool,
    /// The peer has been told of it.
    pub(super) is_told: bool,
}

struct Import {
    key: (u32, u32),
    shared: Weak<Shared>,
    references: u64,
    life: Arc<Life>,
}

impl LinkCore {
    /// Makes the first export, id 0 generation 0: what the peer finds without having been told.
    pub(super) fn export_root(self: &Rc<Self>, root: AnyHandle) {
        let mourner = self.mourn(root.shared(), ROOT, 0);
        let mut objects = self.objects.borrow_mut();
        let object = root.shared().object;
        let index = objects.exports.insert(Export {
            generation: 0,
            served: Served::new(root.shared_arc()),
            shared: root.into_shared(),
            references: 1,
            mourner,
            is_watched: false,
            is_told: false,
        });
        objects.by_object.insert(object, index);
    }

    pub(super) fn import_root<I: Interface>(self: &Rc<Self>) -> Result<Handle<I>> {
        self.check()?;
        let known = self.objects.borrow().root.clone();
        let root = match known {
            Some(root) => root,
            None => {
                let root = self
                    .import(WireHandle {
                        host: self.agreed.peer_host_id,
                        id: ROOT,
                        generation: 0,
                        interface: I::ID,
                    })
                    .map_err(protocol)?;
                if !self.is_lost() {
                    self.objects.borrow_mut().root = Some(Arc::clone(&root));
                }
                root
            }
        };
        AnyHandle::from_shared(root).typed::<I>()
    }

    /// Takes references back that were not sent after all.
    pub(super) fn take_back(&self, references: Vec<ExportRef>) {
        let released: Vec<_> = {
            let mut objects = self.objects.borrow_mut();
            let take_back = |of: ExportRef| {
                let export = objects.exports.get(of.index)?;
                let is_it = export.generation == of.generation;
                let export = is_it.then(|| objects.give_back(of.index, 1))??;
                Some((of.index, export))
            };
            references.into_iter().filter_map(take_back).collect()
        };
        // Outside of the borrow: it may be the last handle to an actor.
        for (index, export) in released {
            if let Err(error) = self.unexport(index, export) {
                self.sender
                    .abort(TransportError::protocol(error.to_string()));
            }
        }
    }

    /// The form in which a handle leaves this process.
    pub(crate) fn export(self: &Rc<Self>, shared: &Arc<Shared>) -> Result<WireHandle, String> {
        if let Some(home) = shared.home.as_ref().filter(|home| home.link == self.id) {
            return Ok(WireHandle {
                host: self.agreed.peer_host_id,
                id: home.id,
                generation: home.generation,
                interface: shared.interface,
            });
        }
        if !shared.is_known() {
            return Err(
                "a handle whose interface this process does not know, to a third one".into(),
            );
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
                let index = objects.exports.vacant_key();
                let id = u32::try_from(index).map_err(|_| "too many objects")?;
                objects.exports.insert(Export {
                    generation,
                    served: Served::new(shared),
                    shared: Arc::clone(shared),
                    references: 1,
                    mourner: self.mourn(shared, id, generation),
                    is_watched: false,
                    is_told: false,
                });
                objects.by_object.insert(shared.object, index);
                index
            }
        };
        let generation = objects.exports[index].generation;
        objects.encoding.push(ExportRef { index, generation });
        Ok(WireHandle {
            host: self.agreed.host_id,
            id: u32::try_from(index).map_err(|_| "too many objects")?,
            generation,
            interface: shared.interface,
        })
    }

    /// The handle behind a form that arrived.
    pub(crate) fn import(self: &Rc<Self>, wire: WireHandle) -> Result<Arc<Shared>, String> {
        let same_interface = |shared: Arc<Shared>| match shared.interface == wire.interface {
            true => Ok(shared),
            false => Err("an object under another interface".to_owned()),
        };
        if wire.host == self.agreed.host_id {
            let shared = self
                .exported(wire.id, wire.generation)
                .ok_or_else(|| format!("object {} does not exist", wire.id))?;
            return same_interface(shared);
        }
        if wire.host != self.agreed.peer_host_id {
            return Err(format!(
                "a handle to an actor in host {}; this link connects hosts {} and {}",
                wire.host, self.agreed.host_id, self.agreed.peer_host_id
            ));
        }
        let key = (wire.id, wire.generation);
        let import = {
            let mut objects = self.objects.borrow_mut();
            let newest = objects.current.get(&key).copied();
            let known = newest.and_then(|import| {
                let known = objects.imports.get_mut(&import)?;
                let shared = known.shared.upgrade()?;
                known.references += 1;
                Some(shared)
            });
            if let Some(shared) = known {
                return same_interface(shared);
            }
            if newest.is_none() && objects.current.len() >= self.agreed.limits.max_objects as usize
            {
                return Err("more imported objects than agreed".into());
            }
            objects.imported += 1;
            objects.imported
        };
        let life = Life::new();
        let proxy = Proxy::new(
            Rc::clone(self),
            wire.id,
            wire.generation,
            import,
            Arc::clone(&life),
        );
        let home = Home {
            proxy: Context::start(proxy),
            link: self.id,
            id: wire.id,
            generation: wire.generation,
            place: self.place.get(),
        };
        let mut objects = self.objects.borrow_mut();
        let gate = objects.gate(key, || {
            let limits = &self.agreed.limits;
            let lines = Some(Arc::clone(&self.lines));
            Gate::new(limits.object_window, limits.max_objects, lines)
        });
        let shared = Shared::remote(wire.interface, home, Arc::clone(&life), gate);
        objects.current.insert(key, import);
        // One that it replaces gives back what it holds when its proxy has stopped: what went through it is there then.
        objects.imports.insert(
            import,
            Import {
                key,
                shared: Arc::downgrade(&shared),
                references: 1,
                life,
            },
        );
        Ok(shared)
    }

    /// The last handle of an import was dropped, and its last message is on its way.
    pub(crate) fn release_import(&self, import: u64) {
        let released = {
            let mut objects = self.objects.borrow_mut();
            let released = objects.imports.remove(&import);
            if let Some(released) = &released
                && let Some(gate) = objects.gates.get(&released.key)
                && gate.strong_count() == 0
            {
                objects.gates.remove(&released.key);
            }
            if let Some(released) = &released
                && objects.current.get(&released.key) == Some(&import)
            {
                objects.current.remove(&released.key);
            }
            released
        };
        if let Some(released) = released {
            if self.is_lost() {
                return self.watch_loss(released.key, &released.life);
            }
            let flags = match self.keep_watch(released.key, released.life) {
                true => FLAG_WATCHED,
                false => 0,
            };
            self.push_release(released.key, released.references, flags);
        }
    }

    pub(super) fn push_release(&self, key: (u32, u32), references: u64, flags: u16) {
        let (object, generation) = key;
        let header = FrameHeader {
            kind: kind::RELEASE,
            flags,
            object,
            generation,
            call: references,
            ..FrameHeader::default()
        };
        self.push_control(header, &[]);
    }

    pub(super) fn receive_release(&self, header: &FrameHeader) -> Result<()> {
        let index = header.object as usize;
        let released = {
            let mut objects = self.objects.borrow_mut();
            match objects.exports.get_mut(index) {
                Some(export)
                    if export.generation == header.generation
                        && export.references >= header.call =>
                {
                    export.is_watched = match header.call {
                        0 => false,
                        _ => export.is_watched || header.flags & FLAG_WATCHED != 0,
                    };
                    match header.call {
                        0 => None,
                        references => objects.give_back(index, references),
                    }
                }
                _ if header.call == 0 => {
                    drop(objects);
                    return self.receive_unwatch((header.object, header.generation));
                }
                _ => return Err(protocol("a release of what was not given")),
            }
        };
        // Outside of the borrow: it may be the last handle to an actor.
        match released {
            Some(export) => self.unexport(index, export),
            None => Ok(()),
        }
    }

    pub(super) fn exported(&self, id: u32, generation: u32) -> Option<Arc<Shared>> {
        let objects = self.objects.borrow();
        let export = objects.exports.get(id as usize)?;
        (export.generation == generation).then(|| Arc::clone(&export.shared))
    }

    /// The object that a call of the peer is for.
    pub(super) fn called(&self, id: u32, generation: u32) -> Option<(Arc<Shared>, Rc<Served>)> {
        let objects = self.objects.borrow();
        let export = objects.exports.get(id as usize)?;
        let found = || (Arc::clone(&export.shared), Rc::clone(&export.served));
        (export.generation == generation).then(found)
    }

    /// Whether an object of this name may have been given to the peer at some time.
    pub(super) fn was_exported(&self, id: u32, generation: u32) -> bool {
        let objects = self.objects.borrow();
        match generation {
            0 => id == ROOT,
            _ => generation <= objects.generations && id < self.agreed.limits.max_objects,
        }
    }
}

impl Objects {
    /// Exported and imported objects.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.exports.len(), self.imports.len())
    }

    /// The peer is being told of an export's end; whether there is such an export.
    pub(super) fn tell(&mut self, id: u32, generation: u32) -> bool {
        let export = self.exports.get_mut(id as usize);
        let export = export.filter(|export| export.generation == generation);
        export.map(|export| export.is_told = true).is_some()
    }

    /// The life of an object of the peer.
    pub(super) fn life_of(&self, id: u32, generation: u32) -> Option<Arc<Life>> {
        let import = self.current.get(&(id, generation))?;
        self.imports
            .get(import)
            .map(|import| Arc::clone(&import.life))
    }

    /// All objects of the peer have ended, for this reason.
    pub(super) fn end_imports(&self, end: &Error) {
        for import in self.imports.values() {
            import.life.end(end.clone());
        }
    }

    fn gate(&mut self, key: (u32, u32), new: impl FnOnce() -> Arc<Gate>) -> Arc<Gate> {
        if let Some(gate) = self.gates.get(&key).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = new();
        if self.gates.len() > 64 + 2 * self.imports.len() {
            self.gates.retain(|_, gate| gate.strong_count() > 0);
        }
        self.gates.insert(key, Arc::downgrade(&gate));
        gate
    }

    /// A call has ended that had this place.
    pub(super) fn ended_call(&mut self, key: (u32, u32), permit: &Permit) {
        if Arc::strong_count(permit.gate()) == 1 {
            self.gates.remove(&key);
        }
    }

    /// References that the message being encoded has taken.
    pub(super) fn take_encoding(&mut self) -> Vec<ExportRef> {
        std::mem::take(&mut self.encoding)
    }

    /// Takes references away; the export comes out with the last of them.
    fn give_back(&mut self, index: usize, references: u64) -> Option<Export> {
        let export = self.exports.get_mut(index)?;
        export.references = export.references.saturating_sub(references);
        if export.references > 0 {
            return None;
        }
        let export = self.exports.remove(index);
        self.by_object.remove(&export.shared.object);
        Some(export)
    }
}
