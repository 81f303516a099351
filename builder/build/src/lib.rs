//! Plan, cache, solve, commit: a Dockerfile and a context to an image.
