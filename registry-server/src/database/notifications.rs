//! Notifications that were not delivered yet: they outlive the server.

use rusqlite::{Connection, OptionalExtension, params};

use super::Batch;

/// One that waits for its receiver.
#[derive(Debug)]
pub(crate) struct Notification {
    pub(crate) id: i64,
    /// What is posted.
    pub(crate) body: String,
}

/// Puts one at the end of a receiver's queue; `false` when `most` wait there.
pub(crate) fn queue_notification(batch: &Batch<'_>, receiver: &str, body: &str, most: i64) -> rusqlite::Result<bool> {
    let queued = batch
        .connection
        .prepare_cached(
            "INSERT INTO notifications (receiver, body)
             SELECT ?1, ?2 WHERE (SELECT count(*) FROM notifications WHERE receiver = ?1) < ?3",
        )?
        .execute(params![receiver, body, most])?;
    Ok(queued > 0)
}

/// The one that waits longest for a receiver.
pub(crate) fn next_notification(connection: &Connection, receiver: &str) -> rusqlite::Result<Option<Notification>> {
    connection
        .prepare_cached("SELECT id, body FROM notifications WHERE receiver = ?1 ORDER BY id LIMIT 1")?
        .query_row([receiver], |row| Ok(Notification { id: row.get(0)?, body: row.get(1)? }))
        .optional()
}

/// It was delivered, or given up.
pub(crate) fn remove_notification(batch: &Batch<'_>, id: i64) -> rusqlite::Result<()> {
    batch.connection.prepare_cached("DELETE FROM notifications WHERE id = ?1")?.execute([id]).map(drop)
}

/// Forgets what waits for anybody but these.
pub(crate) fn keep_receivers(batch: &Batch<'_>, receivers: &[String]) -> rusqlite::Result<()> {
    let mut known = batch.connection.prepare("SELECT DISTINCT receiver FROM notifications")?;
    let known: Vec<String> = known.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for gone in known.iter().filter(|name| !receivers.contains(name)) {
        batch.connection.execute("DELETE FROM notifications WHERE receiver = ?1", [gone])?;
    }
    Ok(())
}
