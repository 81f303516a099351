//! A push and pull registry over one directory. Knows nothing of the builder.
