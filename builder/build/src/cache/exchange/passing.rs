//! Layers that need not come here at all: the image is not kept, and where it goes they are there already.

use std::collections::BTreeMap;

use kiln_image::Reference;
use kiln_image::artifacts::Artifacts;
use kiln_image::manifest::Descriptor;
use kiln_store::{DiffId, Store};

use super::Exchange;
use super::elsewhere::Place;
use super::location::Location;
use crate::Result;
use crate::parallel::in_parallel;

impl Exchange {
    /// Those of the layers that must be here before an image of them is sent to all of these places. A registry takes what
    /// it has in another repository from there.
    pub(crate) fn needed_to_send(&self, store: &Store, layers: &[DiffId], to: &[Reference]) -> Result<Vec<DiffId>> {
        let mut needed = Vec::new();
        let mut waiting = Vec::new();
        for layer in layers {
            match self.elsewhere.place(layer) {
                _ if store.layer(layer)?.is_some() => {}
                Some(place) => waiting.push((*layer, self.blob(&place, layer), self.repository(&place))),
                None => needed.push(*layer),
            }
        }
        for target in to {
            let missing = self.missing_at(target, &waiting).unwrap_or_else(|error| {
                // Whoever sends the image says what is wrong.
                tracing::debug!(%error, "ask {} for layers", target.familiar());
                waiting.iter().map(|(layer, ..)| *layer).collect()
            });
            needed.extend(missing);
        }
        Ok(needed)
    }

    fn missing_at(
        &self,
        target: &Reference,
        layers: &[(DiffId, Option<Descriptor>, Option<Reference>)],
    ) -> Result<Vec<DiffId>> {
        let runtime = self.runtime()?;
        let place = runtime.block_on(Artifacts::in_registry(target, true, &self.options))?;
        let missing = in_parallel(layers, |(layer, blob, from)| {
            let Some(blob) = blob else { return Ok(Some(*layer)) };
            let from = from.as_ref().filter(|from| from.registry() == target.registry()).map(Reference::repository);
            let there = runtime.block_on(async {
                let there = place.has(blob).await? || place.take(blob, from).await;
                Ok::<_, kiln_image::Error>(there)
            })?;
            Ok((!there).then_some(*layer))
        })?;
        Ok(missing.into_iter().flatten().collect())
    }

    /// Those of the layers that are not here, as the registries have them.
    pub(crate) fn left_elsewhere(&self, store: &Store, layers: &[DiffId]) -> Result<BTreeMap<DiffId, Descriptor>> {
        let mut left = BTreeMap::new();
        for layer in layers {
            if store.layer(layer)?.is_none()
                && let Some(blob) = self.elsewhere.place(layer).and_then(|place| self.blob(&place, layer))
            {
                left.insert(*layer, blob);
            }
        }
        Ok(left)
    }

    fn blob(&self, place: &Place, layer: &DiffId) -> Option<Descriptor> {
        match place {
            Place::Cache(_, piece) => Some(piece.blob.clone()),
            Place::Base(image) => image.layer(layer).cloned(),
        }
    }

    /// The repository that has a layer.
    fn repository(&self, place: &Place) -> Option<Reference> {
        match place {
            Place::Base(image) => Some(image.reference().clone()),
            Place::Cache(source, _) => match &self.sources.get(*source)?.location {
                Location::Registry(reference) | Location::Keyed(reference) => Some(reference.clone()),
                Location::Local(..) | Location::Inline => None,
            },
        }
    }
}
