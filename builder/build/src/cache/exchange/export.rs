//! What builds used and made goes out, as far as it is not there.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::PoisonError;

use kiln_image::Reference;
use kiln_image::manifest::{Descriptor, OCI_LAYER, OCI_MANIFEST};
use kiln_store::layer::{Compression, LayerBlob};
use kiln_store::{DiffId, Store};

use super::document::{self, Document, Manifest, Mount, Piece, Record, parse_key};
use super::elsewhere::Place;
use super::location::{Location, Target};
use super::transport::Transport;
use super::{Exchange, Known};
use crate::error::chain;
use crate::key::Key;
use crate::parallel::in_parallel;
use crate::progress::{Event, Reporter};
use crate::{Error, Result};

impl Exchange {
    /// Sends what the builds used and made to every target but the image itself.
    ///
    /// # Errors
    /// A target cannot be written, and is not to be ignored then.
    pub fn export(&self, store: &Store, reporter: &dyn Reporter) -> Result<()> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for target in self.targets.iter().filter(|target| target.location != Location::Inline) {
            let location = &target.location;
            match (Outgoing { exchange: self, store, reporter, target, known: &known }).send() {
                Ok(sent) => reporter.event(Event::Note(&format!("exporting cache to {location}: {sent}"))),
                Err(error) if target.ignore_error => {
                    let reason = chain(&error);
                    reporter.event(Event::Note(&format!("exporting cache to {location} failed: {reason}")));
                }
                Err(error) => {
                    return Err(Error::CacheExport { place: location.to_string(), source: Box::new(error) });
                }
            }
        }
        Ok(())
    }
}

/// What goes to one target.
struct Outgoing<'a> {
    exchange: &'a Exchange,
    store: &'a Store,
    reporter: &'a dyn Reporter,
    target: &'a Target,
    known: &'a Known,
}

impl Outgoing<'_> {
    fn send(&self) -> Result<String> {
        let runtime = self.exchange.runtime()?.handle();
        let registry = |reference: &Reference| Transport::registry(reference, true, &self.exchange.options, runtime);
        match &self.target.location {
            Location::Registry(reference) => {
                self.send_document(&registry(reference)?, reference.tag().unwrap_or("latest"))
            }
            Location::Local(path, tag) => self.send_document(&Transport::directory(path, runtime), tag),
            Location::Keyed(reference) => self.send_entries(&registry(reference)?),
            Location::Inline => Ok(String::new()),
        }
    }

    /// One document with everything; nothing at all when it is there already.
    fn send_document(&self, transport: &Transport, tag: &str) -> Result<String> {
        let known = self.known.records(self.target.all_stages);
        let layers = known.iter().filter(|(_, with_layer)| *with_layer).filter_map(|(record, _)| record.layer);
        let layers: Vec<DiffId> = layers.collect::<BTreeSet<_>>().into_iter().collect();
        let records: Vec<Record> = known.into_iter().map(|(record, _)| record.clone()).collect();
        let pieces = in_parallel(&layers, |layer| self.piece(layer))?;
        let pieces: Vec<Piece> = pieces.into_iter().flatten().collect();
        let mounts = self.send_mounts(transport)?;
        let all = || pieces.iter().chain(mounts.iter().map(|(_, piece)| piece));
        let document = Document {
            records,
            layers: all().map(Piece::content).collect(),
            mounts: mounts.iter().map(|(name, piece)| Mount { name: name.clone(), layer: piece.diff_id }).collect(),
        };
        let bytes = document.encode()?;
        let manifest = Manifest::of_document(&bytes, all().map(|piece| piece.blob.clone()).collect());
        let encoded = manifest.encode()?;
        if transport.manifest(tag).is_ok_and(|there| there.as_ref() == Some(&encoded)) {
            return Ok("nothing new".to_owned());
        }
        let sent = in_parallel(&pieces, |piece| self.send_piece(transport, piece))?;
        self.send_bytes(transport, &manifest.config, &bytes)?;
        transport.put_manifest(tag, OCI_MANIFEST, &encoded)?;
        if self.target.reset {
            transport.remove_unreferenced()?;
        }
        let sent = sent.into_iter().filter(|sent| *sent).count();
        let (records, layers, mounts) = (document.records.len(), pieces.len(), mounts.len());
        Ok(format!("{records} records, {mounts} mounts, {layers} layers of which {sent} were sent"))
    }

    /// The archives of the cache mounts, if they are asked for, which are there then.
    fn send_mounts(&self, transport: &Transport) -> Result<Vec<(String, Piece)>> {
        let names: Vec<&String> = if self.target.mounts { self.known.mounts().collect() } else { Vec::new() };
        let sent = in_parallel(&names, |name| {
            let piece =
                self.exchange.send_mount(self.store, self.reporter, name, (transport, &self.target.location))?;
            Ok(piece.map(|piece| ((*name).clone(), piece)))
        })?;
        Ok(sent.into_iter().flatten().collect())
    }

    /// A tag for each record. Every blob is sent once, and before the first manifest that names it: registries trip over
    /// two uploads of one blob at the same time.
    fn send_entries(&self, transport: &Transport) -> Result<String> {
        let records = self.known.records(self.target.all_stages);
        let wanted = in_parallel(&records, |(record, with_layer)| {
            let Some(key) = parse_key(&record.key) else { return Ok(None) };
            let layer = record.layer.filter(|layer| *with_layer && !self.exchange.elsewhere.is_promised(layer));
            Ok(self.is_wanted(transport, &key, record, layer.is_some())?.then_some((key, *record, layer)))
        })?;
        let wanted: Vec<(Key, &Record, Option<DiffId>)> = wanted.into_iter().flatten().collect();
        let layers: BTreeSet<DiffId> = wanted.iter().filter_map(|(_, _, layer)| *layer).collect();
        let layers: Vec<DiffId> = layers.into_iter().collect();
        let pieces = in_parallel(&layers, |layer| {
            let Some(piece) = self.piece(layer)? else { return Ok(None) };
            Ok(Some((self.send_piece(transport, &piece)?, piece)))
        })?;
        let sent_layers = pieces.iter().flatten().filter(|(sent, _)| *sent).count();
        let mounts = self.send_mounts(transport)?;
        if !(wanted.is_empty() && mounts.is_empty()) {
            self.send_bytes(transport, &document::empty(), document::EMPTY_OBJECT)?;
        }
        let piece_of = |layer: &DiffId| pieces.iter().flatten().map(|(_, piece)| piece).find(|it| it.diff_id == *layer);
        in_parallel(&wanted, |(key, record, layer)| {
            let entry = Document { records: vec![Record::clone(record)], ..Document::default() };
            let piece = layer.as_ref().and_then(piece_of);
            put_entry(transport, &document::record_tag(key), &entry_manifest(entry, piece)?)
        })?;
        let mut sent_mounts = 0;
        for (name, piece) in &mounts {
            let entry =
                Document { mounts: vec![Mount { name: name.clone(), layer: piece.diff_id }], ..Document::default() };
            let (tag, manifest) = (document::mount_tag(name), entry_manifest(entry, Some(piece))?);
            if !transport.manifest(&tag).is_ok_and(|there| there.as_ref() == Some(&manifest)) {
                put_entry(transport, &tag, &manifest)?;
                sent_mounts += 1;
            }
        }
        Ok(match wanted.len() + sent_mounts {
            0 => "nothing new".to_owned(),
            _ => {
                let (new, all) = (wanted.len(), records.len());
                format!("{new} of {all} records, {sent_mounts} mounts, {sent_layers} layers were sent")
            }
        })
    }

    /// A record that is there stays, for what a key leads to there is as good; unless it has no layer, or the step was
    /// just done again and gave something else.
    fn is_wanted(&self, transport: &Transport, key: &Key, record: &Record, with_layer: bool) -> Result<bool> {
        let same_place = |offer: &&super::Offer| offer.location == self.target.location;
        let source = self.exchange.sources.iter().find(same_place).and_then(|offer| offer.source.get()?.as_ref());
        let there = match source {
            Some(source) => source.record(key)?,
            None => match transport.manifest(&document::record_tag(key))? {
                // What cannot be read is replaced.
                Some(bytes) => Manifest::parse(&bytes)
                    .and_then(|manifest| manifest.entry())
                    .ok()
                    .and_then(|mut entry| Some((entry.records.remove(key)?, entry.pieces.into_values().next()))),
                None => None,
            },
        };
        Ok(there.is_none_or(|(there, piece)| {
            (with_layer && piece.is_none()) || (record.fresh && there.layer != record.layer)
        }))
    }

    /// Where a layer is, or its compressed form here, which is made when there is none; nothing when nobody has it.
    fn piece(&self, layer: &DiffId) -> Result<Option<Piece>> {
        let elsewhere = &self.exchange.elsewhere;
        match elsewhere.place(layer) {
            Some(Place::Cache(_, piece)) if self.store.layer(layer)?.is_none() => {
                return Ok(Some(Piece::clone(&piece)));
            }
            Some(Place::Base(_)) => self.exchange.ensure(self.store, self.reporter, &[*layer])?,
            _ if elsewhere.is_promised(layer) && self.store.layer(layer)?.is_none() => return Ok(None),
            _ => {}
        }
        let here = self.store.layer(layer)?.ok_or(kiln_store::Error::LayerMissing(*layer))?;
        let LayerBlob { digest, size, media_type } = self.form(layer)?;
        let blob = Descriptor::new(&media_type, digest, size);
        Ok(Some(Piece { blob, diff_id: *layer, tar_size: here.tar_size }))
    }

    fn form(&self, layer: &DiffId) -> Result<LayerBlob> {
        let Target { compression, force_compression, .. } = *self.target;
        if !force_compression
            && let Some(original) = self.store.original_blob(layer)?
            && (compression == Compression::None || original.media_type != OCI_LAYER)
        {
            return Ok(original);
        }
        Ok(self.store.compress(layer, compression)?)
    }

    /// Sends a layer unless it is there; one that is only elsewhere comes first.
    fn send_piece(&self, transport: &Transport, piece: &Piece) -> Result<bool> {
        if transport.has(&piece.blob)? {
            return Ok(false);
        }
        self.exchange.ensure(self.store, self.reporter, &[piece.diff_id])?;
        let missing = kiln_store::Error::BlobMissing(piece.blob.digest);
        let content = self.store.blobs().get(&piece.blob.digest)?.ok_or(missing)?;
        transport.send(&piece.blob, content)?;
        Ok(true)
    }

    fn send_bytes(&self, transport: &Transport, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
        if transport.has(blob)? {
            return Ok(());
        }
        let staging = self.store.stage()?;
        let path = staging.scratch("document")?.join("bytes");
        let io = |error| Error::io("write", &path, error);
        let mut file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).map_err(io)?;
        file.write_all(bytes).map_err(io)?;
        transport.send(blob, file)
    }
}

/// The manifest of one entry and its layer.
fn entry_manifest(entry: Document, piece: Option<&Piece>) -> Result<Vec<u8>> {
    let entry = Document { layers: piece.into_iter().map(Piece::content).collect(), ..entry };
    Manifest::of_entry(&entry, piece.into_iter().map(|piece| piece.blob.clone()).collect())?.encode()
}

fn put_entry(transport: &Transport, tag: &str, manifest: &[u8]) -> Result<()> {
    transport.put_manifest(tag, OCI_MANIFEST, manifest)
}
