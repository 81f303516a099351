//! What every end-to-end test needs: an isolated home, store and binary.
