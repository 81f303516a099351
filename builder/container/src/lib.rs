//! Container records and the foreground run.
