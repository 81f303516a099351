//! The plainest request.

use kiln_build::Request;
use kiln_image::Platform;

pub(crate) fn of(dockerfile: &[u8]) -> Request {
    Request { platform: Platform::parse("linux/amd64").unwrap(), ..Request::new(dockerfile.to_vec()) }
}
