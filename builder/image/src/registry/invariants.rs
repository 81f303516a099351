//! See [`crate::invariants`].

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, LINK, WWW_AUTHENTICATE};

use super::authentication::Challenge;
use super::repository::next_page;
use super::session::message_of;

pub(crate) fn check_answer(bytes: &[u8]) {
    let message = message_of(bytes);
    assert!(!message.chars().any(char::is_control), "{message:?}");
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.clone()), (LINK, value)]);
    let _ = Challenge::of(&headers);
    let Ok(url) = Url::parse("https://r.example/v2/a/tags/list") else { return };
    if let Some(next) = next_page(&url, &headers) {
        assert_eq!(next.origin(), url.origin(), "another server's");
    }
}
