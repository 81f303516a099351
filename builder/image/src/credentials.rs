//! docker's and podman's credential files and helpers: reading for pull and push, writing for login.
