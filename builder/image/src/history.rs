//! How an image was made, step by step: what `history` shows.

use kiln_store::{Digest, Store};

use crate::{Image, Result};

/// One step, as a row of docker's `history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The image, for its last step only: the steps before are no images.
    pub id: Option<Digest>,
    /// RFC 3339, as it stands in the config.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of the step's layer, as a tar; 0 for a step that made none.
    pub size: u64,
    /// Free text.
    pub comment: String,
}

/// The rows of an image, newest first. A layer that the history does not speak of has a row without words.
///
/// # Errors
/// The store cannot be read.
pub fn rows(store: &Store, image: &Image) -> Result<Vec<HistoryRow>> {
    let mut layers = image.layers.iter();
    let mut size = || match layers.next() {
        Some(layer) => {
            Ok::<_, crate::Error>(store.layer(layer)?.filter(|layer| !layer.empty).map_or(0, |layer| layer.tar_size))
        }
        None => Ok(0),
    };
    let mut rows = Vec::new();
    for step in &image.config.history {
        rows.push(HistoryRow {
            id: None,
            created: step.created.clone(),
            created_by: step.created_by.clone().unwrap_or_default(),
            size: if step.empty_layer { 0 } else { size()? },
            comment: step.comment.clone().unwrap_or_default(),
        });
    }
    let told = image.config.history.iter().filter(|step| !step.empty_layer).count();
    for _ in told..image.layers.len() {
        let (created_by, comment) = (String::new(), String::new());
        rows.push(HistoryRow { id: None, created: None, created_by, size: size()?, comment });
    }
    rows.reverse();
    if let Some(newest) = rows.first_mut() {
        newest.id = Some(image.id);
    }
    Ok(rows)
}
