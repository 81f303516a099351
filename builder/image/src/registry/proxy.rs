//! The proxies that the environment names.

use reqwest::{ClientBuilder, NoProxy, Proxy};

/// A client as it is, and through which proxy it goes. With `socks5://` the proxy is asked for hosts by their names, as
/// `socks5h://` says and as docker and podman do with either; everything else is what the HTTP library makes of the
/// variables.
///
/// # Errors
/// A variable does not hold a proxy's address.
pub fn proxied(mut builder: ClientBuilder) -> Result<ClientBuilder, reqwest::Error> {
    let https = variable(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
    let http = variable(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]);
    if ![&https, &http].into_iter().flatten().any(|proxy| by_name(proxy).is_some()) {
        return Ok(builder);
    }
    let address = |given: &String| by_name(given).unwrap_or_else(|| given.clone());
    for proxy in [https.map(|given| Proxy::https(address(&given))), http.map(|given| Proxy::http(address(&given)))] {
        if let Some(proxy) = proxy.transpose()? {
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_env()));
        }
    }
    Ok(builder)
}

fn variable(names: [&str; 4]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The address of a SOCKS proxy that is to be asked for names.
fn by_name(proxy: &str) -> Option<String> {
    proxy.strip_prefix("socks5://").map(|rest| format!("socks5h://{rest}"))
}
